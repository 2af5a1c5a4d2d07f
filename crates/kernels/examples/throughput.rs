//! Prints how fast the kernels are: reductions of two sources and copies, by size and instruction set, beside
//! the C library's copy. Numbers are GB/s of destination written, the best of several rounds, on one thread.
//!
//! ```text
//! cargo run --release -p unisono-kernels --example throughput
//! UNISONO_ISA=avx2 cargo run --release -p unisono-kernels --example throughput
//! ```
//!
//! Copies run on the selected instruction set, reductions on all that the machine has.

#![allow(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use unisono_kernels::{DType, Isa, ReduceOp, Reducer, UnsupportedReduction, copy, copy_streaming};

const SIZES: [usize; 9] = [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];

/// How long one round runs, and how many there are.
const ROUND: Duration = Duration::from_millis(5);
const ROUNDS: usize = 7;

fn main() -> Result<(), UnsupportedReduction> {
    match Isa::selected() {
        Ok(isa) => println!("copies run on {isa}"),
        Err(error) => println!("{error}; copies run on {}", Isa::best()),
    }
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        print_reductions(dtype)?;
    }
    print_copies();
    Ok(())
}

fn print_reductions(dtype: DType) -> Result<(), UnsupportedReduction> {
    let isas = Isa::available();
    print!("\nsum of two {dtype}\n{:>9}", "bytes");
    isas.iter().for_each(|isa| print!("{:>12}{:>12}", format!("{isa} >1"), format!("{isa} >2")));
    println!("{:>16}", format!("{} >1, ns", isas[0]));
    for bytes in SIZES {
        print!("{bytes:>9}");
        let mut nanoseconds = Vec::new();
        for &isa in &isas {
            let reducer = Reducer::with_isa(dtype, ReduceOp::Sum, isa)?;
            for destinations in [1, 2] {
                let time = time_reduction(&reducer, bytes, destinations);
                nanoseconds.push(time);
                print!("{:>12.1}", bytes as f64 / time);
            }
        }
        println!("{:>16.1}", nanoseconds[0]);
    }
    Ok(())
}

fn print_copies() {
    println!(
        "\ncopy\n{:>9}{:>12}{:>12}{:>12}{:>16}{:>16}",
        "bytes", "copy", "C library", "streaming", "copy, ns", "C library, ns"
    );
    for bytes in SIZES {
        // SAFETY: `time_copy` hands out buffers of `bytes` bytes that do not overlap.
        let own = time_copy(bytes, |d, s| unsafe { copy(d, s, bytes) });
        // SAFETY: as above. The size is hidden, so that the call is one to the C library.
        let library =
            time_copy(bytes, |d, s| unsafe { std::ptr::copy_nonoverlapping(s, d, black_box(bytes)) });
        // SAFETY: as above.
        let streaming = time_copy(bytes, |d, s| unsafe { copy_streaming(d, s, bytes) });
        let speed = |time: f64| bytes as f64 / time;
        println!(
            "{bytes:>9}{:>12.1}{:>12.1}{:>12.1}{own:>16.1}{library:>16.1}",
            speed(own),
            speed(library),
            speed(streaming)
        );
    }
}

/// A buffer that begins at a cache line.
struct Buffer(Vec<u8>, usize);

impl Buffer {
    fn new(bytes: usize) -> Buffer {
        let memory = vec![0_u8; bytes + 64];
        let start = memory.as_ptr().addr().wrapping_neg() % 64;
        Buffer(memory, start)
    }

    fn pointer(&mut self) -> *mut u8 {
        self.0[self.1..].as_mut_ptr()
    }
}

fn time_reduction(reducer: &Reducer, bytes: usize, destinations: usize) -> f64 {
    let mut buffers: Vec<Buffer> = (0..2 + destinations).map(|_| Buffer::new(bytes)).collect();
    let pointers: Vec<*mut u8> = buffers.iter_mut().map(Buffer::pointer).collect();
    let (to, from) = pointers.split_at(destinations);
    let from: Vec<*const u8> = from.iter().map(|pointer| pointer.cast_const()).collect();
    let count = bytes / reducer.dtype().size_bytes();
    best_nanoseconds(|| {
        // SAFETY: all buffers have `count` elements and do not overlap.
        unsafe { reducer.reduce(black_box(to), black_box(&from), count) };
    })
}

fn time_copy(bytes: usize, copy: impl Fn(*mut u8, *const u8)) -> f64 {
    let (mut to, mut from) = (Buffer::new(bytes), Buffer::new(bytes));
    let (to, from) = (to.pointer(), from.pointer());
    best_nanoseconds(|| copy(black_box(to), black_box(from)))
}

/// The time of one call in the quickest round.
fn best_nanoseconds(mut call: impl FnMut()) -> f64 {
    let mut calls_in_round = 1_u32;
    while time(calls_in_round, &mut call) < ROUND {
        calls_in_round *= 2;
    }
    (0..ROUNDS)
        .map(|_| time(calls_in_round, &mut call).as_nanos() as f64 / f64::from(calls_in_round))
        .fold(f64::INFINITY, f64::min)
}

fn time(calls: u32, call: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    (0..calls).for_each(|_| call());
    start.elapsed()
}
