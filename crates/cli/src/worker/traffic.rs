//! What a program does with a buffer around a collective: writes all of it before and reads all of it after.

/// Write every byte; other values for another call. Any of them is an ordinary number in every element type.
pub(super) fn produce(buffer: &mut [u8], call: usize) {
    buffer.fill(0x38 + (call % 8) as u8);
}

/// Read every byte: the wrapping sum of the whole 64-bit words.
pub(super) fn consume(buffer: &[u8]) -> u64 {
    let mut sums = [0u64; 8];
    let (lines, rest) = buffer.as_chunks::<64>();
    for line in lines {
        for (sum, word) in sums.iter_mut().zip(line.as_chunks().0) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    let rest = rest.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word));
    sums.into_iter().chain(rest).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_that_was_written_is_read() {
        for bytes in [8, 64, 4096 + 24] {
            let mut buffer = vec![0; bytes];
            produce(&mut buffer, 3);
            let sum = consume(&buffer);
            assert_eq!(sum, 0x3b3b_3b3b_3b3b_3b3b_u64.wrapping_mul(bytes as u64 / 8));
            buffer[bytes - 1] ^= 1;
            assert_ne!(consume(&buffer), sum);
        }
    }
}
