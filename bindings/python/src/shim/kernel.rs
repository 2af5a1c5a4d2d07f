//! What torch calls, and what it hands over.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::Python;

use super::failure::{self, Failure, Outcome, Thrown};
use super::functions::Functions;
use super::tensor::Tensor;

/// Torch's calling convention for kernels of any schema: the arguments in a row, to be replaced by the results; how many there
/// are of either. It may throw, not return an error.
pub(super) type Boxed = unsafe extern "C-unwind" fn(*mut u64, u64, u64);

/// The work of an operator.
pub(crate) trait Kernel {
    /// The operator's name, without the library's.
    const NAME: &'static str;

    /// Do it. The interpreter's lock is not held.
    ///
    /// # Errors
    /// Reach Python as an exception.
    fn run(call: &mut Call<'_>) -> Outcome;
}

/// A call of an operator: its arguments, in the schema's order, and room for its result.
pub(crate) struct Call<'a> {
    functions: &'static Functions,
    stack: &'a mut [u64],
    /// Which arguments have been taken.
    taken: u64,
}

impl Call<'_> {
    /// The tensor that is argument number `index`, once.
    pub(crate) fn tensor(&mut self, index: usize) -> Result<Tensor, Failure> {
        let raw = self.word(index)?;
        let bit = 1 << index;
        if self.taken & bit != 0 {
            return Err(Failure::Other(format!("argument {index} was taken twice")));
        }
        self.taken |= bit;
        let handle =
            std::ptr::with_exposed_provenance_mut::<c_void>(usize::try_from(raw).unwrap_or_default());
        // SAFETY: torch owes a tensor there by the schema, with a reference that the kernel owns; it is taken once.
        Ok(unsafe { Tensor::from_raw(self.functions, handle) })
    }

    /// The integer that is argument number `index`.
    pub(crate) fn integer(&self, index: usize) -> Result<i64, Failure> {
        Ok(self.word(index)?.cast_signed())
    }

    /// The same, if the schema goes that far; else `default`.
    pub(crate) fn integer_or(&self, index: usize, default: i64) -> i64 {
        self.integer(index).unwrap_or(default)
    }

    /// Give a tensor as the operator's result.
    pub(crate) fn give(&mut self, result: Tensor) -> Outcome {
        let place =
            self.stack.first_mut().ok_or_else(|| Failure::Other("there is no room for a result".into()))?;
        *place = result.into_raw().expose_provenance() as u64;
        Ok(())
    }

    fn word(&self, index: usize) -> Result<u64, Failure> {
        let word = self.stack.get(index).copied();
        word.ok_or_else(|| Failure::Other(format!("the schema has no argument {index}")))
    }
}

/// `K` as torch calls it.
///
/// The C++ exception leaves through this frame, in which there is nothing to put away, so that who unwinds it has nothing to ask of
/// Rust's code. It is unwound by the system's unwinder, in wheels too: they have no other, and are checked for that.
///
/// # Safety
/// Torch's: `stack` has room for as many words as there are arguments or results, and holds the arguments.
pub(super) unsafe extern "C-unwind" fn boxed<K: Kernel>(stack: *mut u64, inputs: u64, outputs: u64) {
    // SAFETY: the caller's word.
    if let Some(Thrown { throw, text }) = unsafe { ran::<K>(stack, inputs, outputs) } {
        // SAFETY: the text ends with a zero and stays in this thread's place until it is copied. The exception leaves through functions
        // that are declared to let one through, to torch, which catches it.
        unsafe { throw(text) }
    }
}

/// Runs `K`; gives what is to be thrown if it failed. Never a part of the frame that is thrown through.
///
/// # Safety
/// As for [`boxed`].
#[inline(never)]
unsafe fn ran<K: Kernel>(stack: *mut u64, inputs: u64, outputs: u64) -> Option<Thrown> {
    // They were found when the kernel was registered; without them there is no way to tell torch anything.
    let Ok(functions) = Functions::get() else { std::process::abort() };
    let words = usize::try_from(inputs.max(outputs)).unwrap_or_default();
    // SAFETY: the caller's word; nobody else has the stack during the call.
    let stack = if words == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(stack, words) } };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut call = Call { functions, stack, taken: 0 };
        without_interpreter(functions, || K::run(&mut call))
    }));
    match outcome {
        Ok(Ok(())) => return None,
        Ok(Err(failure)) => failure::remember(K::NAME, failure),
        Err(panic) => failure::remember_panic(K::NAME, &*panic),
    }
    Some(failure::to_throw(functions))
}

/// torch lets go of the interpreter before it calls an operator from Python; who else may call is not known.
#[inline]
fn without_interpreter<T: Send>(functions: &Functions, work: impl FnOnce() -> T + Send) -> T {
    // SAFETY: asks Python, which is there, and changes nothing.
    let holds = unsafe { (functions.holds_interpreter)() } != 0;
    if holds { Python::attach(|py| py.detach(work)) } else { work() }
}
