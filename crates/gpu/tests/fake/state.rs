//! What is behind both vendors' functions: one simulated device of this process.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use unisono_gpu::driver::sim::{ProcessDevice, ProcessGraph};
use unisono_gpu::{Code, Driver, Error};

use crate::multicast::Memories;

type Kernel = <ProcessDevice as Driver>::Kernel;

pub(crate) struct State {
    pub(crate) device: ProcessDevice,
    /// Modules and kernels are known by their numbers, from 1.
    pub(crate) modules: Mutex<Vec<Code>>,
    pub(crate) kernels: Mutex<Vec<Kernel>>,
    pub(crate) graphs: Mutex<Vec<ProcessGraph>>,
    /// The stream that is captured, and whether a call has spoilt it.
    pub(crate) captured: Mutex<Option<(usize, bool)>>,
    pub(crate) streams: Mutex<usize>,
    /// Memory of the host's that was registered, and where the device has it.
    pub(crate) registered: Mutex<HashMap<usize, u64>>,
    pub(crate) memories: Mutex<Memories>,
}

/// Where the device has what was registered: never where the host has it.
const REGISTERED: u64 = 1 << 50;

thread_local! {
    /// Contexts pushed by this thread, or the devices set by it.
    pub(crate) static CONTEXTS: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    pub(crate) static DEVICE: Cell<i32> = const { Cell::new(0) };
    /// How strict captures of others are with this thread: 0 unless it said 2, relaxed.
    pub(crate) static MODE: Cell<i32> = const { Cell::new(0) };
}

pub(crate) const RELAXED: i32 = 2;

pub(crate) fn state() -> Option<&'static State> {
    static STATE: OnceLock<Option<State>> = OnceLock::new();
    let new = || {
        Some(State {
            device: ProcessDevice::from_environment().ok()?,
            modules: Mutex::default(),
            kernels: Mutex::default(),
            graphs: Mutex::default(),
            captured: Mutex::default(),
            streams: Mutex::new(0x1000),
            registered: Mutex::default(),
            memories: Mutex::default(),
        })
    };
    STATE.get_or_init(new).as_ref()
}

impl State {
    /// Whether a call may be made that is not recorded: if not, the capture under way is spoilt.
    pub(crate) fn may_act_now(&self) -> bool {
        let mut captured = lock(&self.captured);
        let is_forbidden = MODE.get() != RELAXED && captured.is_some();
        if let (true, Some((_, is_spoilt))) = (is_forbidden, &mut *captured) {
            *is_spoilt = true;
        }
        !is_forbidden
    }

    /// `None` for what is registered already, or is not whole pages.
    pub(crate) fn register(&self, memory: usize, bytes: usize) -> Option<()> {
        let mut registered = lock(&self.registered);
        let is_new = !registered.contains_key(&memory);
        let are_pages = memory.is_multiple_of(4096) && bytes.is_multiple_of(4096) && bytes > 0;
        let address = Some(memory as u64 | REGISTERED).filter(|_| is_new && are_pages)?;
        // SAFETY: the caller keeps it there until it is taken back.
        unsafe { self.device.lend(memory as u64, bytes) }.ok()?;
        self.device.alias(address, memory as u64, bytes).ok()?;
        self.device.take_back(memory as u64).ok()?;
        registered.insert(memory, address);
        Some(())
    }

    pub(crate) fn unregister(&self, memory: usize) -> Option<()> {
        if std::env::var_os("UNISONO_FAKE_STAYS_REGISTERED").is_some() {
            return None;
        }
        let address = lock(&self.registered).remove(&memory)?;
        self.device.unalias(address).ok()
    }

    /// Where the device has memory of the host's.
    pub(crate) fn device_pointer(&self, memory: usize) -> u64 {
        lock(&self.registered).get(&memory).copied().unwrap_or(memory as u64)
    }

    pub(crate) fn is_captured(&self, stream: usize) -> bool {
        lock(&self.captured).is_some_and(|(captured, _)| captured == stream)
    }

    pub(crate) fn begin_capture(&self, stream: usize) -> bool {
        let mut captured = lock(&self.captured);
        // The default stream cannot be captured.
        if stream == 0 || captured.is_some() {
            return false;
        }
        *captured = Some((stream, false));
        self.device.begin_capture();
        true
    }

    /// The graph's number; `None` where there is none, or it was spoilt.
    pub(crate) fn end_capture(&self, stream: usize) -> Option<usize> {
        let (_, is_spoilt) = lock(&self.captured).take_if(|(captured, _)| *captured == stream)?;
        let graph = self.device.end_capture()?;
        if is_spoilt {
            return None;
        }
        let mut graphs = lock(&self.graphs);
        graphs.push(graph);
        Some(graphs.len())
    }

    pub(crate) fn replay(&self, graph: usize) -> Result<(), Error> {
        let graph = lock(&self.graphs).get(graph.wrapping_sub(1)).cloned();
        graph.map_or(Ok(()), |graph| self.device.replay(&graph))
    }

    pub(crate) fn add_module(&self, code: Code) -> usize {
        let mut modules = lock(&self.modules);
        modules.push(code);
        modules.len()
    }

    /// The number of a module's kernel.
    pub(crate) fn kernel(&self, module: usize, name: &str) -> Option<usize> {
        let code = *lock(&self.modules).get(module.wrapping_sub(1))?;
        let kernel = self.device.kernel(&code, name).ok()?;
        let mut kernels = lock(&self.kernels);
        kernels.push(kernel);
        Some(kernels.len())
    }

    pub(crate) fn launch(
        &self,
        kernel: usize,
        blocks: u32,
        threads: u32,
        parameters: &[u8],
    ) -> Option<Result<(), Error>> {
        let kernel = Arc::clone(lock(&self.kernels).get(kernel.wrapping_sub(1))?);
        Some(self.device.launch(&kernel, blocks as usize, threads as usize, parameters))
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
