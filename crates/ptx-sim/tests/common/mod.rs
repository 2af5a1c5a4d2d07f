//! Small kernels and machines to run them on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use std::sync::Arc;

use unisono_ptx_sim::{Allocations, Kernel, Launch, Machine, Module, Work};

pub(crate) const MEMORY: u64 = 0x10_0000;
pub(crate) const BYTES: usize = 4096;

/// A kernel of this body. Parameter `out` is the address of the memory, `more` has three words; there are registers of all widths.
pub(crate) fn kernel(body: &str) -> Arc<Kernel> {
    let text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n\
         .visible .entry k(.param .u64 out, .param .align 8 .b8 more[12])\n.maxntid 256, 1, 1\n{{\n\
         .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<16>; .reg .f32 %f<8>; .reg .b64 %d<16>;\n\
         ld.param.u64 %d0, [out];\n{body}\nret;\n}}\n"
    );
    Module::parse(&text).unwrap().kernel("k").unwrap()
}

pub(crate) fn machine(devices: usize) -> Machine<Allocations> {
    let mut memory = Allocations::new(devices);
    let place = memory.reserve(BYTES);
    for device in 0..devices {
        assert!(memory.map(device, MEMORY, place, BYTES));
    }
    Machine::new(memory, devices, true)
}

pub(crate) fn launch(kernel: &Arc<Kernel>, blocks: u32, threads: u32) -> Work {
    let mut parameters = MEMORY.to_le_bytes().to_vec();
    for word in [11_u32, 22, 33] {
        parameters.extend(word.to_le_bytes());
    }
    Work::Launch(Launch { kernel: Arc::clone(kernel), blocks, threads, parameters })
}

pub(crate) fn words(machine: &mut Machine<Allocations>, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * count];
    machine.read(0, MEMORY, &mut bytes).unwrap();
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}
