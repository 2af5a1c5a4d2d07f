//! The supervisor: who started the ranks, and sees what they last did, also after they died.
//!
//! Each communicator hands it the memory that its peers see anyway. It maps read-only and bounds what it reads like every
//! peer.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use unisono_os::mapping::{Access, Mapping};
use unisono_os::memfd;
use unisono_os::poll::{self, Waker};
use unisono_os::socket::{Address, Connection, Listener, Received};

use crate::error::{Error, LastOperation, Result};
use crate::group::layout::Layout;
use crate::group::members::last_operation_in;
use crate::group::rendezvous::{Met, name::Meeting};
use crate::group::shared_memory::SharedMemory;
use crate::parameters::{MAX_WORLD_SIZE, Parameters};

/// The environment variable in which a supervisor names itself to its ranks.
pub const SUPERVISOR_VARIABLE: &str = "UNISONO_SUPERVISOR";

/// How long a rank waits for a supervisor that does not listen, and a supervisor for a rank that does not speak.
const PATIENCE: Duration = Duration::from_millis(500);
const LONGEST_REPORT: usize = 4096;

/// What a rank says along with its memory.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    rank: usize,
    world: usize,
    parameters: Parameters,
}

/// A communicator of one rank, seen from outside.
#[derive(Debug)]
struct Observed {
    rank: usize,
    memory: SharedMemory,
}

/// Listens for the communicators of the ranks it started.
#[derive(Debug)]
pub struct Supervisor {
    name: String,
    observed: Arc<Mutex<Vec<Observed>>>,
    stop: Arc<Waker>,
    listening: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Begin to listen under a name that nobody else has.
    ///
    /// # Errors
    /// If the system has no socket or thread to give.
    pub fn listen() -> Result<Supervisor> {
        let drawn: String = Meeting::draw()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("unisono-supervisor/{drawn}");
        let address = Address::Abstract(name.clone().into_bytes());
        let listener = Listener::bind(&address).map_err(|error| Error::Segment {
            name: name.clone(),
            problem: format!("listening for the ranks' reports: {error}"),
        })?;
        let stop = Arc::new(Waker::new().map_err(Error::os("making the supervisor's wake-up"))?);
        let observed = Arc::new(Mutex::default());
        let (seen, stopped) = (Arc::clone(&observed), Arc::clone(&stop));
        let listening = std::thread::Builder::new()
            .name("unisono-super".to_string())
            .spawn(move || collect(&listener, &stopped, &seen))
            .map_err(|error| {
                Error::os("starting the supervisor")(unisono_os::OsError::from_io("clone", &error, ""))
            })?;
        Ok(Supervisor { name, observed, stop, listening: Some(listening) })
    }

    /// What to put into [`SUPERVISOR_VARIABLE`] of the ranks.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a rank last did on any of its communicators: the call it is inside of, else the last one it made on the
    /// communicator it formed last.
    pub fn last_operation(&self, rank: usize) -> Option<LastOperation> {
        let observed = self.observed.lock();
        let of_rank = observed.iter().filter(|observed| observed.rank == rank);
        let mut last: Vec<_> =
            of_rank.filter_map(|observed| last_operation_in(observed.memory.header())).collect();
        let unfinished = last.iter().rposition(|last| !last.finished);
        unfinished.map(|at| last.swap_remove(at)).or_else(|| last.pop())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.wake();
        if let Some(listening) = self.listening.take() {
            let _ = listening.join(); // It cannot panic, and nobody could do anything about it here.
        }
    }
}

fn collect(listener: &Listener, stop: &Waker, observed: &Mutex<Vec<Observed>>) {
    loop {
        match poll::until_readable(&[stop.as_fd(), listener.as_fd()], None) {
            Ok(ready) if !ready[0].any() => {}
            _ => return,
        }
        let Ok(connection) = listener.accept(Some(Instant::now())) else { continue };
        match hear(&connection) {
            Ok(one) => observed.lock().push(one),
            Err(problem) => tracing::debug!(problem, "a report is not believed"),
        }
    }
}

/// A report from a process of the same user, with memory that is what the report says.
fn hear(connection: &Connection) -> std::result::Result<Observed, String> {
    let credentials = connection.peer_credentials().map_err(|error| error.to_string())?;
    if credentials.uid != unisono_os::process::uid() {
        return Err(format!("it comes from user {}", credentials.uid));
    }
    let received = connection.receive(LONGEST_REPORT, Some(Instant::now() + PATIENCE));
    let Received::Message(mut message) = received.map_err(|error| error.to_string())? else {
        return Err("it is empty".to_string());
    };
    let report: Report = postcard::from_bytes(&message.bytes).map_err(|error| error.to_string())?;
    if !(1..=MAX_WORLD_SIZE).contains(&report.world) || report.rank >= report.world {
        return Err(format!("rank {} of {}", report.rank, report.world));
    }
    let memory: OwnedFd = message.descriptors.pop().ok_or("it came without memory")?;
    let layout = Layout::new(report.world, &report.parameters).map_err(|error| error.to_string())?;
    memfd::verify_sealed(memory.as_fd(), layout.total()).map_err(|error| error.to_string())?;
    let mapping = Mapping::shared(memory.as_fd(), 0, layout.total(), Access::ReadOnly);
    let mapping = Arc::new(mapping.map_err(|error| error.to_string())?);
    let memory =
        SharedMemory::new(mapping, Arc::new(layout), report.rank).map_err(|error| error.to_string())?;
    Ok(Observed { rank: report.rank, memory })
}

/// Hand this rank's memory to the supervisor, if there is one. Nobody waits for it, and nothing fails without it.
pub(crate) fn report(met: &Met, rank: usize, world: usize) {
    let Ok(name) = std::env::var(SUPERVISOR_VARIABLE) else { return };
    let report = Report { rank, world, parameters: met.welcome.parameters.clone() };
    let deadline = Some(Instant::now() + PATIENCE);
    let told = Connection::connect(&Address::Abstract(name.into_bytes()), deadline).and_then(|supervisor| {
        let bytes = postcard::to_stdvec(&report).unwrap_or_default();
        supervisor.send(&bytes, &[met.own.memory.as_fd()], deadline)
    });
    if let Err(error) = told {
        tracing::debug!(%error, "the supervisor was not told about this communicator");
    }
}
