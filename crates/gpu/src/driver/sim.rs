//! Devices on the CPU, for tests: the shipped PTX in `unisono-ptx-sim`. Here every rank is in this one process; with
//! [`ProcessDevice`] each has its own.
//!
//! Each device has addresses of its own, so a pointer of one rank means nothing on another, and memory is shared only
//! through handles. What is put on the streams runs when a seed is given to [`Simulator::run`], all devices at once.

mod memory;
mod multicast;
mod process;
mod reach;
mod together;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use unisono_ptx_sim::{Allocations, Kernel, Launch, Machine, Memory, Module, Outside, Report, Stopped, Work};

pub use self::process::{Graph as ProcessGraph, ProcessDevice};
use super::{Allocation, Driver, Handle, Link, Multicast};
use crate::artefacts::Code;
use crate::error::Error;
use crate::packet::{HostWords, MapHost};

/// So many devices that can reach one another's memory.
#[derive(Debug, Clone)]
pub struct Simulator {
    state: Rc<RefCell<State>>,
}

/// One device and its stream.
#[derive(Debug, Clone)]
pub struct Device {
    state: Rc<RefCell<State>>,
    device: usize,
}

/// What was recorded while a device was capturing.
#[derive(Debug, Clone)]
pub struct Graph {
    works: Vec<Work>,
}

#[derive(Debug)]
struct State {
    machine: Machine<Allocations>,
    devices: Vec<DeviceState>,
    multicasts: Vec<multicast::Object>,
    /// What is run instead of a shipped text.
    replaced: Modules,
}

#[derive(Debug)]
struct DeviceState {
    mapped: Vec<Mapped>,
    next_address: u64,
    capturing: Option<Vec<Work>>,
}

#[derive(Debug, Clone, Copy)]
struct Mapped {
    allocation: Allocation,
    place: u64,
    is_own: bool,
}

/// Texts that were parsed, by what they say: the compiler may keep the same text in several places.
type Modules = BTreeMap<&'static str, Arc<Module>>;

/// The shipped texts are parsed once for all simulators.
static SHIPPED: Mutex<Option<Modules>> = Mutex::new(None);

/// What handles begin with, so that other bytes are told from them.
const TAG: &[u8; 16] = b"unisono-sim-ipc\0";

impl Simulator {
    /// So many devices. With `detects_races`, [`Simulator::report`] tells of races.
    pub fn new(devices: usize, detects_races: bool) -> Self {
        // Far apart, and different on each, so that a pointer given to the wrong device is found out.
        let first = |device: usize| 0x7_0000_0000 + (device as u64) * 0x11_1100_0000;
        let state = State {
            machine: Machine::new(Allocations::new(devices), devices, detects_races),
            devices: (0..devices)
                .map(|device| DeviceState {
                    mapped: Vec::new(),
                    next_address: first(device),
                    capturing: None,
                })
                .collect(),
            multicasts: Vec::new(),
            replaced: Modules::new(),
        };
        Self { state: Rc::new(RefCell::new(state)) }
    }

    /// One of them.
    pub fn device(&self, device: usize) -> Device {
        Device { state: Rc::clone(&self.state), device }
    }

    /// Runs everything that is on the streams, in an order that the seed decides.
    ///
    /// # Errors
    ///
    /// [`Stopped`]: a fault, or a hang, with who waits for what.
    pub fn run(&self, seed: u64) -> Result<(), Stopped> {
        self.state.borrow_mut().machine.run(seed)
    }

    /// The ranks' hosts have met: what each has done so far is known to all.
    ///
    /// # Errors
    ///
    /// [`Stopped`] while a stream is not empty.
    pub fn meet(&self) -> Result<(), Stopped> {
        self.state.borrow_mut().machine.meet()
    }

    /// So long, by the wall's clock, threads of the host have to change a word that a kernel waits for.
    pub fn set_outside_patience(&self, patience: Duration) {
        self.state.borrow_mut().machine.set_outside_patience(patience);
    }

    /// What has happened in all runs.
    pub fn report(&self) -> Report {
        self.state.borrow().machine.report().clone()
    }

    /// Reads a text instead of that which [`Driver::kernel`] would be given: for kernels that were changed on purpose.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where it is no PTX.
    pub fn replace(&self, shipped: &'static str, by: &str) -> Result<(), Error> {
        let module = Arc::new(parse(by)?);
        self.state.borrow_mut().replaced.insert(shipped, module);
        Ok(())
    }
}

impl Device {
    /// From now on what is put on the stream is recorded.
    pub fn begin_capture(&self) {
        self.with(|state| state.devices[self.device].capturing = Some(Vec::new()));
    }

    /// What was recorded; `None` if nothing was being recorded.
    pub fn end_capture(&self) -> Option<Graph> {
        self.with(|state| state.devices[self.device].capturing.take()).map(|works| Graph { works })
    }

    /// Puts on the stream what was recorded.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the device would refuse it.
    pub fn replay(&self, graph: &Graph) -> Result<(), Error> {
        graph.works.iter().try_for_each(|work| self.enqueue("replay", work.clone()))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.borrow_mut())
    }

    fn enqueue(&self, call: &'static str, work: Work) -> Result<(), Error> {
        self.with(|state| match &mut state.devices[self.device].capturing {
            Some(recorded) => {
                recorded.push(work);
                Ok(())
            }
            None => state.machine.enqueue(self.device, work).map_err(|stopped| refused(call, stopped)),
        })
    }

    fn map(&self, place: u64, bytes: usize, is_own: bool) -> Result<u64, Error> {
        self.with(|state| {
            let device = &mut state.devices[self.device];
            let base = device.next_address;
            device.next_address += (bytes as u64 + 512).next_multiple_of(512);
            if !state.machine.memory_mut().map(self.device, base, place, bytes) {
                return Err(refused("map", "the addresses are taken"));
            }
            device.mapped.push(Mapped { allocation: Allocation { base, bytes }, place, is_own });
            Ok(base)
        })
    }

    fn unmap(&self, call: &'static str, base: u64, is_own: bool) -> Result<(), Error> {
        self.with(|state| {
            let device = &mut state.devices[self.device];
            let position = device.mapped.iter().position(|m| m.allocation.base == base && m.is_own == is_own);
            let position = position.ok_or_else(|| refused(call, format!("nothing begins at {base:#x}")))?;
            device.mapped.remove(position);
            state.machine.memory_mut().unmap(self.device, base);
            Ok(())
        })
    }
}

impl Driver for Device {
    type Kernel = Arc<Kernel>;

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        let place = self.with(|state| state.machine.memory_mut().reserve(bytes));
        self.map(place, bytes, true)
    }

    fn free(&self, base: u64) -> Result<(), Error> {
        self.unmap("free", base, true)
    }

    fn allocation_of(&self, address: u64) -> Result<Allocation, Error> {
        self.with(|state| {
            let mut all = state.devices[self.device].mapped.iter().map(|mapped| mapped.allocation);
            all.find(|found| (found.base..found.base + found.bytes as u64).contains(&address))
                .ok_or_else(|| refused("allocation_of", format!("{address:#x} is in no allocation")))
        })
    }

    fn export(&self, base: u64) -> Result<Handle, Error> {
        self.with(|state| {
            let mut all = state.devices[self.device].mapped.iter();
            let found = all.find(|mapped| mapped.allocation.base == base && mapped.is_own);
            let found =
                found.ok_or_else(|| refused("export", format!("no own allocation begins at {base:#x}")))?;
            let mut handle = [0; 64];
            handle[..16].copy_from_slice(TAG);
            handle[16..24].copy_from_slice(&found.place.to_le_bytes());
            handle[24..32].copy_from_slice(&(found.allocation.bytes as u64).to_le_bytes());
            Ok(handle)
        })
    }

    fn open(&self, handle: &Handle) -> Result<u64, Error> {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&handle[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let (place, bytes) = (word(16), word(24) as usize);
        let is_there = self.with(|state| {
            let mut all = state.devices.iter().flat_map(|device| &device.mapped);
            all.any(|m| m.is_own && m.place == place && m.allocation.bytes == bytes)
        });
        if handle[..16] != TAG[..] || !is_there {
            return Err(refused("open", "the handle is of no allocation that is there"));
        }
        self.map(place, bytes, false)
    }

    fn close(&self, base: u64) -> Result<(), Error> {
        self.unmap("close", base, false)
    }

    fn create_multicast(&self, devices: usize, bytes: usize) -> Result<Handle, Error> {
        Ok(self.new_multicast(devices, bytes))
    }

    fn join_multicast(&self, handle: &Handle) -> Result<(), Error> {
        self.join(handle)
    }

    fn bind_multicast(&self, handle: &Handle) -> Result<Multicast, Error> {
        self.bind(handle)
    }

    fn leave_multicast(&self, handle: &Handle) -> Result<(), Error> {
        self.leave(handle)
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        self.enqueue("copy", Work::Copy { from, to, bytes })
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Error> {
        if self.is_capturing()? {
            return Err(Error::Capturing { what: "writing from the host" });
        }
        self.enqueue("write", Work::Write { to, bytes: bytes.to_vec() })
    }

    fn read(&self, from: u64, into: &mut [u8]) -> Result<(), Error> {
        self.with(|state| state.machine.read(self.device, from, into))
            .map_err(|stopped| refused("read", stopped))
    }

    fn kernel(&self, code: &Code, name: &str) -> Result<Self::Kernel, Error> {
        let ptx = code.ptx;
        let replaced = self.with(|state| state.replaced.get(ptx).cloned());
        let module = replaced.map_or_else(|| shipped(ptx), Ok)?;
        module.kernel(name).ok_or_else(|| refused("kernel", format!("there is no kernel {name}")))
    }

    fn launch(
        &self,
        kernel: &Self::Kernel,
        blocks: usize,
        threads: usize,
        parameters: &[u8],
    ) -> Result<(), Error> {
        let launch = Launch {
            kernel: Arc::clone(kernel),
            blocks: u32::try_from(blocks).map_err(|_| refused("launch", "too many blocks"))?,
            threads: u32::try_from(threads).map_err(|_| refused("launch", "too many threads"))?,
            parameters: parameters.to_vec(),
        };
        self.enqueue("launch", Work::Launch(launch))
    }

    fn is_capturing(&self) -> Result<bool, Error> {
        Ok(self.with(|state| state.devices[self.device].capturing.is_some()))
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64, Error> {
        self.allocate(bytes)
    }

    fn free_host(&self, address: u64) -> Result<(), Error> {
        self.free(address)
    }

    fn peek(&self, address: u64, into: &mut [u8]) -> Result<(), Error> {
        self.with(|state| {
            let memory = state.machine.memory();
            let place = memory.locate(self.device, address, into.len());
            let place = place.ok_or_else(|| refused("peek", format!("{address:#x} is in no allocation")))?;
            memory.load(place, into);
            Ok(())
        })
    }

    fn set_stream(&self, _stream: u64) {}

    /// There is nobody who would run the streams meanwhile: see [`Simulator::run`].
    fn synchronize(&self) -> Result<(), Error> {
        let is_idle = self.with(|state| state.machine.is_idle(self.device));
        if is_idle { Ok(()) } else { Err(refused("synchronize", "the stream is not empty")) }
    }

    fn identity(&self) -> Result<String, Error> {
        Ok(format!("simulated:{}", self.device))
    }

    fn link(&self, _peer: &str) -> Result<Link, Error> {
        Ok(Link::Direct)
    }
}

impl Outside for HostWords {
    fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.get(index)
    }
}

impl MapHost for Device {
    fn map_host(&self, words: &Arc<HostWords>) -> Result<u64, Error> {
        let (outside, count) = (Arc::<HostWords>::clone(words), words.count());
        let place = self.with(|state| state.machine.memory_mut().reserve_outside(outside, count));
        self.map(place, 8 * count, true)
    }

    fn unmap_host(&self, address: u64) -> Result<(), Error> {
        self.unmap("unmap_host", address, true)
    }
}

fn shipped(ptx: &'static str) -> Result<Arc<Module>, Error> {
    let mut shipped = SHIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    match shipped.get_or_insert_default().entry(ptx) {
        Entry::Occupied(known) => Ok(Arc::clone(known.get())),
        Entry::Vacant(new) => Ok(Arc::clone(new.insert(Arc::new(parse(ptx)?)))),
    }
}

fn parse(text: &str) -> Result<Module, Error> {
    Module::parse(text).map_err(|problem| refused("load", problem))
}

fn refused(call: &'static str, reason: impl ToString) -> Error {
    Error::Driver { call, reason: reason.to_string() }
}
