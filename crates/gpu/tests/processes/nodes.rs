//! Packets between two nodes, by the surface's functions: words of the host's that devices reach, and tcp over the loopback.

use std::time::{Duration, Instant};

use unisono_gpu::driver::any::Device;
use unisono_gpu::packet::PacketError;
use unisono_gpu::surface::Surface;
use unisono_gpu::{DType, Driver, Error};

use crate::common::{inputs, sum};
use crate::engine::tensor;
use crate::hub::Rank;

const MOST_BYTES: usize = 4096;

/// This rank's context, half of the ranks on each node; the device on which it is.
fn begun(rank: &Rank, surface: &Surface) -> (Device, i64) {
    // Before any thread is there that could read it.
    // SAFETY: the test harness's other threads read no variables meanwhile.
    unsafe { std::env::set_var(unisono_gpu::surface::packet::ADDRESS_VARIABLE, "127.0.0.1") };
    let device = surface.device(1).unwrap();
    let id = if rank.rank == 0 { surface.mscclpp_generate_unique_id().unwrap() } else { vec![0; 128] };
    let id = rank.exchange(&id).swap_remove(0);
    let per_node = rank.world / 2;
    let scratch = tensor(device.allocate(8 * MOST_BYTES).unwrap(), 8 * MOST_BYTES / 4, DType::F32);
    // Only how long it is matters.
    let put = tensor(scratch.address, 4 * MOST_BYTES / 4, DType::F32);
    let nodes: Vec<i64> = (0..rank.world).map(|rank| (rank / per_node) as i64).collect();
    let begin = |selection| {
        let (own, world) = (rank.rank as i64, rank.world as i64);
        let device = device.clone();
        surface.mscclpp_init_context(
            device,
            &id,
            own,
            world,
            &scratch,
            &put,
            per_node as i64,
            &nodes,
            selection,
        )
    };
    assert!(matches!(begin(3), Err(Error::Tensor { .. })));
    let context = begin(2).unwrap();
    (device, context)
}

pub(crate) fn reduce(rank: &Rank) {
    let surface = Surface::new();
    let (device, context) = begun(rank, &surface);
    for (round, (elements, dtype)) in
        [(1, DType::F32), (515, DType::F16), (2048, DType::BF16), (33, DType::F32)].into_iter().enumerate()
    {
        let contents = inputs(rank.world, elements, dtype, round as u64);
        let bytes = elements * dtype.size();
        let [input, output] = [(); 2].map(|()| device.allocate(bytes.max(16)).unwrap());
        device.write(input, &contents[rank.rank]).unwrap();
        let [inp, out] = [input, output].map(|address| tensor(address, elements, dtype));
        surface.mscclpp_allreduce(context, &inp, &out, 512, 2, 0).unwrap();
        surface.mscclpp_check(context).unwrap();
        let mut found = vec![0; bytes];
        device.read(output, &mut found).unwrap();
        assert!(found == sum(&contents, dtype), "{elements} of {dtype:?}");
    }
    rank.meet();
    surface.mscclpp_dispose(context).unwrap();
    rank.meet();
}

pub(crate) fn lost(rank: &Rank) {
    let surface = Surface::new();
    let (device, context) = begun(rank, &surface);
    rank.meet();
    if rank.rank == 1 {
        // Dropped and not disposed of.
        drop(surface);
        rank.meet();
        return;
    }
    rank.meet();
    surface.mscclpp_set_patience(context, Duration::from_secs(60)).unwrap();
    let buffer = tensor(device.allocate(64).unwrap(), 16, DType::F32);
    let reduce = || {
        surface.mscclpp_allreduce(context, &buffer, &buffer, 512, 1, 0)?;
        surface.mscclpp_check(context)
    };
    let told = (0..100).find_map(|_| {
        let failed = reduce().err();
        if failed.is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        failed
    });
    let is_link = |error: &Error| matches!(error, Error::Packet(PacketError::Link { rank: 1, .. }));
    assert!(
        told.as_ref().is_some_and(|error| is_link(error) || matches!(error, Error::Overdue { .. })),
        "{told:?}"
    );
    // The context says the same from now on, and can be disposed of.
    assert!(reduce().is_err());
    surface.mscclpp_dispose(context).unwrap();
}

pub(crate) fn ended(rank: &Rank) {
    let surface = Surface::new();
    let (device, context) = begun(rank, &surface);
    // Both have found one another.
    rank.meet();
    if rank.rank == 0 {
        // The other node never launches; kernels would wait for half an hour.
        let buffer = tensor(device.allocate(64).unwrap(), 16, DType::F32);
        surface.mscclpp_allreduce(context, &buffer, &buffer, 512, 1, 0).unwrap();
        let start = Instant::now();
        surface.mscclpp_dispose(context).unwrap();
        device.synchronize().unwrap();
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    }
    rank.meet();
}

pub(crate) fn forked(rank: &Rank) {
    let surface = Surface::new();
    let (device, context) = begun(rank, &surface);
    unsafe extern "C" {
        fn fork() -> i32;
        fn alarm(seconds: u32) -> u32;
        fn waitpid(child: i32, status: *mut i32, options: i32) -> i32;
        fn _exit(status: i32) -> !;
    }
    // SAFETY: the child disposes of the context and ends; a lock that it needs and never gets ends it by the alarm.
    let child = unsafe { fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            alarm(20);
            _exit(i32::from(surface.mscclpp_dispose(context) != Ok(())));
        }
    }
    let mut status = 0;
    // SAFETY: an own child, and a place for its status.
    assert_eq!(unsafe { waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "as the system says it");
    // The parent has everything that it had.
    let contents = inputs(2, 16, DType::F32, 3);
    let buffer = tensor(device.allocate(64).unwrap(), 16, DType::F32);
    device.write(buffer.address, &contents[rank.rank]).unwrap();
    surface.mscclpp_allreduce(context, &buffer, &buffer, 512, 1, 0).unwrap();
    surface.mscclpp_check(context).unwrap();
    let mut found = vec![0; 64];
    device.read(buffer.address, &mut found).unwrap();
    assert!(found == sum(&contents, DType::F32));
    rank.meet();
    surface.mscclpp_dispose(context).unwrap();
    rank.meet();
}
