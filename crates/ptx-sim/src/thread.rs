//! One thread of a launch, run from one synchronising instruction to the next.
//!
//! Between two of them nothing that another thread does can matter, unless there is a race, which the detector finds
//! whatever the order was. So a thread runs on alone until it would touch a flag, wait at a barrier, or end.

use crate::clock::ThreadClock;
use crate::code::{
    Address, Atomic, Barrier, Instruction, Kernel, Operation, Order, Register, Scope, Source, Space, Special,
};
use crate::memory::Memory;
use crate::race::{Detector, Touch};
use crate::report::Report;
use crate::shared::Shared;
use crate::value;

/// More instructions than any thread of ours needs between two synchronising ones.
const MOST_INSTRUCTIONS: u64 = 100_000_000;

/// A thread's state.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) index: u32,
    pub(crate) next: usize,
    /// Empty until the thread is first run, and after it has ended.
    registers: Vec<u64>,
    pub(crate) clock: ThreadClock,
    /// The flag that it looked at last: which instruction, where, what it held.
    pub(crate) seen: Option<Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    instruction: usize,
    pub(crate) address: u64,
    place: u64,
    pub(crate) value: u64,
}

/// What all threads of a launch have in common.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) parameters: &'a [u8],
    pub(crate) device: usize,
    pub(crate) block: u32,
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
    /// Nanoseconds.
    pub(crate) time: u64,
}

/// What threads act upon.
#[derive(Debug)]
pub(crate) struct Effects<'a, M> {
    pub(crate) memory: &'a mut M,
    pub(crate) detector: Option<&'a mut Detector>,
    pub(crate) report: &'a mut Report,
    pub(crate) shared: &'a mut Shared,
    /// Places of words that may have changed, for those who wait for them.
    pub(crate) changed: &'a mut Vec<u64>,
}

/// Why a thread stopped running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Its next instruction touches a flag.
    Flag,
    /// It has looked at this place again and found what was there before.
    Unchanged {
        place: u64,
    },
    /// It waits for its block; whether its predicate holds, and where it wants to know whether any does.
    Barrier {
        says: bool,
        answer: Option<Register>,
    },
    /// It waits for its warp, to which it shows a value, and wants that of another lane.
    Shuffle(Shuffle),
    Ended,
}

/// What a thread shows its warp, and what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shuffle {
    pub(crate) value: u64,
    /// The bits in which the wanted lane's number differs.
    pub(crate) flip: u64,
    pub(crate) to: Register,
}

impl Thread {
    pub(crate) fn new(index: u32, clock: ThreadClock) -> Self {
        Self { index, next: 0, registers: Vec::new(), clock, seen: None }
    }

    /// It has begun and not ended.
    pub(crate) fn is_running(&self) -> bool {
        !self.registers.is_empty()
    }

    pub(crate) fn set(&mut self, register: Register, value: u64) {
        self.registers[usize::from(register)] = value;
    }

    /// Runs until the thread has to pause. The error is a problem with the instruction that is `next`.
    pub(crate) fn run<M: Memory>(
        &mut self,
        around: &Surroundings<'_>,
        effects: &mut Effects<'_, M>,
    ) -> Result<Pause, String> {
        if self.registers.is_empty() {
            self.registers = vec![0; around.kernel.registers];
        }
        let mut executed = 0;
        let paused = self.run_on(around, effects, &mut executed);
        effects.report.instructions += executed;
        if paused == Ok(Pause::Ended) {
            self.registers = Vec::new();
        }
        paused
    }

    fn run_on<M: Memory>(
        &mut self,
        around: &Surroundings<'_>,
        effects: &mut Effects<'_, M>,
        executed: &mut u64,
    ) -> Result<Pause, String> {
        loop {
            let instruction = &around.kernel.code[self.next];
            let is_first = *executed == 0;
            *executed += 1;
            if *executed > MOST_INSTRUCTIONS {
                return Err("the thread runs on and on without touching a flag".into());
            }
            if let Some((predicate, wanted)) = instruction.guard
                && (self.registers[usize::from(predicate)] != 0) != wanted
            {
                self.next += 1;
                continue;
            }
            match &instruction.operation {
                Operation::Branch { target } => self.next = *target,
                Operation::Return => return Ok(Pause::Ended),
                Operation::Barrier(barrier) => {
                    self.next += 1;
                    return Ok(match *barrier {
                        Barrier::Sync => Pause::Barrier { says: false, answer: None },
                        Barrier::Any { to, predicate, negated } => {
                            let says = (self.registers[usize::from(predicate)] != 0) != negated;
                            Pause::Barrier { says, answer: Some(to) }
                        }
                    });
                }
                Operation::Shuffle { to, from, flip } => {
                    self.next += 1;
                    let (value, flip) = (self.value(*from), self.value(*flip));
                    return Ok(Pause::Shuffle(Shuffle { value, flip, to: *to }));
                }
                Operation::Load { order: Order::Strong { .. }, .. }
                | Operation::Store { order: Order::Strong { .. }, .. }
                | Operation::Atomic { .. }
                    if !is_first =>
                {
                    return Ok(Pause::Flag);
                }
                Operation::Load { to, space, width, order, address } => {
                    if let Some(pause) =
                        self.load(to, *space, *width, *order, *address, instruction.line, around, effects)?
                    {
                        return Ok(pause);
                    }
                    self.next += 1;
                }
                Operation::Store { from, space, width, order, address } => {
                    let values: [u64; 4] =
                        std::array::from_fn(|part| from.get(part).map_or(0, |from| self.value(*from)));
                    self.store(
                        &values[..from.len()],
                        *space,
                        *width,
                        *order,
                        *address,
                        instruction.line,
                        around,
                        effects,
                    )?;
                    self.next += 1;
                }
                Operation::MulticastLoad { to, kind, order, address } => {
                    let places = locate_all(effects.memory, around.device, self.address(*address))?;
                    for (part, to) in to.iter().enumerate() {
                        let word = |place: &u64| {
                            let mut word = [0; 4];
                            effects.memory.load(place + 4 * part as u64, &mut word);
                            u32::from_le_bytes(word)
                        };
                        let words: Vec<u32> = places.iter().map(word).collect();
                        self.set(*to, value::multicast_sum(*kind, &words));
                    }
                    for place in places {
                        self.touched(place, 16, *order, Does::Reads, instruction.line, effects);
                    }
                    self.next += 1;
                }
                Operation::MulticastStore { from, order, address } => {
                    let places = locate_all(effects.memory, around.device, self.address(*address))?;
                    let words = from.iter().map(|from| self.value(*from) as u32);
                    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
                    for place in places {
                        self.touched(place, 16, *order, Does::Writes, instruction.line, effects);
                        effects.memory.store(place, &bytes);
                    }
                    self.next += 1;
                }
                Operation::Atomic { .. } => {
                    self.atomic(instruction, around, effects)?;
                    self.next += 1;
                }
                arithmetic => {
                    self.calculate(arithmetic, around);
                    self.next += 1;
                }
            }
        }
    }

    fn value(&self, source: Source) -> u64 {
        match source {
            Source::Register(register) => self.registers[usize::from(register)],
            Source::Constant(value) => value,
        }
    }

    /// What stays within the thread's registers.
    fn calculate(&mut self, operation: &Operation, around: &Surroundings<'_>) {
        match operation {
            Operation::Move { to, from, width } => self.set(*to, self.value(*from) & value::mask(*width)),
            Operation::Pack { to, from, width } => {
                let parts = from.iter().rev();
                let whole =
                    parts.fold(0, |whole, part| whole << width | self.value(*part) & value::mask(*width));
                self.set(*to, whole);
            }
            Operation::Unpack { to, from, width } => {
                let mut whole = self.value(*from);
                for part in to {
                    self.set(*part, whole & value::mask(*width));
                    whole >>= width;
                }
            }
            Operation::Special { to, what } => {
                let found = match what {
                    Special::Thread => u64::from(self.index),
                    Special::Block => u64::from(around.block),
                    Special::Threads => u64::from(around.threads),
                    Special::Blocks => u64::from(around.blocks),
                    Special::Zero => 0,
                    Special::One => 1,
                    Special::Time => around.time,
                };
                self.set(*to, found);
            }
            Operation::Unary { what, kind, to, from } => {
                self.set(*to, value::unary(*what, *kind, self.value(*from)));
            }
            Operation::Binary { what, kind, to, left, right } => {
                self.set(*to, value::binary(*what, *kind, self.value(*left), self.value(*right)));
            }
            Operation::MultiplyWide { kind, to, left, right } => {
                self.set(*to, value::multiply_wide(*kind, self.value(*left), self.value(*right)));
            }
            Operation::MultiplyAdd { kind, to, left, right, more } => {
                let (left, right, more) = (self.value(*left), self.value(*right), self.value(*more));
                self.set(*to, value::multiply_add(*kind, left, right, more));
            }
            Operation::Insert { to, width, from, into, position, length } => {
                let (from, into) = (self.value(*from), self.value(*into));
                let (position, length) = (self.value(*position), self.value(*length));
                self.set(*to, value::insert(*width, from, into, position, length));
            }
            Operation::Permute { to, low, high, selector } => {
                let (low, high, selector) = (self.value(*low), self.value(*high), self.value(*selector));
                self.set(*to, value::permute(low, high, selector));
            }
            Operation::Compare { what, kind, to, left, right } => {
                let holds = value::compare(*what, *kind, self.value(*left), self.value(*right));
                self.set(*to, u64::from(holds));
            }
            Operation::Select { to, width, left, right, predicate } => {
                let chosen = if self.registers[usize::from(*predicate)] != 0 { left } else { right };
                self.set(*to, self.value(*chosen) & value::mask(*width));
            }
            Operation::Convert { to, into, from, of } => {
                self.set(*to, value::convert(*into, *of, self.value(*from)));
            }
            // The caller has dealt with these.
            Operation::Load { .. }
            | Operation::Store { .. }
            | Operation::Atomic { .. }
            | Operation::Branch { .. }
            | Operation::Barrier(_)
            | Operation::Shuffle { .. }
            | Operation::MulticastLoad { .. }
            | Operation::MulticastStore { .. }
            | Operation::Return => {}
        }
    }

    fn address(&self, address: Address) -> u64 {
        let base = address.base.map_or(0, |base| self.registers[usize::from(base)]);
        base.wrapping_add(address.offset)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one instruction")]
    fn load<M: Memory>(
        &mut self,
        to: &[Register],
        space: Space,
        width: u32,
        order: Order,
        address: Address,
        line: u32,
        around: &Surroundings<'_>,
        effects: &mut Effects<'_, M>,
    ) -> Result<Option<Pause>, String> {
        let address = self.address(address);
        let part = width as usize / 8;
        if space == Space::Parameters {
            for (index, to) in to.iter().enumerate() {
                let start = (address as usize).saturating_add(index * part);
                let bytes = around.parameters.get(start..start.saturating_add(part));
                let bytes = bytes.ok_or_else(|| format!("there are no parameters at {address:#x}"))?;
                self.set(*to, little_endian(bytes));
            }
            return Ok(None);
        }
        let mut bytes = [0; 32];
        let bytes = &mut bytes[..part * to.len()];
        if space == Space::Shared {
            let at = (address, bytes.len());
            bytes.copy_from_slice(effects.shared.access(at, false, line, &self.clock, effects.report)?);
            for (to, part) in to.iter().zip(bytes.chunks_exact(part)) {
                self.set(*to, little_endian(part));
            }
            return Ok(None);
        }
        let place = locate(effects.memory, around.device, address, bytes.len())?;
        effects.memory.load(place, bytes);
        if let Order::Strong { .. } = order {
            let seen = Seen { instruction: self.next, address, place, value: little_endian(&bytes[..part]) };
            if self.seen == Some(seen) {
                return Ok(Some(Pause::Unchanged { place }));
            }
            self.seen = Some(seen);
        }
        self.touched(place, bytes.len(), order, Does::Reads, line, effects);
        for (index, to) in to.iter().enumerate() {
            self.registers[usize::from(*to)] = little_endian(&bytes[index * part..(index + 1) * part]);
        }
        Ok(None)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one instruction")]
    fn store<M: Memory>(
        &mut self,
        values: &[u64],
        space: Space,
        width: u32,
        order: Order,
        address: Address,
        line: u32,
        around: &Surroundings<'_>,
        effects: &mut Effects<'_, M>,
    ) -> Result<(), String> {
        let address = self.address(address);
        let part = width as usize / 8;
        let mut bytes = [0; 32];
        let bytes = &mut bytes[..part * values.len()];
        for (to, value) in bytes.chunks_exact_mut(part).zip(values) {
            to.copy_from_slice(&value.to_le_bytes()[..part]);
        }
        if space == Space::Shared {
            let at = (address, bytes.len());
            let to = effects.shared.access(at, true, line, &self.clock, effects.report)?;
            to.copy_from_slice(bytes);
            return Ok(());
        }
        let place = locate(effects.memory, around.device, address, bytes.len())?;
        self.touched(place, bytes.len(), order, Does::Writes, line, effects);
        effects.memory.store(place, bytes);
        Ok(())
    }

    fn atomic<M: Memory>(
        &mut self,
        instruction: &Instruction,
        around: &Surroundings<'_>,
        effects: &mut Effects<'_, M>,
    ) -> Result<(), String> {
        let Operation::Atomic { what, to, kind, order, address, operands } = &instruction.operation else {
            return Ok(());
        };
        let part = kind.width as usize / 8;
        let place = locate(effects.memory, around.device, self.address(*address), part)?;
        let mut bytes = [0; 8];
        effects.memory.load(place, &mut bytes[..part]);
        let found = u64::from_le_bytes(bytes);
        let operand = |index: usize| operands.get(index).map_or(0, |operand| self.value(*operand));
        let new = match what {
            Atomic::CompareAndSwap if found == operand(0) => operand(1),
            Atomic::CompareAndSwap => found,
            Atomic::Exchange => operand(0),
            Atomic::Add => found.wrapping_add(operand(0)),
        };
        self.touched(place, part, *order, Does::Both, instruction.line, effects);
        effects.memory.store(place, &new.to_le_bytes()[..part]);
        self.set(*to, found);
        Ok(())
    }

    /// Tells the detector, learns what an acquire learns, tells what a release tells.
    fn touched<M: Memory>(
        &mut self,
        place: u64,
        bytes: usize,
        order: Order,
        does: Does,
        line: u32,
        effects: &mut Effects<'_, M>,
    ) {
        let writes = does != Does::Reads;
        if let (true, Order::Strong { .. }) = (writes, order) {
            effects.changed.push(place);
        }
        let is_outside = effects.memory.is_outside(place);
        let Some(detector) = effects.detector.as_deref_mut() else { return };
        let (acquires, releases, scope) = match order {
            Order::Weak => (false, false, None),
            Order::Strong { acquires, releases, scope } => (acquires, releases, Some(scope)),
        };
        let is_atomic = does == Does::Both;
        let touch = Touch { place, bytes: bytes as u64, line, writes, strong: scope, is_atomic };
        if is_outside && scope != Some(Scope::System) {
            Detector::touch_outside(touch, &self.clock, effects.report);
        }
        detector.touch(touch, &self.clock, effects.report);
        let (by, scope) = (self.clock.now(), scope.unwrap_or(Scope::Block));
        if acquires && let Some(told) = detector.acquired(place, by, scope) {
            self.clock.acquire(&told);
        }
        if releases {
            detector.release(place, self.clock.release(), by, scope);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Reads,
    Writes,
    Both,
}

fn locate<M: Memory>(memory: &M, device: usize, address: u64, bytes: usize) -> Result<u64, String> {
    if !address.is_multiple_of(bytes as u64) {
        return Err(format!("{bytes} bytes at {address:#x} are not aligned"));
    }
    let place = memory.locate(device, address, bytes);
    place.ok_or_else(|| format!("device {device} has no {bytes} bytes at {address:#x}"))
}

/// The places of 16 bytes of a multicast object.
fn locate_all<M: Memory>(memory: &M, device: usize, address: u64) -> Result<Vec<u64>, String> {
    if !address.is_multiple_of(16) {
        return Err(format!("16 bytes at {address:#x} are not aligned"));
    }
    let places = memory.locate_all(device, address, 16);
    places.ok_or_else(|| format!("device {device} has no 16 bytes of a multicast object at {address:#x}"))
}

/// The value of 1, 2, 4 or 8 bytes.
fn little_endian(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}
