//! Calls that are started and waited for later, on the communicator's own thread, in the order in which they were started.

#![allow(unsafe_code)]

use std::time::Instant;

use parking_lot::Mutex;
use unisono::{Error, Pending};

use crate::boundary::{Result, free, guard, guard_or, object, place, seconds};
use crate::call::{self, Plan, unisono_call};
use crate::communicator::{communicator, unisono_comm};
use crate::problem::Problem;
use crate::status::unisono_status;

/// A call that was started.
pub struct unisono_request {
    state: Mutex<State>,
}

enum State {
    Running(Pending<()>),
    Over(Result<(), Error>),
}

/// Start a call and return at once. Every rank makes the same calls in the same order, started and other ones taken together; a
/// call comes after those that were started before it. Input and output must stay, and nobody may touch them, until the call is
/// over; lists and shape are copied. The call may wait as long as the communicator's time-out says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_start(
    comm: *const unisono_comm,
    call: *const unisono_call,
    request: *mut *mut unisono_request,
) -> unisono_status {
    guard("start", || {
        // SAFETY: the header's: a handle that was given out, a structure of the size that it says, and a place for a handle.
        let (comm, place, plan) = unsafe {
            let comm = communicator("start", comm)?;
            let place = place("start", request)?;
            let call = call::read("start", call)?;
            (comm, place, Plan::of(&call, comm.world_size(), comm.rank())?.into_owned())
        };
        plan.check()?;
        let pending = comm.start((), move |comm, ()| {
            // SAFETY: the header's: input and output are what the operation needs until it is over.
            let made = unsafe { plan.carry_out(comm) };
            made.map_err(|problem| match problem {
                Problem::Library(error) => error,
                // Whatever is found out before the library is called was found when it was started.
                other => Error::InvalidArgument { operation: "start", problem: format!("{other:?}") },
            })
        });
        place.put(unisono_request { state: Mutex::new(State::Running(pending)) });
        Ok(())
    })
}

/// Wait until a call is over, for at most `timeout` seconds: what it returns is the call's status, or
/// UNISONO_STATUS_UNFINISHED if the time is up; it goes on then. May be called again, and returns the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_request_wait(
    request: *const unisono_request,
    timeout: f64,
) -> unisono_status {
    const OPERATION: &str = "request_wait";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out.
        let request = unsafe { object(OPERATION, "the request", request) }?;
        let (begun, patience) = (Instant::now(), seconds(OPERATION, timeout)?);
        let unfinished = || Problem::Unfinished { operation: OPERATION, waited: begun.elapsed() };
        let deadline = patience.and_then(|patience| begun.checked_add(patience));
        let mut state = match deadline {
            Some(deadline) => request.state.try_lock_until(deadline).ok_or_else(unfinished)?,
            None => request.state.lock(),
        };
        let over = match std::mem::replace(
            &mut *state,
            State::Over(Err(Error::InvalidArgument {
                operation: OPERATION,
                problem: "an earlier wait did not come to its end".to_string(),
            })),
        ) {
            State::Over(result) => result,
            State::Running(pending) => match deadline {
                None => pending.wait(),
                Some(deadline) => {
                    match pending.wait_timeout(deadline.saturating_duration_since(Instant::now())) {
                        Ok(result) => result,
                        Err(pending) => {
                            *state = State::Running(pending);
                            return Err(unfinished());
                        }
                    }
                }
            },
        };
        *state = State::Over(over.clone());
        Ok(over?)
    })
}

/// 1 if a call is over, so that waiting for it returns at once; 0 if not, or if somebody is waiting for it; -1 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_request_is_finished(request: *const unisono_request) -> i32 {
    // SAFETY: the header's: a handle that was given out, or null.
    let Ok(request) = (unsafe { object("request_is_finished", "the request", request) }) else { return -1 };
    guard_or(-1, || match request.state.try_lock().as_deref() {
        Some(State::Running(pending)) => i32::from(pending.is_finished()),
        Some(State::Over(_)) => 1,
        None => 0,
    })
}

/// Free a request. If its call is not over, this waits until it is, since its memory is in use. Null is left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_request_free(request: *mut unisono_request) {
    // SAFETY: the header's: null, or a handle that was given out.
    if let Ok(request) = unsafe { object("request_free", "the request", request) } {
        guard_or((), || {
            let running = std::mem::replace(&mut *request.state.lock(), State::Over(Ok(())));
            if let State::Running(pending) = running {
                // How it ended was for those who asked.
                let _ = pending.wait();
            }
        });
    }
    // SAFETY: the header's: nobody uses it any more.
    unsafe { free(request) }
}
