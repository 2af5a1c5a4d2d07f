//! Ending a wait from within: a function of the caller's that is asked during the calling thread's waits.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_void;

use unisono::interrupt;

use crate::boundary::guard;
use crate::status::unisono_status;

/// Asked whether the wait under way is to end: 0 is no. It must not throw, and must make no collective call.
pub type unisono_question_function = Option<unsafe extern "C" fn(context: *mut c_void) -> i32>;

thread_local! {
    static QUESTION: Cell<(unisono_question_function, *mut c_void)> =
        const { Cell::new((None, std::ptr::null_mut())) };
}

/// Put the calling thread's question.
fn ask() -> bool {
    match QUESTION.get() {
        // SAFETY: the header's: a function that takes its context, until the thread names another.
        (Some(question), context) => unsafe { question(context) != 0 },
        (None, _) => false,
    }
}

/// From now on `question` is asked, some 20 times a second, while the calling thread waits in a call on a communicator, in
/// unisono_init() too: for a signal that the thread must act on. If it says yes, the call ends with UNISONO_STATUS_INTERRUPTED. Null:
/// nothing is asked. Queues and requests have their own ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_ask_on_this_thread(
    question: unisono_question_function,
    context: *mut c_void,
) -> unisono_status {
    guard("ask_on_this_thread", || {
        QUESTION.set((question, context));
        interrupt::ask_on_this_thread(question.is_some().then_some(ask as fn() -> bool));
        Ok(())
    })
}
