//! What a rank does. A panic fails the test, with the rank's number.

use std::time::Duration;

use unisono_gpu::driver::any::{Device, Platform};
use unisono_gpu::packet::{PacketConfig, Prepared, Shape};
use unisono_gpu::surface::{Surface, p2p, topology};
use unisono_gpu::{DType, Driver, Error, META_BYTES, QuickAllReduce, QuickOptions};

use crate::common::{inputs, sum, values};
use crate::engine::{Engine, MOST_BYTES, integers, tensor};
use crate::hub::Rank;

pub(crate) fn of(name: &str) -> fn(&Rank) {
    match name {
        "every_rank_gets_the_sum" | "two_ranks_need_not_be_fully_connected" => every_rank_gets_the_sum,
        "a_graph_reads_its_inputs_wherever_they_are" => graphs,
        "a_rank_that_never_comes_is_named_at_the_next_call" => overdue,
        "what_does_not_fit_is_refused_and_nothing_is_lost" => refusals,
        "memory_is_tried_out_and_the_topology_asked" => tried_out,
        "disposal_gives_everything_back" => disposal,
        "amds_functions_take_handles" => amd,
        "a_bus_is_no_direct_link" => bus,
        "what_is_dropped_is_given_back" => dropped,
        "a_switch_adds_what_all_have" => crate::switch::adds,
        "no_switch" => crate::switch::none,
        "nobody_leaves_while_it_binds" => crate::switch::stays,
        "words_that_cannot_be_taken_back_stay" => crate::words::stay,
        "a_row_has_the_same_bits_alone_and_in_any_batch" => crate::rows::are_alike,
        #[cfg(feature = "remote")]
        "packets_go_between_two_nodes" => crate::nodes::reduce,
        #[cfg(feature = "remote")]
        "a_lost_node_is_told" => crate::nodes::lost,
        #[cfg(feature = "remote")]
        "what_waits_for_the_other_node_ends_with_its_context" => crate::nodes::ended,
        #[cfg(feature = "remote")]
        "a_forked_child_gives_nothing_back" => crate::nodes::forked,
        "no_driver_is_an_error_that_names_all" => no_driver,
        _ => panic!("there is no scenario {name}"),
    }
}

fn every_rank_gets_the_sum(rank: &Rank) {
    let engine = Engine::new(rank);
    // The same memory is elsewhere in each process.
    let all = rank.exchange(&engine.metas[0].to_le_bytes());
    assert!(all[1..].iter().any(|other| *other != all[0]), "mapped at different addresses");
    for (round, (elements, dtype)) in
        [(1, DType::F32), (517, DType::F16), (4096, DType::BF16), (9000, DType::F16)].into_iter().enumerate()
    {
        let contents = inputs(rank.world, elements, dtype, round as u64);
        let bytes = elements * dtype.size();
        let input = engine.filled(&contents[rank.rank]);
        let output = engine.device.allocate(bytes).unwrap();
        let [inp, out] = [input, output].map(|address| tensor(address, elements, dtype));
        let staging = engine.staging[rank.rank].cast_signed();
        engine.surface.all_reduce(engine.fa, &inp, &out, staging, MOST_BYTES as i64, engine.stream).unwrap();
        engine.surface.check(engine.fa).unwrap();
        let expected = sum(&contents, dtype);
        assert!(engine.read(output, bytes) == expected, "{elements} of {dtype:?}, staged");
        // In place on a registered buffer: the two-shot kernel.
        let buffers = engine.shared(bytes);
        engine.surface.register_buffer(engine.fa, &integers(&buffers)).unwrap();
        engine.device.write(buffers[rank.rank], &contents[rank.rank]).unwrap();
        let both = tensor(buffers[rank.rank], elements, dtype);
        engine.surface.all_reduce(engine.fa, &both, &both, 0, 0, engine.stream).unwrap();
        engine.surface.check(engine.fa).unwrap();
        assert!(engine.read(buffers[rank.rank], bytes) == expected, "{elements} of {dtype:?}, in place");
    }
    rank.meet();
}

fn graphs(rank: &Rank) {
    let engine = Engine::new(rank);
    let (elements, dtype) = (300, DType::F32);
    let bytes = elements * 4;
    // Two inputs in one allocation, at offsets that differ between the ranks.
    let base = engine.device.allocate(16 << 10).unwrap();
    let sources = [0, 8192].map(|at| base + (at + 64 * rank.rank) as u64);
    let outputs = [(); 2].map(|()| engine.device.allocate(bytes).unwrap());
    engine.begin_capture();
    for (input, output) in sources.iter().zip(outputs) {
        let [inp, out] = [*input, output].map(|address| tensor(address, elements, dtype));
        engine.surface.all_reduce(engine.fa, &inp, &out, 0, 0, engine.stream).unwrap();
    }
    // Memory can be had while a graph is captured, and is zeroed at once.
    let fresh = engine.surface.allocate_meta_buffer(&engine.device, 4096).unwrap();
    assert_eq!(
        engine.surface.register_buffer(engine.fa, &integers(&engine.staging)),
        Err(Error::Capturing { what: "registering a buffer" })
    );
    let graph = engine.end_capture();
    assert_eq!(engine.read(fresh, 4096), vec![0; 4096]);
    let (handles, offsets) = engine.surface.get_graph_buffer_ipc_meta(engine.fa).unwrap();
    assert_eq!((handles.len(), offsets.len()), (128, 2));
    assert_eq!(offsets, [64 * rank.rank as i64, 8192 + 64 * rank.rank as i64]);
    let bytes_of = |numbers: &[i64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let numbers_of = |all: Vec<Vec<u8>>| -> Vec<Vec<i64>> {
        let number = |eight: &[u8]| i64::from_le_bytes(eight.try_into().unwrap());
        all.iter().map(|bytes| bytes.chunks(8).map(number).collect()).collect()
    };
    let handles = numbers_of(rank.exchange(&bytes_of(&handles)));
    let offsets = numbers_of(rank.exchange(&bytes_of(&offsets)));
    // Sizes that do not match are told, and nothing is filled.
    let short: Vec<_> = offsets.iter().map(|offsets| offsets[..1].to_vec()).collect();
    let what = "bytes of handles";
    let refused = engine.surface.register_graph_buffers(engine.fa, &handles, &short);
    assert_eq!(refused, Err(Error::Count { what, expected: 64, found: 128 }));
    engine.surface.register_graph_buffers(engine.fa, &handles, &offsets).unwrap();
    rank.meet();
    for round in 0..3 {
        let contents = [0, 50].map(|more| inputs(rank.world, elements, dtype, round + more));
        for (source, content) in sources.iter().zip(&contents) {
            engine.device.write(*source, &content[rank.rank]).unwrap();
        }
        engine.replay(&graph);
        for (output, content) in outputs.iter().zip(&contents) {
            assert!(engine.read(*output, bytes) == sum(content, dtype), "replay {round}");
        }
        engine.surface.check(engine.fa).unwrap();
    }
    rank.meet();
}

fn overdue(rank: &Rank) {
    let engine = Engine::new(rank);
    if rank.rank == 0 {
        engine.surface.set_patience(engine.fa, Duration::from_millis(30)).unwrap();
        let input = engine.filled(&values(0, 64, DType::F32, 0));
        let tensor = tensor(input, 64, DType::F32);
        let staging = engine.staging[0].cast_signed();
        let reduce = || {
            let surface = &engine.surface;
            surface.all_reduce(engine.fa, &tensor, &tensor, staging, MOST_BYTES as i64, engine.stream)
        };
        reduce().unwrap();
        engine.device.synchronize().unwrap();
        let Err(Error::Overdue { overdue, .. }) = reduce() else { panic!("rank 1 never came") };
        assert_eq!((overdue.rank, overdue.peer, overdue.block), (0, 1, 0));
        assert_eq!((overdue.expected, overdue.found), (1, 0));
        assert!(matches!(engine.surface.check(engine.fa), Err(Error::Overdue { .. })), "told again");
    }
    rank.meet();
}

fn refusals(rank: &Rank) {
    let engine = Engine::new(rank);
    let refused_open = |handle: &[u8; 64]| engine.device.open(handle).unwrap_err().to_string();
    let code = match engine.device.platform() {
        Platform::Sim => "no handle",
        Platform::Cuda => "CUDA_ERROR_INVALID_VALUE (1): invalid argument",
        Platform::Hip => "hipErrorInvalidValue (1): invalid argument",
    };
    assert!(refused_open(&[7; 64]).contains(code), "{}", refused_open(&[7; 64]));
    let code = match engine.device.platform() {
        Platform::Sim => "",
        Platform::Cuda => "cuDeviceGet: CUDA_ERROR_INVALID_DEVICE (101): invalid device ordinal",
        Platform::Hip => "hipSetDevice: there is no device 99; there are 2",
    };
    let other =
        Device::of(engine.device.platform(), 99).map_or_else(|error| error.to_string(), |_| String::new());
    assert_eq!(other, code);
    // A handle ends with its allocation.
    let own = engine.device.allocate(4096).unwrap();
    let handles = rank.exchange(&engine.device.export(own).unwrap());
    engine.device.free(own).unwrap();
    rank.meet();
    let gone = engine.device.open(&handles[1 - rank.rank][..].try_into().unwrap());
    assert!(matches!(gone, Err(Error::Driver { .. })), "{gone:?}");
    assert!(engine.device.export(engine.metas[rank.rank] + 128).is_err(), "not the beginning");
    assert!(engine.device.free(engine.metas[1 - rank.rank]).is_err(), "another rank's");

    let (surface, fa, stream) = (&engine.surface, engine.fa, engine.stream);
    let input = engine.filled(&[0; 256]);
    let inp = tensor(input, 64, DType::F32);
    let staging = engine.staging[rank.rank].cast_signed();
    let reduce = |fa, inp, out, staging, bytes| surface.all_reduce(fa, inp, out, staging, bytes, stream);
    let what = "all-reduce";
    assert_eq!(reduce(fa + 1, &inp, &inp, staging, 256), Err(Error::Context { what, handle: fa + 1 }));
    assert_eq!(reduce(fa, &inp, &inp, 0, 0), Err(Error::NotRegistered { address: input }));
    let what = "the staging buffer";
    assert_eq!(reduce(fa, &inp, &inp, staging, 255), Err(Error::TooSmall { what, found: 255, needed: 256 }));
    assert!(matches!(reduce(fa, &inp, &inp, staging, -1), Err(Error::Tensor { .. })));
    let shorter = tensor(input, 63, DType::F32);
    assert!(matches!(reduce(fa, &inp, &shorter, staging, 256), Err(Error::Tensor { .. })));
    let what = "addresses";
    assert_eq!(surface.register_buffer(fa, &[1]), Err(Error::Count { what, expected: 2, found: 1 }));
    let device = || engine.device.clone();
    let begin = |metas: &[i64], rank| surface.init_custom_ar(device(), metas, &inp, rank, false);
    let three = integers(&[engine.metas[0], engine.metas[1], engine.metas[0]]);
    assert_eq!(begin(&three, 0), Err(Error::NotFullyConnected { world: 3 }));
    assert!(matches!(begin(&three[..2], 2), Err(Error::Rank { rank: 2, world: 2 })));
    assert!(matches!(begin(&three[..2], -1), Err(Error::Rank { .. })));
    assert!(matches!(begin(&[], 0), Err(Error::World { world: 0 })));

    // After all of that everything works.
    rank.meet();
    let contents = inputs(2, 64, DType::F32, 5);
    engine.device.write(input, &contents[rank.rank]).unwrap();
    reduce(fa, &inp, &inp, staging, 256).unwrap();
    assert!(engine.read(input, 256) == sum(&contents, DType::F32));
    rank.meet();
}

fn tried_out(rank: &Rank) {
    let surface = Surface::new();
    let device = surface.device(1).unwrap();
    let try_check = || {
        let mut exchanges = 0;
        let mut exchange = |bytes: &[u8]| {
            exchanges += 1;
            rank.try_exchange(bytes)
        };
        let done = p2p::check(&device, rank.rank, rank.world, &mut exchange);
        (done, exchanges)
    };
    // A rank that can allocate nothing comes to all exchanges, as the others do.
    match rank.rank {
        1 => {
            let refused = without_descriptors(try_check);
            assert!(matches!(refused, (Err(Error::Driver { .. }), 6)), "{refused:?}");
        }
        by => {
            let unopened = Error::NoPeerAccess { rank: 1, by, what: "opened" };
            assert_eq!(try_check(), (Err(unopened), 6));
        }
    }
    let check = || {
        let (done, exchanges) = try_check();
        done.unwrap();
        exchanges
    };
    assert_eq!((check(), check()), (6, 2), "what has been found out is remembered");
    let identities = rank.exchange(device.identity().unwrap().as_bytes());
    let identities: Vec<_> = identities.into_iter().map(|one| String::from_utf8(one).unwrap()).collect();
    assert_eq!(topology::reaches_all_directly(&device, &identities), Ok(true));
    let nonsense = ["no such device".to_owned()];
    assert!(matches!(topology::reaches_all_directly(&device, &nonsense), Err(Error::Driver { .. })));
}

/// Runs where no file can be opened: simulated memory is a file.
fn without_descriptors<T>(act: impl FnOnce() -> T) -> T {
    const FILES: i32 = 7;
    unsafe extern "C" {
        fn getrlimit(resource: i32, limits: *mut [u64; 2]) -> i32;
        fn setrlimit(resource: i32, limits: *const [u64; 2]) -> i32;
    }
    let mut before = [0; 2];
    // SAFETY: a place for both limits.
    assert_eq!(unsafe { getrlimit(FILES, &raw mut before) }, 0);
    let none = [0, before[1]];
    // SAFETY: reads both limits; files that are open stay so.
    assert_eq!(unsafe { setrlimit(FILES, &raw const none) }, 0);
    let done = act();
    // SAFETY: as above.
    assert_eq!(unsafe { setrlimit(FILES, &raw const before) }, 0);
    done
}

fn bus(rank: &Rank) {
    let device = Surface::new().device(1).unwrap();
    let identities = rank.exchange(device.identity().unwrap().as_bytes());
    let identities: Vec<_> = identities.into_iter().map(|one| String::from_utf8(one).unwrap()).collect();
    assert_eq!(topology::reaches_all_directly(&device, &identities), Ok(false));
}

/// Shared memory of simulated devices that this process has mapped.
pub(crate) fn mapped() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("unisono-sim")).count()
}

fn disposal(rank: &Rank) {
    let before = mapped();
    let engine = Engine::new(rank);
    // Something captured, so that handles were opened for it.
    let input = engine.filled(&[0; 1024]);
    let inp = tensor(input, 256, DType::F32);
    engine.begin_capture();
    engine.surface.all_reduce(engine.fa, &inp, &inp, 0, 0, engine.stream).unwrap();
    engine.end_capture();
    let opened = mapped();
    let (handles, offsets) = engine.surface.get_graph_buffer_ipc_meta(engine.fa).unwrap();
    let all = rank.exchange(&handles.iter().map(|byte| *byte as u8).collect::<Vec<_>>());
    let all: Vec<Vec<i64>> =
        all.iter().map(|bytes| bytes.iter().map(|byte| i64::from(*byte)).collect()).collect();
    engine.surface.register_graph_buffers(engine.fa, &all, &[offsets.clone(), offsets]).unwrap();
    assert_eq!(mapped(), opened + 1, "the peer's allocation");
    rank.meet();
    engine.surface.dispose(engine.fa).unwrap();
    assert_eq!(mapped(), opened);
    let what = "all-reduce";
    assert_eq!(engine.surface.dispose(engine.fa), Err(Error::Context { what, handle: engine.fa }));
    rank.meet();
    for (peer, (meta, staging)) in engine.metas.iter().zip(&engine.staging).enumerate() {
        for address in [*meta, *staging] {
            match peer == rank.rank {
                true => engine.device.free(address).unwrap(),
                false => engine.device.close(address).unwrap(),
            }
        }
    }
    engine.device.free(input).unwrap();
    // What is left is the table of registered buffers.
    assert_eq!(mapped(), before + 1);
}

fn dropped(rank: &Rank) {
    let device = Surface::new().device(1).unwrap();
    // So that what loads with the first use is there.
    device.free(device.allocate(16).unwrap()).unwrap();
    let before = mapped();
    let blocks = if device.has_fixed_blocks() { 256 } else { 32 };
    let options = QuickOptions { most_bytes: 1 << 16, most_blocks: 1, threads: blocks };
    let mut quick = QuickAllReduce::new(device.clone(), rank.rank, 2, options).unwrap();
    let handles = rank.exchange(&quick.handle().unwrap());
    let handles: Vec<_> = handles.iter().map(|one| one[..].try_into().unwrap()).collect();
    quick.open_handles(&handles).unwrap();
    assert_eq!(mapped(), before + 2, "the own memory and the peer's");
    rank.meet();
    drop(quick);
    assert_eq!(mapped(), before);
    if device.has_fixed_blocks() {
        let few = QuickOptions { threads: 64, ..options };
        let refused = QuickAllReduce::new(device.clone(), rank.rank, 2, few).map(drop);
        assert_eq!(refused, Err(Error::Threads { found: 64, needed: 256 }));
    }
    let shape = Shape::new(rank.rank, 2, 2).unwrap();
    let bytes = shape.scratch_bytes(1024);
    let scratch = device.allocate(bytes).unwrap();
    let config = PacketConfig::new(shape, scratch, bytes, 0);
    drop(Prepared::new(device.clone(), config).unwrap());
    assert_eq!(mapped(), before + 1, "the scratch is the caller's");
    let prepared = Prepared::new(device.clone(), config).unwrap();
    let offers = rank.exchange(&prepared.offer().unwrap());
    let context = prepared.connect(&offers).unwrap();
    assert_eq!(mapped(), before + 3, "the scratch, the peer's, and what counts the calls");
    rank.meet();
    drop(context);
    assert_eq!(mapped(), before + 1);
    // An offer that leads nowhere: what was prepared is given back, too.
    let prepared = Prepared::new(device.clone(), config).unwrap();
    let mut wrong = offers;
    wrong[1 - rank.rank][..64].fill(7);
    assert!(matches!(prepared.connect(&wrong).map(drop), Err(Error::Driver { .. })));
    assert_eq!(mapped(), before + 1);
    rank.meet();
}

fn amd(rank: &Rank) {
    let surface = Surface::new();
    let device: Device = surface.device(1).unwrap();
    let most = 4096;
    let bytes_tensor = |address: u64, bytes: usize| {
        let mut found = tensor(address, bytes, DType::F32);
        (found.element_bytes, found.dtype, found.storage_bytes) = (1, None, bytes);
        found
    };
    assert!(surface.meta_size_rocm() >= surface.meta_size(), "what callers reserve is enough");
    // Signals and scratch at an offset into what was allocated.
    let base = surface.allocate_meta_buffer(&device, (256 + META_BYTES + most) as i64).unwrap();
    let meta = bytes_tensor(base + 256, META_BYTES + most);
    let handle = surface.get_meta_buffer_ipc_handle(&device, &bytes_tensor(base, 1)).unwrap();
    let handles = rank.exchange(&handle);
    let table = bytes_tensor(device.allocate(64 * 8).unwrap(), 64 * 8);
    let begin = |handles: &[Vec<u8>], offsets: &[i64]| {
        surface.init_custom_ar_rocm(device.clone(), &meta, &table, handles, offsets, rank.rank as i64, true)
    };
    assert!(matches!(begin(&handles, &[256]), Err(Error::Count { what: "offsets", .. })));
    let short = vec![vec![1; 63]; 2];
    assert!(matches!(begin(&short, &[256, 256]), Err(Error::Count { what: "bytes of a handle", .. })));
    assert!(matches!(begin(&handles, &[1 << 20, 1 << 20]), Err(Error::TooSmall { .. })));
    let fa = begin(&handles, &[256, 256]).unwrap();
    // A staging buffer, known by handles.
    let staging = device.allocate(most).unwrap();
    let handles = rank.exchange(&device.export(staging).unwrap());
    let staging = bytes_tensor(staging, most);
    surface.register_buffer_rocm(fa, &staging, &handles, &[0, 0]).unwrap();
    rank.meet();
    let (elements, dtype) = (333, DType::BF16);
    let contents = inputs(2, elements, dtype, 9);
    let [input, output] = [(); 2].map(|()| device.allocate(1024).unwrap());
    let [inp, out] = [input, output].map(|address| tensor(address, elements, dtype));
    let expected = sum(&contents, dtype);
    let mut found = vec![0; expected.len()];
    for is_deterministic in [false, true] {
        device.write(input, &contents[rank.rank]).unwrap();
        device.write(output, &vec![0; found.len()]).unwrap();
        match is_deterministic {
            false => surface.all_reduce_unreg(fa, &inp, &staging, &out, 0),
            true => surface.deterministic_all_reduce_unreg(fa, &inp, &staging, &out, 0),
        }
        .unwrap();
        device.read(output, &mut found).unwrap();
        assert!(found == expected, "by way of the staging buffer");
        // The staging buffer is registered itself.
        let registered = tensor(staging.address, elements, dtype);
        device.write(staging.address, &contents[rank.rank]).unwrap();
        match is_deterministic {
            false => surface.all_reduce_reg(fa, &registered, &out, 0),
            true => surface.deterministic_all_reduce_reg(fa, &registered, &out, 0),
        }
        .unwrap();
        device.read(output, &mut found).unwrap();
        assert!(found == expected, "where it lies");
        rank.meet();
    }
    assert_eq!(surface.get_graph_buffer_ipc_meta_rocm(fa), Ok((vec![], vec![])));
    surface.register_graph_buffers_rocm(fa, &[vec![], vec![]], &[vec![], vec![]]).unwrap();
    surface.check(fa).unwrap();
    rank.meet();
    surface.dispose(fa).unwrap();
    surface.free_buffer(&device, base).unwrap();
}

fn no_driver(_: &Rank) {
    let text = Device::new(0).unwrap_err().to_string();
    for part in
        ["no GPU driver", "NVIDIA's driver was not found", "AMD's runtime was not found", "/nowhere/lib.so ("]
    {
        assert!(text.contains(part), "{text}");
    }
}
