//! Operators of torch's, in Rust: `torch.ops.<library>.<name>` with a schema, through torch's stable C interface.
//!
//! Nothing is linked. torch's library is in the process when these operators are wanted, and its functions are found by name;
//! the same module serves every torch from 2.7 on, and loads without any. A kernel is a type with [`Kernel::run`]:
//!
//! ```text
//! struct Double;
//! impl Kernel for Double {
//!     const NAME: &'static str = "double";
//!     fn run(call: &mut Call<'_>) -> Outcome {
//!         let tensor = call.tensor(0)?;             // in the order of the schema
//!         ...                                       // the interpreter's lock is not held here
//!     }
//! }
//! let library = Library::open("unisono")?;          // adds to the library, which may have operators already
//! library.define("double(Tensor(a!) data) -> ()")?;
//! library.implement::<Double>("CPU")?;
//! ```
//!
//! | file | what |
//! |---|---|
//! | `functions` | torch's C functions, found once |
//! | `library` | adding operators to a library of torch's |
//! | `kernel` | what torch calls, and what it hands over |
//! | `tensor` | a tensor as torch hands it over |
//! | `failure` | how what went wrong reaches Python |
//! | `calling` | what calls an operator from Python and raises what its kernel meant |
//!
//! The one invariant that matters: **no panic and no error code leaves a kernel**. What goes wrong becomes a C++ exception,
//! the only thing that torch's caller understands, after everything of Rust's has been put away.

mod calling;
mod failure;
mod functions;
mod kernel;
mod library;
mod tensor;

pub(crate) use calling::caller;
pub(crate) use failure::{Failure, Outcome, take_failure};
pub(crate) use kernel::{Call, Kernel};
pub(crate) use library::Library;
pub(crate) use tensor::Tensor;
