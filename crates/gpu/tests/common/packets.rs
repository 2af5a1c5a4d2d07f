//! Ranks that reduce by packets, on simulated devices: of one node, or of two with a wire between opposite ranks.

#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use half::{bf16, f16};
use unisono_gpu::driver::sim::{Device, Simulator};
use unisono_gpu::packet::{Arrived, PacketConfig, PacketContext, PacketKernel, Prepared, Shape, Sum, Wire};
use unisono_gpu::{DType, Driver, Error};

use crate::common;

/// What a group is made with.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) detects_races: bool,
    pub(crate) most_bytes: usize,
    pub(crate) sum: Sum,
    pub(crate) first_call: u32,
    pub(crate) patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            detects_races: false,
            most_bytes: 1 << 12,
            sum: Sum::InRankOrder,
            first_call: 1,
            patience: Duration::from_secs(20),
        }
    }
}

/// One rank.
pub(crate) struct Rank {
    pub(crate) device: Device,
    pub(crate) context: PacketContext<Device>,
    pub(crate) scratch: u64,
}

/// All ranks of a group, in this process.
pub(crate) struct Group {
    pub(crate) simulator: Simulator,
    pub(crate) ranks: Vec<Rank>,
    pub(crate) sum: Sum,
}

/// Of ranks on devices of a simulator, which others may use, too.
pub(crate) fn connect(
    simulator: &Simulator,
    world: usize,
    ranks_per_node: usize,
    options: Options,
    mut wires: Vec<Box<dyn Wire>>,
) -> Result<Vec<Rank>, Error> {
    let mut prepared = Vec::new();
    for rank in 0..world {
        let shape = Shape::new(rank, world, ranks_per_node)?;
        let device = simulator.device(rank);
        let scratch_bytes = shape.scratch_bytes(options.most_bytes);
        // One word more than is used: the scratch does not begin where its allocation does.
        let scratch = device.allocate(scratch_bytes + 8)? + 8;
        let put_bytes = shape.put_bytes(options.most_bytes, DType::F16, options.sum);
        let config = PacketConfig {
            sum: options.sum,
            first_call: options.first_call,
            patience: options.patience,
            ..PacketConfig::new(shape, scratch, scratch_bytes, put_bytes)
        };
        prepared.push((device.clone(), scratch, Prepared::new(device, config)?));
    }
    simulator.run(0).unwrap();
    let offers = prepared.iter().map(|(_, _, prepared)| prepared.offer()).collect::<Result<Vec<_>, _>>()?;
    simulator.meet().unwrap();
    wires.reverse();
    let mut ranks = Vec::new();
    for (device, scratch, prepared) in prepared {
        let context = match wires.pop() {
            Some(wire) => prepared.connect_far(&offers, wire)?,
            None => prepared.connect(&offers)?,
        };
        ranks.push(Rank { device, context, scratch });
    }
    Ok(ranks)
}

impl Group {
    /// On one node.
    pub(crate) fn near(world: usize, options: Options) -> Self {
        let simulator = Simulator::new(world, options.detects_races);
        let ranks = connect(&simulator, world, world, options, Vec::new()).unwrap();
        Self { simulator, ranks, sum: options.sum }
    }

    /// On two nodes of so many ranks, with wires within this process.
    pub(crate) fn far(ranks_per_node: usize, options: Options) -> Self {
        let world = 2 * ranks_per_node;
        let simulator = Simulator::new(world, options.detects_races);
        let ranks = connect(&simulator, world, ranks_per_node, options, threads(ranks_per_node)).unwrap();
        Self { simulator, ranks, sum: options.sum }
    }

    pub(crate) fn buffers(&self, bytes: usize) -> Vec<u64> {
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
    pub(crate) fn all_reduce(&mut self, inputs: &[u64], outputs: &[u64], elements: usize, dtype: DType) {
        for ((rank, input), output) in self.ranks.iter_mut().zip(inputs).zip(outputs) {
            rank.context.all_reduce(*input, *output, elements, dtype, None).unwrap();
        }
    }

    /// What each rank has to get.
    pub(crate) fn expected(&self, contents: &[Vec<u8>], dtype: DType) -> Vec<u8> {
        expected(contents, dtype, self.ranks[0].context.shape().ranks_per_node(), self.sum)
    }
}

/// The PTX that is shipped for one node, or for two.
pub(crate) fn shipped(kernel: PacketKernel) -> &'static str {
    let mut all = unisono_gpu::packet::packet_artefacts().into_iter();
    all.find(|artefact| artefact.kernel == kernel).unwrap().ptx
}

/// A plain loop in the order that is specified.
pub(crate) fn expected(contents: &[Vec<u8>], dtype: DType, ranks_per_node: usize, sum: Sum) -> Vec<u8> {
    let two = contents.len() > ranks_per_node;
    if sum == Sum::InRankOrder || (sum == Sum::ByNode && !two) {
        return common::sum(contents, dtype);
    }
    let elements = contents[0].len() / dtype.size();
    let per_word = 4 / dtype.size();
    let longest = elements.div_ceil(per_word).div_ceil(ranks_per_node);
    let mut bytes = Vec::new();
    for index in 0..elements {
        let value = |rank: usize| load(&contents[rank], index, dtype);
        // Who reduces it.
        let owner = index / per_word / longest;
        let node = |node: usize| {
            let first = node * ranks_per_node;
            match sum {
                Sum::In16Bits => {
                    let peers = (0..ranks_per_node).filter(|local| *local != owner).chain([owner]);
                    let all = peers.map(|local| value(first + local));
                    all.reduce(|sum, more| rounded(sum + more, dtype)).unwrap()
                }
                _ => (first..first + ranks_per_node).map(value).reduce(|sum, more| sum + more).unwrap(),
            }
        };
        let total = if two { node(0) + node(1) } else { node(0) };
        store(&mut bytes, total, dtype);
    }
    bytes
}

fn load(bytes: &[u8], index: usize, dtype: DType) -> f32 {
    let at = index * dtype.size();
    match dtype {
        DType::F32 => f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()),
        DType::F16 => f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
        DType::BF16 => bf16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32(),
    }
}

fn rounded(value: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F32 => value,
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::BF16 => bf16::from_f32(value).to_f32(),
    }
}

fn store(bytes: &mut Vec<u8>, value: f32, dtype: DType) {
    match dtype {
        DType::F32 if value.is_nan() => bytes.extend(0x7fc0_0000_u32.to_le_bytes()),
        DType::F16 if value.is_nan() => bytes.extend(0x7e00_u16.to_le_bytes()),
        DType::BF16 if value.is_nan() => bytes.extend(0x7fc0_u16.to_le_bytes()),
        DType::F32 => bytes.extend(value.to_le_bytes()),
        DType::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
        DType::BF16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
    }
}

/// What travels in one direction, and what ends it.
#[derive(Debug, Default)]
struct Lane {
    state: Mutex<LaneState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LaneState {
    messages: VecDeque<Vec<u8>>,
    has_left: bool,
    lost: Option<String>,
    is_interrupted: bool,
}

/// One end of a wire within this process.
#[derive(Debug)]
pub(crate) struct ThreadWire {
    to: Arc<Lane>,
    from: Arc<Lane>,
}

/// Cuts a wire.
#[derive(Debug, Clone)]
pub(crate) struct Scissors(Vec<Arc<Lane>>);

impl Scissors {
    pub(crate) fn cut(&self) {
        for lane in &self.0 {
            lane.change(|state| state.lost = Some("cut".into()));
        }
    }
}

impl Lane {
    fn change(&self, act: impl FnOnce(&mut LaneState)) {
        act(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }
}

impl Wire for ThreadWire {
    fn send(&self, message: Vec<u8>) {
        self.to.change(|state| state.messages.push_back(message));
    }

    fn receive(&self) -> Arrived {
        let mut state = self.from.state.lock().unwrap();
        loop {
            if state.is_interrupted {
                return Arrived::Interrupted;
            }
            if let Some(why) = &state.lost {
                return Arrived::Lost(why.clone());
            }
            if let Some(message) = state.messages.pop_front() {
                return Arrived::Message(message);
            }
            if state.has_left {
                return Arrived::Left;
            }
            state = self.from.changed.wait(state).unwrap();
        }
    }

    fn interrupt(&self) {
        self.from.change(|state| state.is_interrupted = true);
    }

    fn close(&self, _: Duration) {
        self.to.change(|state| state.has_left = true);
    }
}

/// Wires for two nodes, in order of rank.
pub(crate) fn threads(ranks_per_node: usize) -> Vec<Box<dyn Wire>> {
    threads_and_scissors(ranks_per_node).0
}

/// The same, and what cuts the wire of each place.
pub(crate) fn threads_and_scissors(ranks_per_node: usize) -> (Vec<Box<dyn Wire>>, Vec<Scissors>) {
    let (mut first, mut second, mut scissors) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ranks_per_node {
        let (there, back) = (Arc::new(Lane::default()), Arc::new(Lane::default()));
        scissors.push(Scissors(vec![Arc::clone(&there), Arc::clone(&back)]));
        first.push(Box::new(ThreadWire { to: Arc::clone(&there), from: Arc::clone(&back) }) as Box<dyn Wire>);
        second.push(Box::new(ThreadWire { to: back, from: there }) as Box<dyn Wire>);
    }
    first.extend(second);
    (first, scissors)
}
