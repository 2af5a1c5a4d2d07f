//! Every opcode, as text, executed by threads: what it leaves in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use unisono_ptx_sim::{Allocations, Awaited, Kernel, Launch, Machine, Module, Outside, Stopped, Work};

const MEMORY: u64 = 0x10_0000;
const BYTES: usize = 4096;

/// A kernel of this body. Parameter `out` is the address of the memory, `more` has three words; there are registers of all widths.
fn kernel(body: &str) -> Arc<Kernel> {
    let text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n\
         .visible .entry k(.param .u64 out, .param .align 8 .b8 more[12])\n.maxntid 256, 1, 1\n{{\n\
         .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<16>; .reg .f32 %f<8>; .reg .b64 %d<16>;\n\
         ld.param.u64 %d0, [out];\n{body}\nret;\n}}\n"
    );
    Module::parse(&text).unwrap().kernel("k").unwrap()
}

fn machine(devices: usize) -> Machine<Allocations> {
    let mut memory = Allocations::new(devices);
    let place = memory.reserve(BYTES);
    for device in 0..devices {
        assert!(memory.map(device, MEMORY, place, BYTES));
    }
    Machine::new(memory, devices, true)
}

fn launch(kernel: &Arc<Kernel>, blocks: u32, threads: u32) -> Work {
    let mut parameters = MEMORY.to_le_bytes().to_vec();
    for word in [11_u32, 22, 33] {
        parameters.extend(word.to_le_bytes());
    }
    Work::Launch(Launch { kernel: Arc::clone(kernel), blocks, threads, parameters })
}

fn words(machine: &mut Machine<Allocations>, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * count];
    machine.read(0, MEMORY, &mut bytes).unwrap();
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// The first word that one thread leaves.
fn word(body: &str) -> u32 {
    let mut machine = machine(1);
    machine.enqueue(0, launch(&kernel(body), 1, 1)).unwrap();
    machine.run(0).unwrap();
    words(&mut machine, 1)[0]
}

/// What the instructions leave in `%r1`.
fn in_r1(body: &str) -> u32 {
    word(&format!("{body} st.global.u32 [%d0], %r1;"))
}

/// What they leave in `%d1`, its lower and its upper half.
fn in_d1(body: &str) -> (u32, u32) {
    (
        word(&format!("{body} mov.b64 {{%r1, %r2}}, %d1; st.global.u32 [%d0], %r1;")),
        word(&format!("{body} shr.u64 %d1, %d1, 32; cvt.u32.u64 %r1, %d1; st.global.u32 [%d0], %r1;")),
    )
}

/// Whether they leave `%p1` set.
fn in_p1(body: &str) -> bool {
    in_r1(&format!("{body} selp.u32 %r1, 1, 0, %p1;")) == 1
}

#[test]
fn moves_pack_and_unpack() {
    assert_eq!(in_r1("mov.u32 %r1, 7;"), 7);
    assert_eq!(in_r1("mov.u16 %h1, 0x12; mov.u16 %h2, 0x34; mov.b32 %r1, {%h1, %h2};"), 0x34_0012);
    assert_eq!(in_r1("mov.b32 {%h1, %h2}, 0x340012; cvt.u32.u16 %r1, %h2;"), 0x34);
    assert_eq!(in_d1("mov.b64 %d1, {1, 2};"), (1, 2));
    assert_eq!(in_r1("mov.f32 %f1, 0f3F800000; mov.b32 %r1, %f1;"), 0x3f80_0000);
    assert_eq!(in_d1("cvta.to.global.u64 %d1, %d0;"), (MEMORY as u32, 0));
}

#[test]
fn integers_are_calculated() {
    assert_eq!(in_r1("mov.u32 %r2, 5; add.s32 %r1, %r2, -7;"), 0xffff_fffe);
    assert_eq!(in_r1("mov.u32 %r2, 5; sub.s32 %r1, %r2, 7;"), 0xffff_fffe);
    assert_eq!(in_d1("mov.u64 %d2, 0xffffffff; add.s64 %d1, %d2, 1;"), (0, 1));
    assert_eq!(in_d1("mov.u64 %d2, 0; sub.u64 %d1, %d2, 1;"), (u32::MAX, u32::MAX));
    assert_eq!(in_r1("mov.u32 %r2, 6; mul.lo.s32 %r1, %r2, 7;"), 42);
    assert_eq!(in_r1("mov.u32 %r2, 0x80000000; mul.hi.u32 %r1, %r2, 6;"), 3);
    assert_eq!(in_d1("mov.u64 %d2, -1; mul.hi.u64 %d1, %d2, 16;"), (15, 0));
    assert_eq!(in_d1("mov.u32 %r2, 0x80000000; mul.wide.u32 %d1, %r2, 6;"), (0, 3));
    assert_eq!(in_d1("mov.u32 %r2, -1; mul.wide.s32 %d1, %r2, 2;"), (0xffff_fffe, u32::MAX));
    assert_eq!(in_r1("mov.u32 %r2, 6; mad.lo.s32 %r1, %r2, 7, %r2;"), 48);
    assert_eq!(in_r1("mov.u32 %r2, 1; neg.s32 %r1, %r2;"), u32::MAX);
    assert_eq!(in_r1("mov.u32 %r2, -3; min.s32 %r1, %r2, 2;"), 0xffff_fffd);
    assert_eq!(in_r1("mov.u32 %r2, -3; max.u32 %r1, %r2, 2;"), 0xffff_fffd);
}

#[test]
fn bits_are_moved_and_combined() {
    assert_eq!(in_r1("mov.u32 %r2, 0xff; and.b32 %r1, %r2, 0x3c;"), 0x3c);
    assert_eq!(in_r1("mov.u32 %r2, 0xf0; or.b32 %r1, %r2, 0x3c;"), 0xfc);
    assert_eq!(in_r1("mov.u32 %r2, 0xf0; xor.b32 %r1, %r2, 0x3c;"), 0xcc);
    assert_eq!(in_r1("mov.u32 %r2, 0xf0; not.b32 %r1, %r2;"), 0xffff_ff0f);
    assert_eq!(in_d1("mov.u64 %d2, 1; shl.b64 %d1, %d2, 33;"), (0, 2));
    assert_eq!(in_r1("mov.u32 %r2, 0xabc; mov.u32 %r3, -1; bfi.b32 %r1, %r2, %r3, 4, 8;"), 0xffff_fbcf);
    assert_eq!(in_r1("mov.u32 %r2, 7; mov.u32 %r3, 8; bfi.b32 %r1, %r2, %r3, 32, 8;"), 8);
    assert_eq!(in_r1("mov.u32 %r2, 7; mov.u32 %r3, 8; bfi.b32 %r1, %r2, %r3, 0, 0;"), 8);
    assert_eq!(in_d1("mov.u64 %d2, 5; mov.u64 %d3, 9; bfi.b64 %d1, %d2, %d3, 32, 32;"), (9, 5));
    assert_eq!(in_r1("mov.u32 %r2, -16; shr.u32 %r1, %r2, 28;"), 15);
    assert_eq!(in_r1("mov.u32 %r2, -16; shr.s32 %r1, %r2, 2;"), 0xffff_fffc);
}

#[test]
fn comparisons_set_predicates_and_guards_heed_them() {
    for (text, expected) in [
        ("setp.eq.s32 %p1, %r2, 5;", true),
        ("setp.ne.u32 %p1, %r2, 5;", false),
        ("setp.lt.s32 %p1, %r3, %r2;", true),
        ("setp.lt.u32 %p1, %r3, %r2;", false),
        ("setp.le.s32 %p1, %r2, 5;", true),
        ("setp.gt.u32 %p1, %r2, 5;", false),
        ("setp.ge.s32 %p1, %r2, 5;", true),
        ("setp.num.f32 %p1, %f1, %f1;", true),
        ("setp.nan.f32 %p1, %f1, %f2;", true),
        ("setp.eq.f32 %p1, %f2, %f2;", false),
    ] {
        let head = "mov.u32 %r2, 5; mov.u32 %r3, -5; mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0f7FC00000;";
        assert_eq!(in_p1(&format!("{head} {text}")), expected, "{text}");
    }
    assert_eq!(in_r1("setp.eq.s32 %p1, 1, 2; mov.u32 %r1, 3; @%p1 mov.u32 %r1, 4;"), 3);
    assert_eq!(in_r1("setp.eq.s32 %p1, 1, 2; mov.u32 %r1, 3; @!%p1 mov.u32 %r1, 4;"), 4);
    assert!(in_p1("setp.eq.s32 %p2, 1, 1; setp.eq.s32 %p3, 1, 2; or.pred %p1, %p2, %p3;"));
    assert!(in_p1("setp.eq.s32 %p2, 1, 2; not.pred %p1, %p2;"));
    assert!(in_p1("setp.eq.s32 %p2, 1, 1; mov.pred %p1, %p2;"));
}

#[test]
fn floats_are_calculated_and_converted() {
    let f1 = |body: &str| {
        in_r1(&format!("mov.f32 %f2, 0f3FC00000; mov.f32 %f3, 0f40200000; {body} mov.b32 %r1, %f1;"))
    };
    assert_eq!(f1("add.f32 %f1, %f2, %f3;"), 4.0_f32.to_bits());
    assert_eq!(f1("add.rn.f32 %f1, %f2, %f3;"), 4.0_f32.to_bits());
    assert_eq!(f1("sub.rn.f32 %f1, %f2, %f3;"), (-1.0_f32).to_bits());
    assert_eq!(f1("mul.rn.f32 %f1, %f2, %f3;"), 3.75_f32.to_bits());
    assert_eq!(f1("fma.rn.f32 %f1, %f2, %f3, %f2;"), 5.25_f32.to_bits());
    assert_eq!(f1("cvt.rn.f16.f32 %h1, %f2; cvt.f32.f16 %f1, %h1;"), 1.5_f32.to_bits());
    assert_eq!(in_r1("mov.f32 %f2, 0f3F81FFFF; cvt.rn.bf16.f32 %h1, %f2; cvt.u32.u16 %r1, %h1;"), 0x3f82);
    assert_eq!(in_r1("mov.u16 %h1, 0x7e00; selp.b16 %h2, 0x7e00, %h1, %p1; cvt.u32.u16 %r1, %h2;"), 0x7e00);
    assert_eq!(in_d1("mov.u32 %r2, -1; cvt.s64.s32 %d1, %r2;"), (u32::MAX, u32::MAX));
    assert_eq!(in_d1("mov.u32 %r2, -1; cvt.u64.u32 %d1, %r2;"), (u32::MAX, 0));
}

#[test]
fn loads_and_stores_reach_parameters_and_memory_of_all_widths() {
    assert_eq!(in_r1("ld.param.u32 %r1, [more+4];"), 22);
    assert_eq!(in_r1("mov.b64 %d1, more; ld.param.u32 %r1, [%d1+8];"), 33);
    assert_eq!(
        in_r1("mov.u16 %h1, 0xabcd; st.global.u16 [%d0+2], %h1; ld.global.u32 %r1, [%d0];"),
        0xabcd_0000
    );
    assert_eq!(in_r1("st.global.u8 [%d0+1], 0xfe; ld.global.u16 %h1, [%d0]; cvt.u32.u16 %r1, %h1;"), 0xfe00);
    assert_eq!(
        in_r1(
            "st.global.v2.u32 [%d0+8], {3, 4}; ld.global.u64 %d1, [%d0+8]; shr.u64 %d1, %d1, 32; cvt.u32.u64 %r1, %d1;"
        ),
        4
    );
    assert_eq!(
        in_r1(
            "st.v4.u32 [%d0+16], {3, 4, 5, 6}; ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%d0+16]; mov.b32 %r1, %f4;"
        ),
        6
    );
    assert_eq!(in_r1("st.weak.global.u32 [%d0], 8; ld.volatile.global.u32 %r1, [%d0];"), 8);
    assert_eq!(in_r1("st.release.sys.global.u32 [%d0], 9; ld.acquire.gpu.global.u32 %r1, [%d0];"), 9);
    assert_eq!(in_r1("st.relaxed.cta.u32 [%d0], 9; ld.relaxed.sys.u32 %r1, [%d0];"), 9);
}

#[test]
fn advice_to_the_assembler_changes_nothing() {
    assert_eq!(in_r1(".pragma \"used_bytes_mask 15\"; ld.param.u64 %d1, [out]; mov.u32 %r1, 7;"), 7);
    assert_eq!(in_r1(".pragma \"nounroll\"; mov.u32 %r1, 7;"), 7);
}

#[test]
fn atomics_return_what_was_there() {
    let cas =
        "st.global.u32 [%d0], 5; atom.relaxed.sys.global.cas.b32 %r1, [%d0], 5, 6; ld.global.u32 %r2, [%d0];";
    assert_eq!(in_r1(&format!("{cas} mad.lo.u32 %r1, %r1, 10, %r2;")), 56);
    let failed =
        "st.global.u32 [%d0], 5; atom.acq_rel.gpu.global.cas.b32 %r1, [%d0], 4, 6; ld.global.u32 %r2, [%d0];";
    assert_eq!(in_r1(&format!("{failed} mad.lo.u32 %r1, %r1, 10, %r2;")), 55);
    let exchange =
        "st.global.u32 [%d0], 5; atom.acquire.sys.exch.b32 %r1, [%d0], 7; ld.global.u32 %r2, [%d0];";
    assert_eq!(in_r1(&format!("{exchange} mad.lo.u32 %r1, %r1, 10, %r2;")), 57);
    let kernel = kernel("atom.release.sys.global.add.u32 %r1, [%d0], 1;");
    let mut machine = machine(2);
    (0..2).for_each(|device| machine.enqueue(device, launch(&kernel, 3, 32)).unwrap());
    machine.run(4).unwrap();
    assert_eq!(machine.report().race_count, 0);
    machine.meet().unwrap();
    assert_eq!(words(&mut machine, 1), [192]);
}

#[test]
fn branches_loop_and_special_registers_tell_threads_apart() {
    let sum = "mov.u32 %r1, 0; mov.u32 %r2, 10;\nL: add.u32 %r1, %r1, %r2; sub.u32 %r2, %r2, 1; setp.ne.u32 %p1, %r2, 0; @%p1 bra L;";
    assert_eq!(in_r1(sum), 55);
    assert_eq!(in_r1("mov.u32 %r1, 1; bra.uni L; mov.u32 %r1, 2;\nL:"), 1);
    assert_eq!(in_d1("mov.u64 %d1, %globaltimer;"), (1000, 0));
    let kernel = kernel(
        "mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %nctaid.x; mov.u32 %r7, %tid.y;
         mad.lo.u32 %r5, %r2, %r3, %r1; mul.wide.u32 %d1, %r5, 4; add.s64 %d2, %d0, %d1;
         mad.lo.u32 %r6, %r4, 1000, %r5; add.u32 %r6, %r6, %r7; st.global.u32 [%d2], %r6;",
    );
    let mut machine = machine(1);
    machine.enqueue(0, launch(&kernel, 3, 4)).unwrap();
    machine.run(9).unwrap();
    assert_eq!(words(&mut machine, 12), (3000..3012).collect::<Vec<_>>());
}

#[test]
fn a_barrier_orders_a_block_and_tells_whether_any_thread_says_yes() {
    // Each thread writes its word, and reads its neighbour's behind the barrier.
    let body = |barrier: &str| {
        format!(
            "mov.u32 %r1, %tid.x; mul.wide.u32 %d1, %r1, 4; add.s64 %d2, %d0, %d1; st.global.u32 [%d2], %r1;
             {barrier} xor.b32 %r2, %r1, 1; mul.wide.u32 %d3, %r2, 4; add.s64 %d4, %d0, %d3; ld.global.u32 %r3, [%d4];
             selp.u32 %r4, 100, 0, %p2; add.u32 %r3, %r3, %r4; st.global.u32 [%d2+1024], %r3;"
        )
    };
    let run = |barrier: &str| {
        let mut machine = machine(1);
        machine.enqueue(0, launch(&kernel(&body(barrier)), 1, 64)).unwrap();
        machine.run(3).unwrap();
        let found = words(&mut machine, 320)[256..].to_vec();
        (found, machine.report().race_count)
    };
    let (found, races) = run("bar.sync 0;");
    assert_eq!((found[0], found[1], races), (1, 0, 0));
    let (found, races) = run("setp.eq.u32 %p1, %r1, 63; bar.red.or.pred %p2, 0, %p1;");
    assert_eq!((found[0], found[1], races), (101, 100, 0));
    let (found, _) = run("setp.eq.u32 %p1, %r1, 64; bar.red.or.pred %p2, 0, %p1;");
    assert_eq!(found[0], 1);
    assert!(run("").1 > 0, "without a barrier there is a race");
}

/// Device 0 writes data and a flag; device 1 waits for the flag and reads the data.
fn hand_over(store: &str, load: &str, seed: u64) -> u64 {
    let writer = kernel(&format!("st.global.u32 [%d0+64], 7; {store} [%d0], 1;"));
    let reader = kernel(&format!(
        "L: {load} %r1, [%d0]; setp.ne.u32 %p1, %r1, 1; @%p1 bra L; ld.global.u32 %r2, [%d0+64]; st.global.u32 [%d0+128], %r2;"
    ));
    let mut machine = machine(2);
    machine.enqueue(0, launch(&writer, 1, 1)).unwrap();
    machine.enqueue(1, launch(&reader, 1, 1)).unwrap();
    machine.run(seed).unwrap();
    machine.meet().unwrap();
    // Whatever the order was, the values are right: only the detector can tell.
    assert_eq!(words(&mut machine, 33)[32], 7);
    machine.report().race_count
}

#[test]
fn only_release_and_acquire_hand_data_over_and_at_system_scope_between_devices() {
    for seed in 0..20 {
        let races = |store: &str, load: &str| hand_over(store, load, seed);
        assert_eq!(races("st.release.sys.global.u32", "ld.acquire.sys.global.u32"), 0);
        assert!(races("st.relaxed.sys.global.u32", "ld.acquire.sys.global.u32") > 0);
        assert!(races("st.release.sys.global.u32", "ld.relaxed.sys.global.u32") > 0);
        assert!(races("st.volatile.global.u32", "ld.volatile.global.u32") > 0);
        assert!(races("st.release.gpu.global.u32", "ld.acquire.sys.global.u32") > 0);
        assert!(races("st.release.sys.global.u32", "ld.acquire.gpu.global.u32") > 0);
    }
}

#[derive(Debug)]
struct Bell([AtomicU64; 2]);

impl Outside for Bell {
    fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.0.get(index)
    }
}

#[test]
fn a_word_of_the_hosts_is_waited_for_while_a_thread_of_the_host_writes_it() {
    let kernel = kernel(
        "st.relaxed.sys.global.u64 [%d0], 5;
        again: ld.relaxed.sys.global.u64 %d1, [%d0+8];
        setp.ne.s64 %p1, %d1, 7;
        @%p1 bra again;",
    );
    let bell = Arc::new(Bell([AtomicU64::new(0), AtomicU64::new(0)]));
    let mut memory = Allocations::new(1);
    let place = memory.reserve_outside(bell.clone(), 2);
    assert!(memory.map(0, MEMORY, place, 16));
    let mut machine = Machine::new(memory, 1, true);
    machine.enqueue(0, launch(&kernel, 1, 1)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while bell.0[0].load(Ordering::Acquire) != 5 {
                std::thread::yield_now();
            }
            bell.0[1].store(7, Ordering::Release);
        });
        machine.run(1).unwrap();
    });
    assert_eq!(machine.report().race_count, 0);
    // Now nobody does.
    bell.0[1].store(0, Ordering::Release);
    machine.set_outside_patience(Duration::from_millis(5));
    machine.enqueue(0, launch(&kernel, 1, 1)).unwrap();
    assert!(matches!(machine.run(1), Err(Stopped::Hang(_))));
}

#[test]
fn what_is_not_strong_at_system_scope_races_with_the_host() {
    for (store, races) in
        [("relaxed.sys.global", 0), ("volatile.global", 0), ("relaxed.gpu.global", 1), ("global", 1)]
    {
        let words = Arc::new(Bell([AtomicU64::new(0), AtomicU64::new(0)]));
        let mut memory = Allocations::new(1);
        let place = memory.reserve_outside(words, 2);
        assert!(memory.map(0, MEMORY, place, 16));
        let mut machine = Machine::new(memory, 1, true);
        machine.enqueue(0, launch(&kernel(&format!("st.{store}.u64 [%d0], 5;")), 1, 1)).unwrap();
        machine.run(1).unwrap();
        assert_eq!(machine.report().race_count, races, "{store}");
    }
}

#[test]
fn what_a_thread_may_not_do_is_said_with_its_line() {
    let stopped = |body: &str, threads: u32| {
        let mut machine = machine(1);
        machine.enqueue(0, launch(&kernel(body), 1, threads)).unwrap();
        machine.run(0).unwrap_err()
    };
    let fault = |body: &str, threads| match stopped(body, threads) {
        Stopped::Fault { line, problem, .. } => (line, problem),
        other => panic!("{other}"),
    };
    assert_eq!(
        fault("\nst.global.u32 [%d0+4096], 1;", 1),
        (10, "device 0 has no 4 bytes at 0x101000".into())
    );
    assert_eq!(
        fault("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%d0+8];", 1).1,
        "16 bytes at 0x100008 are not aligned"
    );
    assert_eq!(fault("ld.param.u32 %r1, [more+12];", 1).1, "there are no parameters at 0x14");
    let two_barriers =
        "mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0; @%p1 bra L; bar.sync 0;\nbra M;\nL: bar.sync 0;\nM:";
    assert!(fault(two_barriers, 2).1.contains("waits at another barrier"));
    assert!(fault("L: bra L;", 1).1.contains("on and on"));
}

#[test]
fn a_hang_names_the_thread_and_what_it_waits_for() {
    let spin = kernel("\nL: ld.acquire.sys.global.u32 %r1, [%d0+8]; setp.ne.u32 %p1, %r1, 1; @%p1 bra L;");
    let mut machine = machine(2);
    machine.enqueue(1, launch(&spin, 1, 1)).unwrap();
    let Err(Stopped::Hang(hang)) = machine.run(0) else { panic!("a hang") };
    let [waiting] = hang.waiting.as_slice() else { panic!("one thread") };
    assert_eq!((waiting.who.device, waiting.who.block, waiting.who.thread, waiting.line), (1, 0, 0, 10));
    assert_eq!(waiting.for_what, Awaited::Word { address: MEMORY + 8, value: 0 });
    // Half of the block has ended before the barrier.
    let uneven = kernel("mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 3; @%p1 ret; bar.sync 0;");
    let mut machine = self::machine(1);
    machine.enqueue(0, launch(&uneven, 1, 8)).unwrap();
    let Err(Stopped::Hang(hang)) = machine.run(0) else { panic!("a hang") };
    assert_eq!(hang.waiting[0].for_what, Awaited::Barrier { arrived: 5, ended: 3 });
}

#[test]
fn two_flags_looked_at_in_turn_are_a_hang_too() {
    let spin = kernel(
        "L: ld.acquire.sys.global.u32 %r1, [%d0]; ld.acquire.sys.global.u32 %r2, [%d0+4];
         or.b32 %r3, %r1, %r2; setp.eq.u32 %p1, %r3, 0; @%p1 bra L;",
    );
    let mut machine = machine(1);
    machine.enqueue(0, launch(&spin, 1, 1)).unwrap();
    assert!(matches!(machine.run(0), Err(Stopped::Hang(_))));
}

#[test]
fn opcodes_and_modifiers_that_are_not_known_are_errors_with_their_line() {
    let refused = |instruction: &str| {
        let text = format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{{\n\
             .reg .b32 %r<4>; .reg .b64 %d<4>; .reg .f32 %f<4>; .reg .pred %p<2>; .reg .b16 %h<4>;\n{instruction}\n}}\n"
        );
        let error = Module::parse(&text).unwrap_err();
        assert_eq!(error.line, 7, "{instruction}: {error}");
        error.problem
    };
    assert_eq!(refused("frobnicate.u32 %r1, %r2;"), "`frobnicate.u32`: this opcode is not known");
    assert_eq!(refused("add.sat.s32 %r1, %r2, %r3;"), "`add.sat.s32`: `.sat` is no type");
    for instruction in [
        "add.ftz.f32 %f1, %f2, %f3;",
        "add.rz.f32 %f1, %f2, %f3;",
        "mul.rn.ftz.f32 %f1, %f2, %f3;",
        "setp.equ.f32 %p1, %f1, %f2;",
        "ld.global.nc.u32 %r1, [%d1];",
        "ld.acquire.u32 %r1, [%d1];",
        "st.acquire.sys.u32 [%d1], %r1;",
        "ld.global.L1::no_allocate.u32 %r1, [%d1];",
        "cvt.rz.f16.f32 %h1, %f1;",
        "cvt.f16.f32 %h1, %f1;",
        "atom.add.u32 %r1, [%d1], 1;",
        "bar.arrive 0, 32;",
        "bar.sync 1;",
        "mov.u32 %r1, %laneid;",
        "mov.u32 %r1, %r2, %r3;",
        "bra nowhere;",
        "ld.global.v4.u32 {%r1, %r2}, [%d1];",
        "@%r1 ret;",
    ] {
        refused(instruction);
    }
}

#[test]
fn a_launch_that_does_not_fit_its_kernel_is_refused() {
    let mut machine = machine(1);
    let kernel = kernel("");
    assert!(matches!(machine.enqueue(0, launch(&kernel, 1, 257)), Err(Stopped::Refused { device: 0, .. })));
    assert!(matches!(machine.enqueue(0, launch(&kernel, 0, 1)), Err(Stopped::Refused { .. })));
    assert!(matches!(machine.enqueue(3, launch(&kernel, 1, 1)), Err(Stopped::Refused { device: 3, .. })));
    let short = Launch { kernel, blocks: 1, threads: 1, parameters: vec![0; 19] };
    assert!(matches!(machine.enqueue(0, Work::Launch(short)), Err(Stopped::Refused { .. })));
}
