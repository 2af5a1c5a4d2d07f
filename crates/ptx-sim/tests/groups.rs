//! What threads and devices do together beside flags and barriers: lanes of a warp, the words of a block, multicast objects.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

mod common;

use common::{BYTES, MEMORY, kernel, launch, machine, words};
use unisono_ptx_sim::{Allocations, Awaited, Machine, Stopped, Work};

/// Every thread shows its number and finds that of another; and then reads what that one wrote.
fn shuffled(threads: u32, flip: u32, seed: u64) -> (Vec<u32>, u64) {
    let kernel = kernel(&format!(
        "mov.u32 %r1, %tid.x; mul.wide.u32 %d1, %r1, 4; add.s64 %d2, %d0, %d1; st.global.u32 [%d2], %r1;
         shfl.sync.bfly.b32 %r2, %r1, {flip}, 0x1f, 0xffffffff; mul.wide.u32 %d3, %r2, 4; add.s64 %d3, %d0, %d3;
         ld.global.u32 %r3, [%d3]; st.global.u32 [%d2+2048], %r3;"
    ));
    let mut machine = machine(1);
    machine.enqueue(0, launch(&kernel, 1, threads)).unwrap();
    machine.run(seed).unwrap();
    (words(&mut machine, 512 + threads as usize)[512..].to_vec(), machine.report().race_count)
}

#[test]
fn lanes_of_a_warp_see_one_anothers_values_which_orders_nothing_in_memory() {
    for (threads, flip) in [(64, 1), (64, 4), (40, 16), (32, 0)] {
        let (found, races) = shuffled(threads, flip, 5);
        let expected = (0..threads).map(|thread| {
            let other = thread ^ flip;
            if other < threads { other } else { thread }
        });
        assert_eq!(found, expected.collect::<Vec<_>>());
        assert_eq!(races > 0, flip != 0, "what the other lane wrote is not published by a shuffle");
    }
}

#[test]
fn a_block_has_words_of_its_own_that_its_barrier_orders() {
    let run = |barrier: &str| {
        let kernel = kernel(&format!(
            ".shared .align 4 .b8 own[260];
             mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 2; mov.u32 %r3, own; add.s32 %r4, %r3, %r2; mov.u32 %r5, %ctaid.x;
             mad.lo.u32 %r6, %r5, 1000, %r1; st.shared.u32 [%r4], %r6; {barrier}
             xor.b32 %r7, %r2, 4; add.s32 %r7, %r3, %r7; ld.shared.u32 %r8, [%r7]; ld.shared.u32 %r9, [own];
             add.s32 %r8, %r8, %r9; mad.lo.u32 %r10, %r5, 64, %r1; mul.wide.u32 %d1, %r10, 4; add.s64 %d2, %d0, %d1;
             st.global.u32 [%d2], %r8;"
        ));
        let mut machine = machine(1);
        machine.enqueue(0, launch(&kernel, 2, 64)).unwrap();
        machine.run(3).unwrap();
        (words(&mut machine, 128), machine.report().race_count)
    };
    let (found, races) = run("bar.sync 0;");
    assert_eq!((found[0], found[1], found[64], found[65], races), (1, 0, 2001, 2000, 0));
    assert!(run("").1 > 0, "without a barrier there is a race");
    let beyond = kernel(".shared .align 4 .b8 own[4]; ld.shared.u32 %r1, [own+4];");
    let mut machine = machine(1);
    machine.enqueue(0, launch(&beyond, 1, 1)).unwrap();
    let Err(Stopped::Fault { problem, .. }) = machine.run(0) else { panic!("a fault") };
    assert_eq!(problem, "the block has no 4 bytes of its own at 0x4");
}

const MULTICAST: u64 = 0x90_0000;

/// Three devices with memory of their own and a multicast object over all, one of which runs this on it.
fn multicast(body: &str, contents: [u32; 3]) -> (Vec<Vec<u32>>, u64) {
    let mut memory = Allocations::new(3);
    let places: Vec<u64> = (0..3).map(|_| memory.reserve(BYTES)).collect();
    for device in 0..3 {
        assert!(memory.map(device, MEMORY, places[device], BYTES));
        assert!(memory.map_multicast(device, MULTICAST, &places, 64));
        assert!(!memory.map_multicast(device, MULTICAST + 60, &places, 64), "the addresses are taken");
    }
    let mut machine = Machine::new(memory, 3, true);
    for (device, word) in contents.into_iter().enumerate() {
        let bytes = [word; 4].map(u32::to_le_bytes).concat();
        machine.enqueue(device, Work::Write { to: MEMORY, bytes }).unwrap();
    }
    machine.run(0).unwrap();
    machine.meet().unwrap();
    machine.enqueue(1, launch(&kernel(&format!("mov.u64 %d1, {MULTICAST}; {body}")), 1, 1)).unwrap();
    machine.run(1).unwrap();
    machine.meet().unwrap();
    let mut read = |device: usize| {
        let mut bytes = [0; 64];
        machine.read(device, MEMORY, &mut bytes).unwrap();
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    };
    let found = (0..3).map(&mut read).collect();
    (found, machine.report().race_count)
}

#[test]
fn a_multicast_object_adds_what_all_devices_have_and_writes_to_all() {
    let load = |kind: &str| {
        format!(
            "multimem.ld_reduce.relaxed.sys.global.add.{kind} {{%r1, %r2, %r3, %r4}}, [%d1];
             st.global.v4.u32 [%d0+16], {{%r1, %r2, %r3, %r4}};"
        )
    };
    let [one, two, four] = [1.0_f32, 2.0, 4.0].map(f32::to_bits);
    let (found, races) = multicast(&load("v4.f32"), [one, two, four]);
    assert_eq!((&found[1][4..8], found[0][4], races), ([7.0_f32.to_bits(); 4].as_slice(), 0, 0));
    // From the last on: 2^24 + 1 is 2^24, and then 2^24 - 2^24 is 0; from the first on it would be 1.
    let [large, small] = [16_777_216.0_f32, 1.0].map(f32::to_bits);
    let (found, _) = multicast(&load("v4.f32"), [(-16_777_216.0_f32).to_bits(), large, small]);
    assert_eq!(found[1][4], 0);
    let (found, _) = multicast(&load("acc::f32.v4.bf16x2"), [0x3f80_4000, 0x4000_3f80, 0x4080_4080]);
    assert_eq!(found[1][4], 0x40e0_40e0);
    let (found, _) = multicast(&load("acc::f32.v4.f16x2"), [0x3c00_4000, 0x4000_3c00, 0x4400_4400]);
    assert_eq!(found[1][4], 0x4700_4700);
    let store = "multimem.st.relaxed.sys.global.v4.f32 [%d1+32], {1, 2, 3, 4};";
    let (found, races) = multicast(store, [0; 3]);
    assert!(found.iter().all(|of_device| of_device[8..12] == [1, 2, 3, 4]) && races == 0);
}

#[test]
fn a_shuffle_without_the_whole_warp_hangs_and_one_of_two_is_a_fault() {
    let uneven = kernel(
        "mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 3; @%p1 ret; shfl.sync.bfly.b32 %r2, %r1, 1, 0x1f, 0xffffffff;",
    );
    let mut machine = common::machine(1);
    machine.enqueue(0, launch(&uneven, 1, 8)).unwrap();
    let Err(Stopped::Hang(hang)) = machine.run(0) else { panic!("a hang") };
    assert_eq!(hang.waiting[0].for_what, Awaited::Warp { arrived: 5 });
    let two = kernel(
        "mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0; @%p1 bra L; shfl.sync.bfly.b32 %r2, %r1, 1, 0x1f, 0xffffffff;
         bra M;\nL: shfl.sync.bfly.b32 %r2, %r1, 1, 0x1f, 0xffffffff;\nM:",
    );
    let mut machine = common::machine(1);
    machine.enqueue(0, launch(&two, 1, 2)).unwrap();
    let Err(Stopped::Fault { problem, .. }) = machine.run(0) else { panic!("a fault") };
    assert!(problem.contains("at another instruction"), "{problem}");
}
