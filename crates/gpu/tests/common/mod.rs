//! Ranks on simulated devices, prepared as an engine would: memories exchanged by handle, a staging buffer registered.

#![allow(dead_code, reason = "each test program uses a part")]

use half::{bf16, f16};
use unisono_gpu::driver::sim::{Device, Simulator};
use unisono_gpu::{Algorithm, AllReduce, DType, Driver, Error, META_BYTES, Peers, Staging};

/// One rank: its device and its side of the all-reduce.
pub(crate) struct Rank {
    pub(crate) device: Device,
    pub(crate) all_reduce: AllReduce<Device>,
    pub(crate) staging: Staging,
}

/// All ranks of a group, in this process.
pub(crate) struct World {
    pub(crate) simulator: Simulator,
    pub(crate) ranks: Vec<Rank>,
}

/// What a world is made with.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) detects_races: bool,
    /// Bytes of the largest message.
    pub(crate) most_bytes: usize,
    pub(crate) most_blocks: usize,
    pub(crate) table_rows: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { detects_races: false, most_bytes: 1 << 20, most_blocks: 36, table_rows: 64 }
    }
}

/// Allocates on every device and opens everywhere; `[as seen by][of]`.
pub(crate) fn exchange(devices: &[Device], bytes: usize) -> Vec<Vec<u64>> {
    let own: Vec<u64> = devices.iter().map(|device| device.allocate(bytes).unwrap()).collect();
    let handles: Vec<_> =
        devices.iter().zip(&own).map(|(device, base)| device.export(*base).unwrap()).collect();
    let seen_by = |rank: usize| {
        let of =
            |peer: usize| if peer == rank { own[rank] } else { devices[rank].open(&handles[peer]).unwrap() };
        (0..devices.len()).map(of).collect()
    };
    (0..devices.len()).map(seen_by).collect()
}

impl World {
    pub(crate) fn new(world: usize, options: Options) -> Self {
        let simulator = Simulator::new(world, options.detects_races);
        let devices: Vec<_> = (0..world).map(|device| simulator.device(device)).collect();
        let metas = exchange(&devices, META_BYTES + options.most_bytes);
        let stagings = exchange(&devices, options.most_bytes);
        let rank = |rank: usize| {
            let device = devices[rank].clone();
            let table_bytes = 64 * options.table_rows;
            let table = device.allocate(table_bytes).unwrap();
            let peers = Peers { meta: &metas[rank], rank, are_fully_connected: true };
            let mut all_reduce = AllReduce::new(device.clone(), &peers, table, table_bytes).unwrap();
            all_reduce.set_most_blocks(options.most_blocks);
            all_reduce.register_buffer(&stagings[rank]).unwrap();
            let staging = Staging { address: stagings[rank][rank], bytes: options.most_bytes };
            Rank { device, all_reduce, staging }
        };
        let ranks = (0..world).map(rank).collect();
        let world = Self { simulator, ranks };
        world.simulator.run(0).unwrap();
        world.simulator.meet().unwrap();
        world
    }

    pub(crate) fn devices(&self) -> Vec<Device> {
        self.ranks.iter().map(|rank| rank.device.clone()).collect()
    }

    /// A buffer on every device, registered; what each rank sees of its own.
    pub(crate) fn registered(&mut self, bytes: usize) -> Vec<u64> {
        let seen = exchange(&self.devices(), bytes);
        for (rank, addresses) in self.ranks.iter_mut().zip(&seen) {
            rank.all_reduce.register_buffer(addresses).unwrap();
        }
        (0..seen.len()).map(|rank| seen[rank][rank]).collect()
    }

    /// A buffer on every device that only its own rank knows.
    pub(crate) fn private(&self, bytes: usize) -> Vec<u64> {
        self.ranks.iter().map(|rank| rank.device.allocate(bytes).unwrap()).collect()
    }

    pub(crate) fn write(&self, addresses: &[u64], contents: &[Vec<u8>]) {
        for ((rank, address), content) in self.ranks.iter().zip(addresses).zip(contents) {
            rank.device.write(*address, content).unwrap();
        }
    }

    pub(crate) fn read(&self, addresses: &[u64], bytes: usize) -> Vec<Vec<u8>> {
        let read = |(rank, address): (&Rank, &u64)| {
            let mut found = vec![0; bytes];
            rank.device.read(*address, &mut found).unwrap();
            found
        };
        self.ranks.iter().zip(addresses).map(read).collect()
    }

    /// On every rank's stream.
    pub(crate) fn all_reduce(
        &mut self,
        inputs: &[u64],
        outputs: &[u64],
        elements: usize,
        dtype: DType,
        is_staged: bool,
    ) -> Result<(), Error> {
        for ((rank, input), output) in self.ranks.iter_mut().zip(inputs).zip(outputs) {
            let staging = is_staged.then_some(rank.staging);
            rank.all_reduce.all_reduce(*input, *output, elements, dtype, staging)?;
        }
        Ok(())
    }
}

/// What a kernel is to do, for so many elements of each rank.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) algorithm: Algorithm,
    pub(crate) world: usize,
    pub(crate) elements: usize,
    pub(crate) dtype: DType,
    /// Of a reduce-scatter: into the own portion.
    pub(crate) is_in_place: bool,
    pub(crate) is_staged: bool,
}

impl Case {
    /// Elements that a rank gives.
    pub(crate) fn given(&self) -> usize {
        self.elements * if self.algorithm == Algorithm::ReduceScatter { self.world } else { 1 }
    }

    /// Elements that a rank gets.
    pub(crate) fn got(&self) -> usize {
        self.elements * if self.algorithm == Algorithm::AllGather { self.world } else { 1 }
    }

    /// Where the ranks' outputs are, given where their inputs are.
    pub(crate) fn outputs(&self, ranks: &World, sources: &[u64]) -> Vec<u64> {
        if !self.is_in_place {
            return ranks.private(self.got() * self.dtype.size());
        }
        let portion =
            if self.algorithm == Algorithm::ReduceScatter { self.elements * self.dtype.size() } else { 0 };
        sources.iter().enumerate().map(|(rank, source)| source + (rank * portion) as u64).collect()
    }

    /// Puts it on every rank's stream.
    pub(crate) fn enqueue(&self, ranks: &mut World, sources: &[u64], outputs: &[u64]) {
        let (elements, dtype) = (self.elements, self.dtype);
        for ((rank, input), output) in ranks.ranks.iter_mut().zip(sources).zip(outputs) {
            let staging = self.is_staged.then_some(rank.staging);
            let all_reduce = &mut rank.all_reduce;
            let done = match self.algorithm {
                Algorithm::ReduceScatter => {
                    all_reduce.reduce_scatter(*input, *output, elements, dtype, staging)
                }
                Algorithm::AllGather => all_reduce.all_gather(*input, *output, elements, dtype, staging),
                Algorithm::OneShot | Algorithm::TwoShot => {
                    all_reduce.all_reduce(*input, *output, elements, dtype, staging)
                }
            };
            done.unwrap();
        }
    }

    /// What each rank has to get: a plain loop.
    pub(crate) fn expected(&self, contents: &[Vec<u8>]) -> Vec<Vec<u8>> {
        match self.algorithm {
            Algorithm::OneShot | Algorithm::TwoShot => vec![sum(contents, self.dtype); self.world],
            Algorithm::AllGather => vec![contents.concat(); self.world],
            Algorithm::ReduceScatter => {
                let portion = self.elements * self.dtype.size();
                sum(contents, self.dtype).chunks(portion).map(<[u8]>::to_vec).collect()
            }
        }
    }
}

/// A rank's values: of many magnitudes, so that another order of additions gives other bits; now and then an infinity or a NaN.
pub(crate) fn values(rank: usize, elements: usize, dtype: DType, seed: u64) -> Vec<u8> {
    let mut state = (seed << 8 | rank as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(elements * dtype.size());
    for _ in 0..elements {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (mantissa, power) = ((state >> 40) as f32 / 16_777_216.0 - 0.5, (state & 15) as i32 - 8);
        let value = match state >> 8 & 0xfff {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::NEG_INFINITY,
            3 => -0.0,
            4 => f32::from_bits(5),
            _ => mantissa * 2.0_f32.powi(power),
        };
        match dtype {
            DType::F32 => bytes.extend(value.to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
        }
    }
    bytes
}

/// A plain loop: rank 0's value, plus rank 1's, plus …; accumulated in f32, rounded once; canonical NaNs.
pub(crate) fn sum(inputs: &[Vec<u8>], dtype: DType) -> Vec<u8> {
    let size = dtype.size();
    let mut bytes = Vec::with_capacity(inputs[0].len());
    for at in (0..inputs[0].len()).step_by(size) {
        let value = |input: &Vec<u8>| match dtype {
            DType::F32 => f32::from_le_bytes(input[at..at + 4].try_into().unwrap()),
            DType::F16 => f16::from_le_bytes([input[at], input[at + 1]]).to_f32(),
            DType::BF16 => bf16::from_le_bytes([input[at], input[at + 1]]).to_f32(),
        };
        let sum = inputs[1..].iter().fold(value(&inputs[0]), |sum, input| sum + value(input));
        match dtype {
            DType::F32 if sum.is_nan() => bytes.extend(0x7fc0_0000_u32.to_le_bytes()),
            DType::F16 if sum.is_nan() => bytes.extend(0x7e00_u16.to_le_bytes()),
            DType::BF16 if sum.is_nan() => bytes.extend(0x7fc0_u16.to_le_bytes()),
            DType::F32 => bytes.extend(sum.to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f32(sum).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f32(sum).to_le_bytes()),
        }
    }
    bytes
}

/// Inputs of all ranks.
pub(crate) fn inputs(world: usize, elements: usize, dtype: DType, seed: u64) -> Vec<Vec<u8>> {
    (0..world).map(|rank| values(rank, elements, dtype, seed)).collect()
}
