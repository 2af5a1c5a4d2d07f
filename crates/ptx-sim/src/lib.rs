//! Runs PTX on the CPU, for tests: what a compiler made of a kernel is executed as it is, without a GPU.
//!
//! A [`Module`] is parsed from text; an opcode, a modifier or a directive that is not known is an error with its line. Its
//! [`Kernel`]s are launched on the devices of a [`Machine`], which runs all of them at once in an order that a seed decides,
//! and finds
//!
//! * wrong results, since arithmetic is exact to the bit, conversions of f16 and bf16 included;
//! * **races**: accesses that nothing orders, found by vector clocks even where the values came out right. What orders is what
//!   PTX says orders: a stream, a block's barrier, a release and the acquire that reads it, at a scope that holds for both.
//!   A flag that is only volatile or relaxed orders nothing. Memory of the host's ([`Outside`]) is accessed by others at any time;
//! * **hangs**: which thread of which block waits for which word, when nothing can happen any more.
//!
//! What it does not show: stale values. Memory is sequentially consistent here; that a weaker one would do the same follows
//! from the absence of races.
//!
//! ```
//! use unisono_ptx_sim::{Allocations, Launch, Machine, Module, Work};
//!
//! let text = "
//!     .version 8.0
//!     .target sm_80
//!     .address_size 64
//!     .visible .entry number(.param .u64 out)
//!     {
//!         .reg .b32 %r<2>;
//!         .reg .b64 %rd<3>;
//!         ld.param.u64 %rd0, [out];
//!         mov.u32 %r0, %tid.x;
//!         mul.wide.u32 %rd1, %r0, 4;
//!         add.s64 %rd2, %rd0, %rd1;
//!         st.global.u32 [%rd2], %r0;
//!         ret;
//!     }";
//! let kernel = Module::parse(text)?.kernel("number").expect("it is there");
//! let mut memory = Allocations::new(1);
//! let place = memory.reserve(128);
//! assert!(memory.map(0, 0x1000, place, 128));
//! let mut machine = Machine::new(memory, 1, true);
//! let parameters = 0x1000_u64.to_le_bytes().to_vec();
//! machine.enqueue(0, Work::Launch(Launch { kernel, blocks: 1, threads: 32, parameters }))?;
//! machine.run(1)?;
//! let mut found = [0; 4];
//! machine.read(0, 0x1000 + 4 * 7, &mut found)?;
//! assert_eq!(u32::from_le_bytes(found), 7);
//! assert_eq!(machine.report().race_count, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | what lives there |
//! |---|---|
//! | `token`, `ast`, `parse` | from text to statements |
//! | `decode`, `code` | from statements to instructions over numbered registers |
//! | `value` | arithmetic |
//! | `thread`, `block`, `machine` | running them: to the next flag, barrier, end |
//! | `clock`, `race` | what happens before what, and what does not |
//! | `memory` | what addresses lead to, multicast objects included |
//! | `shared` | what each block has for itself |

mod ast;
mod block;
mod clock;
mod code;
mod decode;
mod error;
mod machine;
mod memory;
mod parse;
mod race;
mod report;
mod shared;
mod thread;
mod token;
mod value;

use std::sync::Arc;

pub use code::Kernel;
pub use error::{Awaited, Hang, ParseError, Stopped, Waiting};
pub use machine::{Launch, Machine, Work};
pub use memory::{Allocations, Memory, Outside};
pub use report::{Access, Race, Report, Who};

/// The kernels of one text.
#[derive(Debug, Clone)]
pub struct Module {
    target: String,
    kernels: Vec<Arc<Kernel>>,
}

impl Module {
    /// Reads a module and gives every instruction in it its meaning.
    ///
    /// # Errors
    ///
    /// [`ParseError`] with the line of the first thing that is not known.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let module = parse::module(text)?;
        let kernels = module.entries.into_iter().map(|entry| decode::kernel(entry).map(Arc::new));
        let kernels = kernels.collect::<Result<_, _>>()?;
        Ok(Self { target: module.target, kernels })
    }

    /// What it was compiled for: `sm_80`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// All of its kernels.
    pub fn kernels(&self) -> &[Arc<Kernel>] {
        &self.kernels
    }

    /// The kernel of a name.
    pub fn kernel(&self, name: &str) -> Option<Arc<Kernel>> {
        self.kernels.iter().find(|kernel| kernel.name() == name).cloned()
    }
}
