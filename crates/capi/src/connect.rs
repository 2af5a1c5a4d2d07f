//! Meeting the other ranks: from the environment, from arguments, or as threads of one process.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};

use unisono::{Builder, Communicator, Exchange};

use crate::boundary::{Result, guard, index, place, refused, seconds, text};
use crate::communicator::unisono_comm;
use crate::status::unisono_status;
use crate::versioned::{self, versioned};

/// Gives every rank rank 0's `bytes`, as MPI_Bcast does: called once per rank, within unisono_init(). Returns 0 if all went well.
/// It must not throw.
pub type unisono_broadcast_function =
    Option<unsafe extern "C" fn(context: *mut c_void, bytes: *mut c_void, length: usize) -> i32>;

/// How to meet the other ranks. Zero is the default of everything but world_size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct unisono_options {
    /// sizeof(unisono_options), set by the caller.
    pub struct_size: usize,
    /// This rank: 0 to world_size - 1.
    pub rank: i32,
    /// How many ranks there are, 1 to 64.
    pub world_size: i32,
    /// A name all ranks agree on, by custom the address of the first machine. Nothing is sent there. Default: "127.0.0.1".
    pub address: *const c_char,
    /// Tells apart several groups under one address and port. Default: UNISONO_GROUP of the environment, else "default".
    pub group_name: *const c_char,
    /// Tells apart several runs on one machine. Default: UNISONO_RUN_ID, else TORCHELASTIC_RUN_ID of the environment.
    pub run_id: *const c_char,
    /// Meet at a socket file in this directory: for ranks in different network namespaces. Default: UNISONO_DIR, else none.
    pub directory: *const c_char,
    /// How long an operation may wait, in seconds; negative: without end. Default: UNISONO_TIMEOUT, else 30 minutes.
    pub timeout: f64,
    /// How long to wait for all ranks to come. Default: UNISONO_RENDEZVOUS_TIMEOUT, else 5 minutes.
    pub rendezvous_timeout: f64,
    /// Instead of address, port, group and run: meet by means of this function.
    pub broadcast: unisono_broadcast_function,
    /// What the function gets as its first argument.
    pub broadcast_context: *mut c_void,
    /// From how many bytes on a step is shared among threads. Default: UNISONO_THREAD_BYTES, else 128 KiB.
    pub thread_bytes: usize,
    /// How many threads share this rank's copying and reducing, 1 to 32. Default: UNISONO_THREADS, else 1.
    pub threads: i32,
    /// A number all ranks agree on, by custom a port, 1 to 65535. It is not opened. Default: 29500.
    pub port: i32,
}
versioned!(unisono_options, port: i32);

/// What rank 0 tells the others: a length, and so many bytes.
const TOLD: usize = 64;

/// The library's exchange by means of the caller's broadcast.
struct Told {
    broadcast: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> i32,
    context: *mut c_void,
    world_size: usize,
}

impl Exchange for Told {
    fn all_gather(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let mut told = [0u8; TOLD];
        let (length, room) = told.split_at_mut(1);
        let room = room.get_mut(..bytes.len()).ok_or("what rank 0 says is too long")?;
        room.copy_from_slice(bytes);
        length[0] = bytes.len() as u8; // Fits: less than `TOLD`.
        // SAFETY: the header's: a function that takes these arguments; the memory is there and the caller's for the call.
        let failed = unsafe { (self.broadcast)(self.context, told.as_mut_ptr().cast(), TOLD) };
        if failed != 0 {
            return Err(format!("the broadcast function returned {failed}"));
        }
        let first =
            told.get(1..=usize::from(told[0])).ok_or("the broadcast function gave no bytes of rank 0")?;
        // Only rank 0 has something to say.
        let mut all = vec![Vec::new(); self.world_size];
        if let Some(of_first) = all.first_mut() {
            *of_first = first.to_vec();
        }
        Ok(all)
    }
}

/// # Safety
/// The texts are null or text, and the function takes what it says.
unsafe fn builder(operation: &'static str, options: &unisono_options) -> Result<Builder> {
    let world_size = index(operation, "world_size", options.world_size)?;
    let mut builder =
        Communicator::builder().world_size(world_size).rank(index(operation, "rank", options.rank)?);
    // SAFETY: the caller's word, for all of them.
    let texts = unsafe {
        [
            text(operation, "address", options.address)?,
            text(operation, "group_name", options.group_name)?,
            text(operation, "run_id", options.run_id)?,
            text(operation, "directory", options.directory)?,
        ]
    };
    let [address, group_name, run_id, directory] = texts;
    builder = address.into_iter().fold(builder, Builder::address);
    builder = group_name.into_iter().fold(builder, Builder::group_name);
    builder = run_id.into_iter().fold(builder, Builder::run_id);
    builder = directory.into_iter().fold(builder, Builder::directory);
    if options.port != 0 {
        let problem = || refused(operation, format!("port is {}: expected 1 to 65535", options.port));
        builder = builder.port(u16::try_from(options.port).map_err(|_| problem())?);
    }
    if options.timeout != 0.0 {
        builder = builder.timeout(seconds(operation, options.timeout)?);
    }
    if options.rendezvous_timeout != 0.0 {
        let patience = seconds(operation, options.rendezvous_timeout)?;
        builder = builder.rendezvous_timeout(patience.unwrap_or(std::time::Duration::MAX));
    }
    if options.threads != 0 {
        builder = builder.threads(index(operation, "threads", options.threads)?);
    }
    if options.thread_bytes != 0 {
        builder = builder.thread_bytes(options.thread_bytes);
    }
    if let Some(broadcast) = options.broadcast {
        builder = builder.exchange(Told { broadcast, context: options.broadcast_context, world_size });
    }
    Ok(builder)
}

/// Meet the other ranks as the environment says: torchrun's RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT and
/// TORCHELASTIC_RUN_ID, and the variables UNISONO_*. `unisono run -n 2 -- program` sets them. Returns once all have come.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_init_from_env(comm: *mut *mut unisono_comm) -> unisono_status {
    guard("init_from_env", || {
        // SAFETY: the header's: a place for a handle.
        let place = unsafe { place("init_from_env", comm) }?;
        place.put(unisono_comm::new(Communicator::from_env()?));
        Ok(())
    })
}

/// Meet the other ranks as `options` say. Returns once all have come, or with an error that names those who have not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_init(
    options: *const unisono_options,
    comm: *mut *mut unisono_comm,
) -> unisono_status {
    guard("init", || {
        // SAFETY: the header's: a structure of the size that it says, with texts and functions; and a place for a handle.
        let (place, builder) = unsafe {
            let options = versioned::read("init", options)?;
            (place("init", comm)?, builder("init", &options)?)
        };
        place.put(unisono_comm::new(builder.connect()?));
        Ok(())
    })
}

/// Fill `comms` with the communicators of `world_size` ranks that are threads of this process: one for each thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_init_in_process(
    world_size: i32,
    comms: *mut *mut unisono_comm,
) -> unisono_status {
    const OPERATION: &str = "init_in_process";
    guard(OPERATION, || {
        let world_size = index(OPERATION, "world_size", world_size)?;
        if comms.is_null() || !comms.is_aligned() {
            return Err(refused(OPERATION, "the place for the communicators is null, or not aligned"));
        }
        for (rank, comm) in Communicator::in_process(world_size)?.into_iter().enumerate() {
            // SAFETY: the header's: as many places for handles as there are ranks.
            unsafe { place(OPERATION, comms.add(rank)) }?.put(unisono_comm::new(comm));
        }
        Ok(())
    })
}
