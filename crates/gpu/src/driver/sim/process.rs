//! A simulated device of a process of its own: ranks are processes, as they are in an engine, and share memory by handles.
//!
//! Allocations are sealed memfds that other processes open by a handle's 64 bytes; each maps them where it likes, so an address
//! of one rank means nothing to another. A thread executes what is put on the stream, in order, while the host goes on; what goes
//! wrong there is told at the next call. Time is the machine's own. The order of events is whatever the processes make it: for
//! orders drawn from a seed, and for races, see [`Simulator`](super::Simulator).

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use unisono_os::mapping::{Access, Mapping};
use unisono_os::{OsError, memfd, process};
use unisono_ptx_sim::{Kernel, Launch, Machine, Work};

use super::memory::{self, Owner, ProcessMemory, Region, Regions};
use super::together::Objects;
use super::{refused, shipped};
use crate::artefacts::Code;
use crate::driver::{Allocation, Driver, Handle, Link, Multicast};
use crate::error::Error;

/// What handles begin with, so that other bytes are told from them.
const TAG: &[u8; 16] = b"unisono-sim-mem\0";

/// One device and its stream, in this process.
#[derive(Debug, Clone)]
pub struct ProcessDevice {
    pub(super) inner: Arc<Inner>,
}

/// What was recorded while the device was capturing.
#[derive(Debug, Clone)]
pub struct Graph {
    works: Vec<Work>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) regions: Arc<Regions>,
    /// By number: the allocations' descriptors, through which others open them.
    exported: Mutex<Vec<Option<OwnedFd>>>,
    capturing: Mutex<Option<Vec<Work>>>,
    orders: Mutex<Option<Sender<Order>>>,
    failed: Arc<Mutex<Option<String>>>,
    is_over: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    link: Link,
    /// Multicast objects in which this device takes part.
    pub(super) together: Objects,
    /// Whose the thread is: a forked child has neither it nor the memory.
    process: u32,
}

/// What the device's thread is told.
#[derive(Debug)]
enum Order {
    Work(Work),
    /// Say when everything before has ended.
    Tell(Sender<()>),
}

impl ProcessDevice {
    /// A new device with nothing in it, directly connected to those of other processes.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where no thread can be had.
    pub fn new() -> Result<Self, Error> {
        Self::with_link(Link::Direct)
    }

    /// As [`ProcessDevice::new`]; `UNISONO_SIM_LINK` says how it is connected to all others: `direct`, `bus` or `none`.
    ///
    /// # Errors
    ///
    /// As [`ProcessDevice::new`]; [`Error::Driver`] for another word.
    pub fn from_environment() -> Result<Self, Error> {
        match std::env::var("UNISONO_SIM_LINK").ok().as_deref() {
            None | Some("" | "direct") => Self::with_link(Link::Direct),
            Some("bus") => Self::with_link(Link::Bus),
            Some("none") => Self::with_link(Link::None),
            Some(other) => {
                Err(refused("device", format!("UNISONO_SIM_LINK is {other:?}, not direct, bus or none")))
            }
        }
    }

    /// As [`ProcessDevice::new`], and connected to all others like this.
    ///
    /// # Errors
    ///
    /// As [`ProcessDevice::new`].
    pub fn with_link(link: Link) -> Result<Self, Error> {
        let regions = Arc::new(Regions::default());
        let failed = Arc::new(Mutex::new(None));
        let is_over = Arc::new(AtomicBool::new(false));
        let (orders, to_do) = channel();
        let (its_regions, its_failed, its_end) =
            (Arc::clone(&regions), Arc::clone(&failed), Arc::clone(&is_over));
        let thread = std::thread::Builder::new()
            .name("unisono-sim".to_owned())
            .spawn(move || execute(&to_do, &its_regions, &its_failed, &its_end))
            .map_err(|problem| refused("device", problem))?;
        Ok(Self {
            inner: Arc::new(Inner {
                regions,
                exported: Mutex::default(),
                capturing: Mutex::default(),
                orders: Mutex::new(Some(orders)),
                failed,
                is_over,
                thread: Mutex::new(Some(thread)),
                link,
                together: Objects::default(),
                process: process::pid(),
            }),
        })
    }

    /// From now on what is put on the stream is recorded.
    pub fn begin_capture(&self) {
        *lock(&self.inner.capturing) = Some(Vec::new());
    }

    /// What was recorded; `None` if nothing was being recorded.
    pub fn end_capture(&self) -> Option<Graph> {
        lock(&self.inner.capturing).take().map(|works| Graph { works })
    }

    /// Puts on the stream what was recorded.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] for what went wrong before.
    pub fn replay(&self, graph: &Graph) -> Result<(), Error> {
        graph.works.iter().try_for_each(|work| self.enqueue("replay", work.clone()))
    }

    fn enqueue(&self, call: &'static str, work: Work) -> Result<(), Error> {
        self.check(call)?;
        if let Some(recorded) = &mut *lock(&self.inner.capturing) {
            recorded.push(work);
            return Ok(());
        }
        self.order(call, Order::Work(work))
    }

    fn order(&self, call: &'static str, order: Order) -> Result<(), Error> {
        if self.inner.process != process::pid() {
            let parent = self.inner.process;
            return Err(refused(call, format!("the device belongs to process {parent}, which was forked")));
        }
        let orders = lock(&self.inner.orders);
        let sent = orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
        if sent { Ok(()) } else { Err(refused(call, "the device's thread has ended")) }
    }

    /// What has gone wrong on the device stays wrong.
    fn check(&self, call: &'static str) -> Result<(), Error> {
        lock(&self.inner.failed).as_ref().map_or(Ok(()), |problem| Err(refused(call, problem)))
    }

    fn is_idle(&self, call: &'static str) -> Result<(), Error> {
        let (told, tells) = channel();
        self.order(call, Order::Tell(told))?;
        tells.recv().map_err(|_| refused(call, "the device's thread has ended"))?;
        self.check(call)
    }

    fn refuse_capturing(&self, what: &'static str) -> Result<(), Error> {
        if self.is_capturing()? { Err(Error::Capturing { what }) } else { Ok(()) }
    }

    /// Puts a mapping where the device reaches it.
    pub(super) fn add(&self, mapping: Mapping, owner: Owner) -> u64 {
        let region = Region::mapped(mapping, owner);
        let base = region.base;
        self.inner.regions.add(region);
        base
    }

    /// Takes a region away, after the stream has come to its end; the error is for one that is not there.
    pub(super) fn remove(
        &self,
        call: &'static str,
        base: u64,
        is_it: impl Fn(Owner) -> bool,
    ) -> Result<Region, Error> {
        // What went wrong on the device does not keep anybody from giving back.
        let _ = self.is_idle(call);
        let removed = self.inner.regions.remove(base, is_it);
        removed.ok_or_else(|| refused(call, format!("nothing of this kind begins at {base:#x}")))
    }
}

/// The device's thread: works in order, until there is nobody any more who could give one.
fn execute(
    orders: &Receiver<Order>,
    regions: &Regions,
    failed: &Mutex<Option<String>>,
    is_over: &Arc<AtomicBool>,
) {
    let mut machine = Machine::new(ProcessMemory::new(Arc::clone(is_over)), 1, false);
    let mut seed = u64::from(process::pid());
    while let Ok(order) = orders.recv() {
        let work = match order {
            Order::Tell(told) => {
                // Who does not wait any longer need not be told.
                let _ = told.send(());
                continue;
            }
            Order::Work(work) => work,
        };
        if lock(failed).is_some() {
            continue;
        }
        machine.memory_mut().regions = regions.now();
        seed = seed.wrapping_add(1);
        let done = machine.enqueue(0, work).and_then(|()| machine.run(seed));
        machine.memory_mut().regions = Arc::default();
        if let Err(problem) = done {
            *lock(failed) = Some(problem.to_string());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        *lock(&self.orders) = None;
        if let Some(thread) = lock(&self.thread).take().filter(|_| self.process == process::pid()) {
            // A panic there has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Driver for ProcessDevice {
    type Kernel = Arc<Kernel>;

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        // A page at least: nothing can be mapped that is empty.
        let length = bytes.max(1);
        let descriptor = memfd::create_sealed("unisono-sim", length).map_err(|e| said("allocate", &e))?;
        let mapping = Mapping::shared(descriptor.as_fd(), 0, length, Access::ReadWrite);
        let mapping = mapping.map_err(|e| said("allocate", &e))?;
        let mut exported = lock(&self.inner.exported);
        exported.push(Some(descriptor));
        let number = exported.len() - 1;
        Ok(self.add(mapping, Owner::Here { number }))
    }

    fn free(&self, base: u64) -> Result<(), Error> {
        let removed = self.remove("free", base, |owner| matches!(owner, Owner::Here { .. }))?;
        if let Owner::Here { number } = removed.owner {
            lock(&self.inner.exported)[number] = None;
        }
        Ok(())
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64, Error> {
        let mapping = Mapping::anonymous(bytes.max(1)).map_err(|e| said("allocate_host", &e))?;
        Ok(self.add(mapping, Owner::Host))
    }

    fn free_host(&self, address: u64) -> Result<(), Error> {
        self.remove("free_host", address, |owner| owner == Owner::Host).map(|_| ())
    }

    #[allow(unsafe_code, reason = "reads what the device's thread writes")]
    fn peek(&self, address: u64, into: &mut [u8]) -> Result<(), Error> {
        let region = self.inner.regions.find(address, into.len());
        let region = region.filter(|region| region.owner == Owner::Host);
        let region = region.ok_or_else(|| refused("peek", format!("no host memory at {address:#x}")))?;
        // SAFETY: within the region, whose mapping is held; it is only ever accessed by atomics.
        unsafe { memory::load(region.place_of(address) as usize, into) };
        Ok(())
    }

    fn allocation_of(&self, address: u64) -> Result<Allocation, Error> {
        let region = self.inner.regions.find(address, 1);
        let region =
            region.ok_or_else(|| refused("allocation_of", format!("{address:#x} is in no allocation")))?;
        Ok(Allocation { base: region.base, bytes: region.bytes })
    }

    fn export(&self, base: u64) -> Result<Handle, Error> {
        let region = self.inner.regions.find(base, 1).filter(|region| region.base == base);
        let exported = lock(&self.inner.exported);
        let descriptor = region.as_ref().and_then(|region| match region.owner {
            Owner::Here { number } => exported[number].as_ref(),
            _ => None,
        });
        let (Some(region), Some(descriptor)) = (region, descriptor) else {
            return Err(refused("export", format!("no own allocation begins at {base:#x}")));
        };
        let inode = inode_of(descriptor).map_err(|problem| refused("export", problem))?;
        let mut handle = [0; 64];
        handle[..16].copy_from_slice(TAG);
        handle[16..20].copy_from_slice(&process::pid().to_le_bytes());
        handle[20..24].copy_from_slice(&descriptor.as_raw_fd().to_le_bytes());
        handle[24..32].copy_from_slice(&(region.bytes as u64).to_le_bytes());
        handle[32..40].copy_from_slice(&inode.to_le_bytes());
        Ok(handle)
    }

    fn open(&self, handle: &Handle) -> Result<u64, Error> {
        let [pid, descriptor] = [16, 20].map(|at| word(handle, at, 4));
        let [bytes, inode] = [24, 32].map(|at| word(handle, at, 8));
        if handle[..16] != TAG[..] || handle[40..] != [0; 24] {
            return Err(refused("open", "these bytes are no handle"));
        }
        let path = format!("/proc/{pid}/fd/{descriptor}");
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|problem| {
            refused("open", format!("the handle is of no allocation that is there: {path}: {problem}"))
        })?;
        let file = OwnedFd::from(file);
        let is_it = inode_of(&file).is_ok_and(|found| found == inode);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let checked = memfd::verify_sealed(file.as_fd(), bytes);
        if !is_it || checked.is_err() {
            return Err(refused("open", "the handle is of no allocation that is there any more"));
        }
        let mapping = Mapping::shared(file.as_fd(), 0, bytes, Access::ReadWrite);
        Ok(self.add(mapping.map_err(|e| said("open", &e))?, Owner::Opened))
    }

    fn close(&self, base: u64) -> Result<(), Error> {
        self.remove("close", base, |owner| owner == Owner::Opened).map(|_| ())
    }

    fn create_multicast(&self, devices: usize, bytes: usize) -> Result<Handle, Error> {
        self.new_together(devices, bytes)
    }

    fn join_multicast(&self, handle: &Handle) -> Result<(), Error> {
        self.join_together(handle)
    }

    fn bind_multicast(&self, handle: &Handle) -> Result<Multicast, Error> {
        let bytes = self.bytes_together(handle)?;
        let own = self.allocate(bytes)?;
        match self.bind_together(handle, own) {
            Ok(all) => Ok(Multicast { own, all, bytes }),
            Err(refused) => {
                // What went wrong first is what is told.
                let _ = self.free(own);
                Err(refused)
            }
        }
    }

    fn leave_multicast(&self, handle: &Handle) -> Result<(), Error> {
        let own = self.leave_together(handle)?;
        own.map_or(Ok(()), |own| self.free(own))
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        self.enqueue("copy", Work::Copy { from, to, bytes })
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Error> {
        self.refuse_capturing("writing from the host")?;
        self.enqueue("write", Work::Write { to, bytes: bytes.to_vec() })
    }

    #[allow(unsafe_code, reason = "reads what the device's thread has written")]
    fn read(&self, from: u64, into: &mut [u8]) -> Result<(), Error> {
        self.refuse_capturing("reading to the host")?;
        self.is_idle("read")?;
        let region = self.inner.regions.find(from, into.len()).filter(|region| region.parts.is_none());
        let Some(region) = region else {
            return Err(refused("read", format!("there are no {} bytes at {from:#x}", into.len())));
        };
        // SAFETY: within the region, whose mapping is held, or which its lender keeps; read by atomics.
        unsafe { memory::load(region.place_of(from) as usize, into) };
        Ok(())
    }

    fn kernel(&self, code: &Code, name: &str) -> Result<Self::Kernel, Error> {
        let kernel = shipped(code.ptx)?.kernel(name);
        kernel.ok_or_else(|| refused("kernel", format!("there is no kernel {name}")))
    }

    fn launch(
        &self,
        kernel: &Self::Kernel,
        blocks: usize,
        threads: usize,
        parameters: &[u8],
    ) -> Result<(), Error> {
        self.find_parts()?;
        let launch = Launch {
            kernel: Arc::clone(kernel),
            blocks: u32::try_from(blocks).map_err(|_| refused("launch", "too many blocks"))?,
            threads: u32::try_from(threads).map_err(|_| refused("launch", "too many threads"))?,
            parameters: parameters.to_vec(),
        };
        self.enqueue("launch", Work::Launch(launch))
    }

    fn is_capturing(&self) -> Result<bool, Error> {
        Ok(lock(&self.inner.capturing).is_some())
    }

    fn set_stream(&self, _stream: u64) {}

    fn synchronize(&self) -> Result<(), Error> {
        self.refuse_capturing("waiting for the stream")?;
        self.is_idle("synchronize")
    }

    fn identity(&self) -> Result<String, Error> {
        Ok(format!("simulated:{}", process::pid()))
    }

    fn link(&self, peer: &str) -> Result<Link, Error> {
        if !peer.starts_with("simulated:") {
            return Err(refused("link", format!("{peer} is no simulated device")));
        }
        Ok(self.inner.link)
    }

    #[allow(unsafe_code, reason = "the trait's")]
    unsafe fn lend(&self, address: u64, bytes: usize) -> Result<bool, Error> {
        match self.inner.regions.find(address, bytes.max(1)) {
            Some(region) => Ok(region.owner == Owner::Lent),
            None if bytes == 0 => Ok(false),
            None => {
                self.inner.regions.add(Region::lent(address, bytes));
                Ok(true)
            }
        }
    }
}

pub(super) fn inode_of(descriptor: &OwnedFd) -> std::io::Result<u64> {
    Ok(File::from(descriptor.try_clone()?).metadata()?.ino())
}

pub(super) fn word(handle: &Handle, at: usize, bytes: usize) -> u64 {
    let mut word = [0; 8];
    word[..bytes].copy_from_slice(&handle[at..at + bytes]);
    u64::from_le_bytes(word)
}

pub(super) fn said(call: &'static str, problem: &OsError) -> Error {
    refused(call, problem)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
