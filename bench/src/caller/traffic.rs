//! Writing and reading all of a buffer around a collective; `bench/callers/traffic.c` is the same in C.
//!
//! The one invariant that matters: it moves the same bytes by the same instructions as that file, `memset` and 128-bit
//! additions, so that it adds the same to every library's time.

/// The repeated byte of a call: its sums are exact for two and four ranks in every element type.
fn byte_of(number: usize) -> u8 {
    0x38 + (number % 8) as u8
}

/// Fill the buffer with values of their own for every number of a call.
pub(super) fn produce(buffer: &mut [u8], number: usize) {
    buffer.fill(byte_of(number));
}

/// The wrapping sum of the buffer's whole 64-bit words.
pub(super) fn consume(buffer: &[u8]) -> u64 {
    let mut sums = [0_u64; 8];
    let mut lines = buffer.chunks_exact(64);
    for line in &mut lines {
        for (sum, word) in sums.iter_mut().zip(line.chunks_exact(8)) {
            *sum = sum.wrapping_add(word_of(word));
        }
    }
    let rest = lines.remainder().chunks_exact(8).map(word_of);
    sums.into_iter().chain(rest).fold(0, u64::wrapping_add)
}

fn word_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

/// What [`consume`] must return for an output to which every element has come from so many ranks, in call `number`.
pub(super) fn expected_sum(bytes: usize, number: usize, is_bf16: bool, ranks: usize) -> u64 {
    let mut bits = u32::from_ne_bytes([byte_of(number); 4]);
    if is_bf16 && ranks > 1 {
        bits &= 0xffff_0000;
    }
    let sum: f32 = (0..ranks).map(|_| f32::from_bits(bits)).sum();
    let mut bits = sum.to_bits();
    if is_bf16 && ranks > 1 {
        bits |= bits >> 16;
    }
    let word = u64::from(bits) << 32 | u64::from(bits);
    word.wrapping_mul((bytes / 8) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_rank_alone_is_what_it_wrote() {
        for (bytes, number) in [(64, 0), (4096, 5), (104, 9)] {
            let mut buffer = vec![0; bytes];
            produce(&mut buffer, number);
            assert_eq!(consume(&buffer), expected_sum(bytes, number, false, 1));
            assert_eq!(consume(&buffer), expected_sum(bytes, number, true, 1));
            buffer[bytes / 2] ^= 1;
            assert_ne!(consume(&buffer), expected_sum(bytes, number, false, 1));
        }
    }
}
