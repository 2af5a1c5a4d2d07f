//! Devices that run at the same time, on one CPU, in an order that a seed decides.
//!
//! Each device has one stream of works: launches, copies, bytes from the host. Works of a stream follow one another; those of
//! different devices run side by side, all blocks of all running launches at once. Who runs next is drawn: for a while a
//! random part of the blocks, of those a random thread, up to its next flag or barrier. So a block may stand still while
//! its peers run far ahead, which is when a protocol shows what it is worth.
//!
//! **Time passes only when nothing else can happen**: a thread that looks again at a flag and finds it unchanged is set
//! aside, and when only such threads are left the clock goes forward, further each time. A wait that gives up does so then; if
//! the clock has gone through its whole range, nothing can happen any more: that is a hang, and it is reported.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::block::Block;
use crate::clock::{BlockId, Clock, ThreadClock};
use crate::code::Kernel;
use crate::error::{Hang, Stopped};
use crate::memory::Memory;
use crate::race::{Detector, Touch};
use crate::report::Report;
use crate::thread::{Effects, Pause, Surroundings};

/// What a stream can be given to do.
#[derive(Debug, Clone)]
pub enum Work {
    /// Run a kernel.
    Launch(Launch),
    /// Copy within what the device can reach.
    Copy {
        /// Address of the first byte to read.
        from: u64,
        /// Address of the first byte to write.
        to: u64,
        /// How many.
        bytes: usize,
    },
    /// Write what the host has.
    Write {
        /// Address of the first byte to write.
        to: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// A kernel and how many threads run it, in one dimension.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// Blocks.
    pub blocks: u32,
    /// Threads of each block.
    pub threads: u32,
    /// The kernel's parameters, one after the other at their alignments.
    pub parameters: Vec<u8>,
}

/// How far the clock goes when nothing else can happen for the first time: twice as far each time after.
const FIRST_LEAP: u64 = 1_000;
/// After so many leaps in a row the clock has gone through 36 years.
const MOST_LEAPS: u32 = 50;
/// How often words of the host's are looked at when nothing else is to be done.
const OUTSIDE_EVERY: Duration = Duration::from_micros(100);
/// How long the host has to change one, unless told otherwise.
const OUTSIDE_PATIENCE: Duration = Duration::from_secs(30);

/// Devices, their memory, and what is under way on them.
#[derive(Debug)]
pub struct Machine<M> {
    memory: M,
    streams: Vec<Stream>,
    detector: Option<Detector>,
    report: Report,
    time: u64,
    leaps: u32,
    outside_patience: Duration,
    /// Since when nothing has happened but that words outside were looked at.
    outside_since: Option<Instant>,
    blocks: Vec<Option<Block>>,
    /// By place: who has found a flag there unchanged.
    waiting: HashMap<u64, Vec<(usize, u32)>>,
    /// Blocks that are drawn from for now, and for how many draws more.
    drawn_from: Vec<usize>,
    draws_left: u32,
    draws_without_progress: u64,
    /// After so many the clock goes forward though threads could run.
    most_draws: u64,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct Stream {
    queue: VecDeque<Work>,
    /// The number of the work that is under way or next.
    work: u32,
    /// Blocks under way.
    running: usize,
    /// What the next work knows.
    heard: Clock,
}

impl<M: Memory> Machine<M> {
    /// So many devices with nothing to do. With `detects_races`, every access is looked at.
    pub fn new(memory: M, devices: usize, detects_races: bool) -> Self {
        let stream = || Stream { queue: VecDeque::new(), work: 0, running: 0, heard: Clock::new(devices) };
        Self {
            memory,
            streams: (0..devices).map(|_| stream()).collect(),
            detector: detects_races.then(Detector::default),
            report: Report::default(),
            time: FIRST_LEAP,
            leaps: 0,
            outside_patience: OUTSIDE_PATIENCE,
            outside_since: None,
            blocks: Vec::new(),
            waiting: HashMap::new(),
            drawn_from: Vec::new(),
            draws_left: 0,
            draws_without_progress: 0,
            most_draws: 0,
            random: fastrand::Rng::with_seed(0),
        }
    }

    /// The memory, to reserve and map more of it.
    pub fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// So long, by the wall's clock, threads of the host have to change a word that is waited for; 30 s unless told otherwise.
    pub fn set_outside_patience(&mut self, patience: Duration) {
        self.outside_patience = patience;
    }

    /// What has happened in all runs.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Puts a work at the end of a device's stream.
    ///
    /// # Errors
    ///
    /// [`Stopped::Refused`] where there is no such device, or a launch does not fit its kernel.
    pub fn enqueue(&mut self, device: usize, work: Work) -> Result<(), Stopped> {
        let refused = |problem: String| Stopped::Refused { device, problem };
        if let Work::Launch(Launch { kernel, blocks, threads, parameters }) = &work {
            let most = kernel.max_threads.unwrap_or(1024);
            if *blocks == 0 || *threads == 0 || *threads > most {
                let name = kernel.name();
                return Err(refused(format!("{name}: {blocks} blocks of {threads} threads, {most} at most")));
            }
            if parameters.len() != kernel.parameter_bytes() {
                let (name, wanted) = (kernel.name(), kernel.parameter_bytes());
                return Err(refused(format!(
                    "{name}: {wanted} bytes of parameters, not {}",
                    parameters.len()
                )));
            }
        }
        let stream = self.streams.get_mut(device).ok_or_else(|| refused("there is no such device".into()))?;
        stream.queue.push_back(work);
        Ok(())
    }

    /// Runs until all streams are empty. The same works, memory and seed give the same run.
    ///
    /// # Errors
    ///
    /// [`Stopped`]: a fault or a hang. The machine is of no further use then.
    pub fn run(&mut self, seed: u64) -> Result<(), Stopped> {
        self.random.seed(seed);
        loop {
            for device in 0..self.streams.len() {
                while self.streams[device].running == 0 && !self.streams[device].queue.is_empty() {
                    self.start_next(device)?;
                }
            }
            if self.streams.iter().all(|stream| stream.running == 0) {
                return Ok(());
            }
            match self.draw() {
                Some((slot, thread)) => self.run_thread(slot, thread)?,
                None if self.looks_outside() => {}
                None => self.leap()?,
            }
        }
    }

    /// The hosts of all devices meet: what each has done is known to all. The streams must be empty.
    ///
    /// # Errors
    ///
    /// [`Stopped::Refused`] where one is not.
    pub fn meet(&mut self) -> Result<(), Stopped> {
        let mut all = Clock::new(self.streams.len());
        for (device, stream) in self.streams.iter().enumerate() {
            if !stream.queue.is_empty() {
                return Err(Stopped::Refused { device, problem: "its stream is not empty".into() });
            }
            all.join(&stream.heard);
            all.learn_works(device, stream.work);
        }
        self.streams.iter_mut().for_each(|stream| stream.heard.join(&all));
        Ok(())
    }

    /// Whether a device has nothing to do.
    pub fn is_idle(&self, device: usize) -> bool {
        self.streams.get(device).is_some_and(|stream| stream.queue.is_empty() && stream.running == 0)
    }

    /// What the host of a device finds in its memory once the stream is empty.
    ///
    /// # Errors
    ///
    /// [`Stopped::Refused`] where the stream is not empty or the device does not reach the bytes.
    pub fn read(&mut self, device: usize, address: u64, into: &mut [u8]) -> Result<(), Stopped> {
        if !self.is_idle(device) {
            return Err(Stopped::Refused { device, problem: "its stream is not empty".into() });
        }
        let place = self.host_access(device, address, into.len(), false)?;
        self.memory.load(place, into);
        self.end_work(device);
        Ok(())
    }

    fn start_next(&mut self, device: usize) -> Result<(), Stopped> {
        match self.streams[device].queue.pop_front() {
            Some(Work::Launch(launch)) => {
                let stream = &mut self.streams[device];
                let mut heard = stream.heard.clone();
                heard.learn_works(device, stream.work);
                let (heard, launch) = (Rc::new(heard), Arc::new(launch));
                stream.running = launch.blocks as usize;
                self.most_draws += u64::from(launch.blocks) * u64::from(launch.threads) * 64;
                for block in 0..launch.blocks {
                    let id = BlockId { stream: device as u32, work: stream.work, block };
                    let detects = self.detector.is_some();
                    self.blocks.push(Some(Block::new(id, Arc::clone(&launch), &heard, detects)));
                }
                self.draws_left = 0;
            }
            Some(Work::Copy { from, to, bytes }) => {
                let mut content = vec![0; bytes];
                let place = self.host_access(device, from, bytes, false)?;
                self.memory.load(place, &mut content);
                let place = self.host_access(device, to, bytes, true)?;
                self.memory.store(place, &content);
                self.end_work(device);
            }
            Some(Work::Write { to, bytes }) => {
                let place = self.host_access(device, to, bytes.len(), true)?;
                self.memory.store(place, &bytes);
                self.end_work(device);
            }
            None => {}
        }
        Ok(())
    }

    /// The host's own hand on a stream; returns the place.
    fn host_access(
        &mut self,
        device: usize,
        address: u64,
        bytes: usize,
        writes: bool,
    ) -> Result<u64, Stopped> {
        let place = self.memory.locate(device, address, bytes).ok_or_else(|| Stopped::Refused {
            device,
            problem: format!("it has no {bytes} bytes at {address:#x}"),
        })?;
        if let Some(detector) = &mut self.detector {
            let stream = &self.streams[device];
            let mut heard = stream.heard.clone();
            heard.learn_works(device, stream.work);
            let id = BlockId { stream: device as u32, work: stream.work, block: 0 };
            let touch = Touch { place, bytes: bytes as u64, line: 0, writes, strong: None, is_atomic: false };
            detector.touch(touch, &ThreadClock::new(Rc::new(heard), id, 0), &mut self.report);
        }
        Ok(place)
    }

    fn end_work(&mut self, device: usize) {
        let stream = &mut self.streams[device];
        stream.work += 1;
        let work = stream.work;
        stream.heard.learn_works(device, work);
    }

    /// A thread that can run; `None` if there is none.
    fn draw(&mut self) -> Option<(usize, u32)> {
        if self.draws_without_progress > self.most_draws {
            // Threads that look at several flags in turn are never set aside.
            return None;
        }
        loop {
            if self.draws_left == 0 || self.drawn_from.is_empty() {
                self.draw_blocks();
            }
            if self.drawn_from.is_empty() {
                return None;
            }
            let position = self.random.usize(..self.drawn_from.len());
            let slot = self.drawn_from[position];
            let ready = self.blocks[slot].as_mut().map(|block| &mut block.ready);
            match ready.filter(|ready| !ready.is_empty()) {
                Some(ready) => {
                    self.draws_left -= 1;
                    let thread = ready.swap_remove(self.random.usize(..ready.len()));
                    return Some((slot, thread));
                }
                None => {
                    self.drawn_from.swap_remove(position);
                }
            }
        }
    }

    /// A random part of the blocks that can run, and for how long it is drawn from.
    fn draw_blocks(&mut self) {
        self.drawn_from.clear();
        let can_run = |block: &Option<Block>| block.as_ref().is_some_and(|block| !block.ready.is_empty());
        let share = self.random.f64();
        for slot in 0..self.blocks.len() {
            if can_run(&self.blocks[slot]) && self.random.f64() < share {
                self.drawn_from.push(slot);
            }
        }
        if self.drawn_from.is_empty() {
            let all: Vec<_> = (0..self.blocks.len()).filter(|slot| can_run(&self.blocks[*slot])).collect();
            self.drawn_from.extend(self.random.choice(all));
        }
        // From a few draws to several times what it takes to run a block from one barrier to the next.
        self.draws_left = 1 << self.random.u32(0..12);
    }

    fn run_thread(&mut self, slot: usize, index: u32) -> Result<(), Stopped> {
        let Some(mut block) = self.blocks[slot].take() else { return Ok(()) };
        let mut changed = Vec::new();
        let paused = {
            let launch = Arc::clone(&block.launch);
            let around = Surroundings {
                kernel: &launch.kernel,
                parameters: &launch.parameters,
                device: block.id.stream as usize,
                block: block.id.block,
                blocks: launch.blocks,
                threads: launch.threads,
                time: self.memory.time().unwrap_or(self.time),
            };
            let mut effects = Effects {
                memory: &mut self.memory,
                detector: self.detector.as_mut(),
                report: &mut self.report,
                shared: &mut block.shared,
                changed: &mut changed,
            };
            block.threads[index as usize].run(&around, &mut effects)
        };
        self.draws_without_progress += 1;
        let outcome = paused.and_then(|pause| self.paused(&mut block, slot, index, pause));
        let outcome = outcome.map_err(|problem| Stopped::Fault {
            who: block.who(index),
            line: block.line(index),
            problem,
        });
        if block.has_ended() {
            self.end_block(&block);
        } else {
            self.blocks[slot] = Some(block);
        }
        changed.into_iter().for_each(|place| self.wake(place));
        outcome
    }

    fn paused(&mut self, block: &mut Block, slot: usize, index: u32, pause: Pause) -> Result<(), String> {
        match pause {
            Pause::Flag => block.ready.push(index),
            Pause::Unchanged { place } => self.waiting.entry(place).or_default().push((slot, index)),
            Pause::Barrier { says, answer } => {
                block.threads[index as usize].seen = None;
                block.arrive(index, says, answer)?;
                self.progress();
            }
            Pause::Shuffle(shuffle) => {
                block.threads[index as usize].seen = None;
                block.shuffle(index, shuffle)?;
                self.progress();
            }
            Pause::Ended => {
                block.ended += 1;
                self.progress();
            }
        }
        Ok(())
    }

    fn progress(&mut self) {
        self.leaps = 0;
        self.outside_since = None;
        self.draws_without_progress = 0;
    }

    fn end_block(&mut self, block: &Block) {
        let device = block.id.stream as usize;
        let stream = &mut self.streams[device];
        block.told(&mut stream.heard);
        stream.running -= 1;
        if stream.running == 0 {
            self.end_work(device);
        }
        if self.blocks.iter().all(Option::is_none) {
            self.blocks.clear();
            self.drawn_from.clear();
            self.most_draws = 0;
        }
    }

    /// A flag has been written: those who found it unchanged look again.
    fn wake(&mut self, place: u64) {
        self.progress();
        for (slot, thread) in self.waiting.remove(&place).unwrap_or_default() {
            if let Some(block) = &mut self.blocks[slot] {
                block.ready.push(thread);
            }
        }
    }

    /// Threads that wait for words of the host's look again, after a rest; `false` where there is none, or patience is over.
    fn looks_outside(&mut self) -> bool {
        let memory = &self.memory;
        let places: Vec<_> = self.waiting.keys().copied().filter(|place| memory.is_outside(*place)).collect();
        let since = *self.outside_since.get_or_insert_with(Instant::now);
        if places.is_empty() || since.elapsed() > self.outside_patience {
            return false;
        }
        std::thread::sleep(OUTSIDE_EVERY);
        self.draws_without_progress = 0;
        for (slot, thread) in places.iter().filter_map(|place| self.waiting.remove(place)).flatten() {
            if let Some(block) = &mut self.blocks[slot] {
                block.ready.push(thread);
            }
        }
        true
    }

    /// Nothing can happen but that time passes; then everybody looks again.
    fn leap(&mut self) -> Result<(), Stopped> {
        let is_alone = self.memory.time().is_none();
        let can_go_on =
            if is_alone { self.leaps < MOST_LEAPS } else { self.memory.wait_for_others(self.leaps) };
        if !can_go_on {
            let waiting = self.blocks.iter().flatten().flat_map(Block::waiting).collect();
            return Err(Stopped::Hang(Hang { waiting }));
        }
        if is_alone {
            self.time = self.time.saturating_add(FIRST_LEAP << self.leaps);
        }
        self.leaps = self.leaps.saturating_add(1);
        self.draws_without_progress = 0;
        for (slot, thread) in std::mem::take(&mut self.waiting).into_values().flatten() {
            if let Some(block) = &mut self.blocks[slot] {
                block.threads[thread as usize].seen = None;
                block.ready.push(thread);
            }
        }
        Ok(())
    }
}
