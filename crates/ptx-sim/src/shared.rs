//! What each block has for itself: `.shared` variables. At first they hold a pattern: who reads what nobody wrote is to find out.

use crate::clock::ThreadClock;
use crate::race::{Detector, Touch};
use crate::report::Report;

/// What a block has for itself; races in it are found apart from those in memory.
#[derive(Debug)]
pub(crate) struct Shared {
    bytes: Vec<u8>,
    detector: Option<Detector>,
}

impl Shared {
    pub(crate) fn new(bytes: usize, detects_races: bool) -> Self {
        Self { bytes: vec![0xa5; bytes], detector: detects_races.then(Detector::default) }
    }

    /// The bytes there; the access is looked at.
    pub(crate) fn access(
        &mut self,
        (address, bytes): (u64, usize),
        writes: bool,
        line: u32,
        clock: &ThreadClock,
        report: &mut Report,
    ) -> Result<&mut [u8], String> {
        if !address.is_multiple_of(bytes as u64) {
            return Err(format!("{bytes} bytes at {address:#x} are not aligned"));
        }
        if let Some(detector) = &mut self.detector {
            let bytes = bytes as u64;
            let touch = Touch { place: address, bytes, line, writes, strong: None, is_atomic: false };
            detector.touch(touch, clock, report);
        }
        let found = self.bytes.get_mut(address as usize..(address as usize).saturating_add(bytes));
        found.ok_or_else(|| format!("the block has no {bytes} bytes of its own at {address:#x}"))
    }
}
