//! How ranks find one another: address, port, group name, run id, or a byte exchange of the caller's.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use unisono_kernels::Isa;

use super::threads::Settings;
use super::{Communicator, DEFAULT_TIMEOUT, environment};
use crate::error::{Error, Result};
use crate::group::Group;
use crate::group::backend::processes;
use crate::group::rendezvous::{Invitation, Purpose, name::Meeting};
use crate::parameters::{MAX_WORLD_SIZE, Parameters};
use crate::team::check_threads;

/// How long ranks wait for one another to start, unless told otherwise.
const DEFAULT_RENDEZVOUS_TIMEOUT: Duration = Duration::from_secs(300);

/// A way for the caller's ranks to exchange bytes before they have a communicator: torch's store, MPI, a file.
pub trait Exchange {
    /// Give every rank the bytes of all ranks, in rank order.
    ///
    /// # Errors
    /// Text that says what went wrong.
    fn all_gather(&mut self, bytes: &[u8]) -> std::result::Result<Vec<Vec<u8>>, String>;
}

/// How to meet the other ranks.
///
/// All ranks give the same world size, address, port, group name and run id, and each its own rank. What is not given is
/// taken from the `UNISONO_*` variables of the environment, else has a default.
///
/// ```no_run
/// use unisono::Communicator;
/// let comm = Communicator::builder().rank(0).world_size(2).port(29500).group_name("tp").connect()?;
/// # Ok::<_, unisono::Error>(())
/// ```
#[derive(Default)]
pub struct Builder {
    rank: Option<usize>,
    world_size: Option<usize>,
    address: Option<String>,
    port: Option<u16>,
    group_name: Option<String>,
    run_id: Option<String>,
    timeout: Option<Option<Duration>>,
    rendezvous_timeout: Option<Duration>,
    directory: Option<PathBuf>,
    parameters: Option<Parameters>,
    exchange: Option<Box<dyn Exchange>>,
    pub(super) sharing: Settings,
}

impl Builder {
    pub(super) fn new() -> Self {
        Builder::default()
    }

    /// What torchrun's variables say of this rank, as [`Communicator::from_env`] reads them, to be changed before it connects.
    ///
    /// # Errors
    /// [`Error::Setting`] names a variable that is missing or makes no sense.
    pub fn from_env() -> Result<Builder> {
        environment::builder()
    }

    /// This rank: 0 to `world_size - 1`. Required.
    #[must_use]
    pub fn rank(mut self, rank: usize) -> Self {
        self.rank = Some(rank);
        self
    }

    /// How many ranks there are, 1 to 64. Required.
    #[must_use]
    pub fn world_size(mut self, world_size: usize) -> Self {
        self.world_size = Some(world_size);
        self
    }

    /// A name all ranks agree on, by custom the address of the first machine (`MASTER_ADDR`). Nothing is sent there.
    #[must_use]
    pub fn address(mut self, address: &str) -> Self {
        self.address = Some(address.to_string());
        self
    }

    /// A number all ranks agree on, by custom a port (`MASTER_PORT`). It is not opened.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Tells apart several groups under one address and port (`UNISONO_GROUP`).
    #[must_use]
    pub fn group_name(mut self, name: &str) -> Self {
        self.group_name = Some(name.to_string());
        self
    }

    /// Tells apart several runs on one machine (`UNISONO_RUN_ID`, `TORCHELASTIC_RUN_ID`).
    #[must_use]
    pub fn run_id(mut self, id: &str) -> Self {
        self.run_id = Some(id.to_string());
        self
    }

    /// How long an operation may wait (`UNISONO_TIMEOUT`, in seconds); `None` is for ever, the default 30 minutes.
    #[must_use]
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long to wait for all ranks to come (`UNISONO_RENDEZVOUS_TIMEOUT`, in seconds); 5 minutes by default.
    #[must_use]
    pub fn rendezvous_timeout(mut self, timeout: Duration) -> Self {
        self.rendezvous_timeout = Some(timeout);
        self
    }

    /// Meet at a socket file in this directory (`UNISONO_DIR`): for ranks in different network namespaces that share it. It
    /// is removed once all have met.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Switches and staging sizes; rank 0's hold for all.
    #[must_use]
    pub fn parameters(mut self, parameters: Parameters) -> Self {
        self.parameters = Some(parameters);
        self
    }

    /// How many threads share the copying and reducing of this rank's collectives (`UNISONO_THREADS`): the calling one and
    /// the library's own, which sleep in between; 1, the default, to 32. Ranks may have different numbers. Give the
    /// rank as many processors, or it gains nothing. For threads of one's own see [`Team`](crate::Team).
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.sharing.threads = Some(threads);
        self
    }

    /// From how many bytes on a step of a collective is shared among threads (`UNISONO_THREAD_BYTES`); 128 KiB by default.
    #[must_use]
    pub fn thread_bytes(mut self, bytes: usize) -> Self {
        self.sharing.thread_bytes = Some(bytes);
        self
    }

    /// Meet through a byte exchange of the caller's instead of address, port, group name and run id.
    #[must_use]
    pub fn exchange(mut self, exchange: impl Exchange + 'static) -> Self {
        self.exchange = Some(Box::new(exchange));
        self
    }

    /// Meet the other ranks. Returns once all have come and each has mapped the memory of all.
    ///
    /// # Errors
    /// [`Error::Setting`] for a rank or world size that is missing or out of range or an environment variable that makes
    /// no sense; [`Error::Rendezvous`] if a rank did not come (which), was there twice, belongs to another user or wants
    /// another world size; [`Error::OutOfMemory`] if there is too little memory for the staging.
    pub fn connect(self) -> Result<Communicator> {
        let explicit = self;
        let mut builder = environment::apply(Builder::new())?;
        builder.override_with(explicit);
        builder.meet()
    }

    /// What was given explicitly beats what the environment says.
    fn override_with(&mut self, explicit: Builder) {
        self.rank = explicit.rank;
        self.world_size = explicit.world_size;
        self.address = explicit.address;
        self.port = explicit.port;
        self.parameters = explicit.parameters;
        self.exchange = explicit.exchange;
        self.sharing = explicit.sharing.or(self.sharing);
        self.group_name = explicit.group_name.or(self.group_name.take());
        self.run_id = explicit.run_id.or(self.run_id.take());
        self.timeout = explicit.timeout.or(self.timeout.take());
        self.rendezvous_timeout = explicit.rendezvous_timeout.or(self.rendezvous_timeout.take());
        self.directory = explicit.directory.or(self.directory.take());
    }

    fn meet(mut self) -> Result<Communicator> {
        let world = needed("world_size", self.world_size)?;
        let rank = needed("rank", self.rank)?;
        check_world_size(world)?;
        if rank >= world {
            let problem = format!("the ranks of a world of {world} are 0 to {}", world - 1);
            return Err(setting("rank", rank, problem));
        }
        check_isa()?;
        let sharing = self.sharing;
        sharing.threads.map_or(Ok(()), check_threads)?;
        let parameters = match self.parameters.take() {
            Some(parameters) => parameters,
            None => Parameters::from_env(world)?,
        };
        let patience = self.rendezvous_timeout.unwrap_or(DEFAULT_RENDEZVOUS_TIMEOUT);
        let deadline = Instant::now().checked_add(patience);
        let meeting = self.meeting(rank, world)?;
        let invitation = Invitation {
            purpose: Purpose::Group,
            rank,
            world,
            meeting,
            deadline,
            parameters,
            parent: None,
            alongside: None,
        };
        let group = Group::new(processes::assemble(invitation)?);
        let comm = Communicator::over(group, self.timeout.unwrap_or(Some(DEFAULT_TIMEOUT)));
        comm.apply(&sharing)?;
        Ok(comm)
    }

    /// Where the ranks meet: at a name made of what all agree on, or at one that rank 0 draws and tells.
    fn meeting(&mut self, rank: usize, world: usize) -> Result<Meeting> {
        let directory = self.directory.take();
        let Some(mut exchange) = self.exchange.take() else {
            return Ok(Meeting::agreed(
                self.address.as_deref().unwrap_or("127.0.0.1"),
                self.port.unwrap_or(29500),
                self.group_name.as_deref().unwrap_or("default"),
                self.run_id.as_deref().unwrap_or(""),
                world,
                directory,
            ));
        };
        let draw = if rank == 0 { Meeting::draw()?.to_vec() } else { Vec::new() };
        let failed = |problem: String| Error::Rendezvous {
            group: format!("{world} ranks over the caller's exchange"),
            problem,
            missing: Vec::new(),
        };
        let all = exchange.all_gather(&draw).map_err(failed)?;
        match all.first() {
            Some(drawn) if all.len() == world && !drawn.is_empty() => Ok(Meeting::drawn(drawn, directory)),
            _ => Err(failed(format!(
                "the exchange returned {} entries for {world} ranks, or nothing from rank 0",
                all.len()
            ))),
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("rank", &self.rank)
            .field("world_size", &self.world_size)
            .field("address", &self.address)
            .field("port", &self.port)
            .field("group_name", &self.group_name)
            .field("run_id", &self.run_id)
            .finish_non_exhaustive()
    }
}

fn setting(name: &str, value: impl ToString, problem: String) -> Error {
    Error::Setting { name: name.to_string(), value: value.to_string(), problem }
}

fn needed(name: &str, value: Option<usize>) -> Result<usize> {
    value.ok_or_else(|| setting(name, "", "is required".to_string()))
}

pub(super) fn check_world_size(world: usize) -> Result<()> {
    if (1..=MAX_WORLD_SIZE).contains(&world) {
        return Ok(());
    }
    Err(setting("world_size", world, format!("expected 1 to {MAX_WORLD_SIZE}")))
}

/// A `UNISONO_ISA` that this machine cannot do is refused before anything starts.
pub(super) fn check_isa() -> Result<()> {
    match Isa::selected() {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(setting("UNISONO_ISA", std::env::var("UNISONO_ISA").unwrap_or_default(), error.to_string()))
        }
    }
}
