//! A switch that adds what the devices of several processes have.

use unisono_gpu::surface::Surface;
use unisono_gpu::{AllReduce, DType, Driver, Error, META_BYTES, Peers};

use crate::common::{inputs, sum};
use crate::hub::Rank;
use crate::scenarios::mapped;

pub(crate) fn adds(rank: &Rank) {
    let device = Surface::new().device(1).unwrap();
    let before = mapped();
    let (bytes, world) = (3000, rank.world);
    let shared = |bytes: usize| {
        let own = device.allocate(bytes).unwrap();
        let handles = rank.exchange(&device.export(own).unwrap());
        let seen = handles.iter().enumerate().map(|(peer, handle)| match peer == rank.rank {
            true => own,
            false => device.open(&handle[..].try_into().unwrap()).unwrap(),
        });
        seen.collect::<Vec<u64>>()
    };
    let metas = shared(META_BYTES);
    let table = device.allocate(64).unwrap();
    let output = device.allocate(bytes).unwrap();
    let peers = Peers { meta: &metas, rank: rank.rank, are_fully_connected: true };
    let mut all_reduce = AllReduce::new(device.clone(), &peers, table, 64).unwrap();

    let made =
        if rank.rank == 1 { device.create_multicast(world, bytes).unwrap().to_vec() } else { vec![0; 64] };
    let handle = rank.exchange(&made)[1][..].try_into().unwrap();
    assert!(matches!(device.bind_multicast(&handle), Err(Error::Driver { .. })), "before joining");
    assert!(matches!(device.join_multicast(&[9; 64]), Err(Error::Driver { .. })), "of no object");
    // One after the other: the simulated switch adds from the last that has joined to the first.
    for turn in 0..world {
        if turn == rank.rank {
            device.join_multicast(&handle).unwrap();
            assert!(matches!(device.join_multicast(&handle), Err(Error::Driver { .. })), "twice");
        }
        rank.meet();
    }
    let multicast = device.bind_multicast(&handle).unwrap();
    assert!(matches!(device.bind_multicast(&handle), Err(Error::Driver { .. })), "twice");
    assert_eq!(multicast.bytes, bytes);
    rank.meet();
    for (round, dtype) in DType::ALL.into_iter().enumerate() {
        let elements = bytes / 16 * 16 / dtype.size();
        let mut contents = inputs(world, elements, dtype, round as u64);
        device.write(multicast.own, &contents[rank.rank]).unwrap();
        all_reduce.multicast_all_reduce(multicast, output, elements, dtype).unwrap();
        all_reduce.check().unwrap();
        contents.reverse();
        let mut found = vec![0; elements * dtype.size()];
        device.read(output, &mut found).unwrap();
        assert!(found == sum(&contents, dtype), "{dtype:?}");
        rank.meet();
    }
    // Nothing is left.
    device.leave_multicast(&handle).unwrap();
    assert!(matches!(device.leave_multicast(&handle), Err(Error::Driver { .. })), "twice");
    rank.meet();
    all_reduce.dispose().unwrap();
    for (peer, meta) in metas.into_iter().enumerate() {
        if peer == rank.rank { device.free(meta).unwrap() } else { device.close(meta).unwrap() }
    }
    device.free(table).unwrap();
    device.free(output).unwrap();
    assert_eq!(mapped(), before);
    rank.meet();
}

/// The driver takes its time.
pub(crate) fn stays(rank: &Rank) {
    let device = Surface::new().device(1).unwrap();
    let made = if rank.rank == 0 { device.create_multicast(2, 3000).unwrap().to_vec() } else { vec![0; 64] };
    let handle = rank.exchange(&made)[0][..].try_into().unwrap();
    device.join_multicast(&handle).unwrap();
    rank.meet();
    // One binds; the other finds that, and wants to leave.
    let bind = || match device.bind_multicast(&handle) {
        Ok(multicast) => Some(multicast),
        Err(refused) => {
            assert!(refused.to_string().contains("bound already"), "{refused}");
            let refused = device.leave_multicast(&handle).unwrap_err().to_string();
            assert!(refused.contains("another thread binds"), "{refused}");
            None
        }
    };
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(bind);
        let other = bind();
        (one.join().unwrap(), other)
    });
    let multicast = one.xor(other).unwrap();
    device.write(multicast.own, &[1; 16]).unwrap();
    rank.meet();
    device.leave_multicast(&handle).unwrap();
    rank.meet();
}

pub(crate) fn none(_: &Rank) {
    let device = Surface::new().device(1).unwrap();
    let said = match device.has_fixed_blocks() {
        true => "AMD's devices have no switch that adds",
        false => "device 1 has no switch that adds",
    };
    let refused = [
        device.create_multicast(2, 4096).map(drop),
        device.join_multicast(&[0; 64]),
        device.bind_multicast(&[0; 64]).map(drop),
        device.leave_multicast(&[0; 64]),
    ];
    for refused in refused {
        let Err(Error::NoMulticast { why }) = refused else { panic!("{refused:?}") };
        assert!(why.contains(said), "{why}");
    }
}
