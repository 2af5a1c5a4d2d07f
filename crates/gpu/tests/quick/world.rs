//! Ranks with a quick all-reduce each, on simulated devices.

use half::{bf16, f16};
use unisono_gpu::driver::sim::{Device, Simulator};
use unisono_gpu::{Arithmetic, DType, Driver, QuantLevel, QuickAllReduce, QuickHow, QuickOptions};

/// All ways to reduce, by number.
pub(crate) fn how(level: QuantLevel, number: u64) -> (DType, QuickHow) {
    let dtype = if number % 3 == 0 { DType::F16 } else { DType::BF16 };
    let arithmetic = if number / 3 % 2 == 0 { Arithmetic::Narrow } else { Arithmetic::Wide };
    (dtype, QuickHow { level, as_f16: number % 3 == 2, arithmetic })
}

/// All ranks of a group, in this process.
pub(crate) struct World {
    pub(crate) simulator: Simulator,
    pub(crate) ranks: Vec<(Device, QuickAllReduce<Device>)>,
}

impl World {
    pub(crate) fn new(world: usize, options: QuickOptions, detects_races: bool) -> Self {
        let simulator = Simulator::new(world, detects_races);
        let device = |rank: usize| simulator.device(rank);
        let mut ranks: Vec<_> = (0..world)
            .map(|rank| (device(rank), QuickAllReduce::new(device(rank), rank, world, options).unwrap()))
            .collect();
        let handles: Vec<_> = ranks.iter().map(|(_, quick)| quick.handle().unwrap()).collect();
        for (_, quick) in &mut ranks {
            quick.open_handles(&handles).unwrap();
        }
        Self { simulator, ranks }
    }

    /// A buffer on every device.
    pub(crate) fn buffers(&self, elements: usize) -> Vec<u64> {
        self.ranks.iter().map(|(device, _)| device.allocate(2 * elements.max(1)).unwrap()).collect()
    }

    pub(crate) fn write(&self, addresses: &[u64], contents: &[Vec<u16>]) {
        for (((device, _), address), content) in self.ranks.iter().zip(addresses).zip(contents) {
            let bytes: Vec<u8> = content.iter().flat_map(|bits| bits.to_le_bytes()).collect();
            device.write(*address, &bytes).unwrap();
        }
    }

    pub(crate) fn read(&self, addresses: &[u64], elements: usize) -> Vec<Vec<u16>> {
        let read = |((device, _), address): (&(Device, _), &u64)| {
            let mut found = vec![0; 2 * elements];
            device.read(*address, &mut found).unwrap();
            found.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect()
        };
        self.ranks.iter().zip(addresses).map(read).collect()
    }

    /// On every rank's stream.
    pub(crate) fn all_reduce(
        &self,
        inputs: &[u64],
        outputs: &[u64],
        elements: usize,
        dtype: DType,
        how: QuickHow,
    ) {
        for (((_, quick), input), output) in self.ranks.iter().zip(inputs).zip(outputs) {
            quick.all_reduce(*input, *output, elements, dtype, how).unwrap();
        }
    }
}

/// Values of a rank. `is_ordinary`: numbers of similar size; otherwise blocks of zeros, tiny, huge and infinite ones and NaNs are
/// among them.
pub(crate) fn values(rank: usize, elements: usize, dtype: DType, seed: u64, is_ordinary: bool) -> Vec<u16> {
    let mut state = (seed << 8 | rank as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut value = |index: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let number = (state >> 40) as f32 / 16_777_216.0 - 0.5;
        if is_ordinary {
            return number * 2.0_f32.powi((state & 3) as i32);
        }
        match (index / 64 % 9, state >> 8 & 0x3ff) {
            (0, 0) => f32::NAN,
            (0, 1) => f32::INFINITY,
            (0, 2) => f32::NEG_INFINITY,
            (1, n) => {
                if n % 2 == 0 {
                    0.0
                } else {
                    -0.0
                }
            }
            (2, _) => number * 2.0_f32.powi(-12 - (state & 15) as i32),
            (3, _) => number * 2.0_f32.powi((state & 15) as i32),
            // Opposites of the same size.
            (4, n) => {
                if n % 2 == 0 {
                    1.5
                } else {
                    -1.5
                }
            }
            _ => number * 2.0_f32.powi((state & 7) as i32 - 4),
        }
    };
    let bits = |value: f32| match dtype {
        DType::BF16 => bf16::from_f32(value).to_bits(),
        _ => f16::from_f32(value).to_bits(),
    };
    (0..elements).map(|index| bits(value(index))).collect()
}

/// Inputs of all ranks.
pub(crate) fn inputs(
    world: usize,
    elements: usize,
    dtype: DType,
    seed: u64,
    is_ordinary: bool,
) -> Vec<Vec<u16>> {
    (0..world).map(|rank| values(rank, elements, dtype, seed, is_ordinary)).collect()
}
