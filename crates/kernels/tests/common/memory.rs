//! Buffers at a chosen misalignment, with guard bytes on both sides.

const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xa5;

/// Bytes that begin `misalignment` bytes behind a multiple of 64 and are guarded on both sides.
pub(crate) struct Guarded {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Guarded {
    /// A buffer that holds `contents`.
    pub(crate) fn new(contents: &[u8], misalignment: usize) -> Guarded {
        let mut bytes = vec![GUARD_BYTE; contents.len() + 4 * GUARD];
        let start = GUARD + bytes.as_ptr().addr().wrapping_neg() % 64 + misalignment % 64;
        bytes[start..start + contents.len()].copy_from_slice(contents);
        Guarded { bytes, start, length: contents.len() }
    }

    /// The first byte.
    pub(crate) fn pointer(&mut self) -> *mut u8 {
        self.bytes[self.start..].as_mut_ptr()
    }

    /// What the buffer holds.
    pub(crate) fn contents(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }

    /// Panics if a byte before or behind the buffer has changed.
    pub(crate) fn assert_guards_untouched(&self) {
        let (before, rest) = self.bytes.split_at(self.start);
        let behind = &rest[self.length..];
        assert!(before.iter().chain(behind).all(|&byte| byte == GUARD_BYTE), "a guard byte was written");
    }
}
