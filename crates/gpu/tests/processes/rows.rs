//! The deterministic all-reduce of AMD's functions: a row's bits are the same alone and in a batch, whatever else is in it.

use unisono_gpu::surface::{Surface, Tensor};
use unisono_gpu::{DType, Driver};

use crate::common::{inputs, sum};
use crate::engine::tensor;
use crate::hub::Rank;

/// Elements of a row, and their type.
const HIDDEN: usize = 512;
const DTYPE: DType = DType::BF16;
const ROW_BYTES: usize = 2 * HIDDEN;

fn bytes_tensor(address: u64, bytes: usize) -> Tensor {
    let mut found = tensor(address, bytes, DTYPE);
    (found.element_bytes, found.dtype, found.storage_bytes) = (1, None, bytes);
    found
}

pub(crate) fn are_alike(rank: &Rank) {
    let surface = Surface::new();
    let device = surface.device(1).unwrap();
    // Of five ranks the last batch is reduced in two shots, all others in one.
    let batches: &[usize] = if rank.world == 5 { &[1, 2, 7, 255, 256] } else { &[1, 2, 7, 33] };
    let most = batches.iter().max().unwrap() * ROW_BYTES;
    let shared = |bytes: usize| {
        let own = surface.allocate_meta_buffer(&device, bytes as i64).unwrap();
        let handle = surface.get_meta_buffer_ipc_handle(&device, &bytes_tensor(own, bytes)).unwrap();
        (bytes_tensor(own, bytes), rank.exchange(&handle))
    };
    let (meta, handles) = shared(surface.meta_size_rocm() as usize + most);
    let table = bytes_tensor(device.allocate(64 * 8).unwrap(), 64 * 8);
    let nowhere = vec![0; rank.world];
    let fa = surface
        .init_custom_ar_rocm(device.clone(), &meta, &table, &handles, &nowhere, rank.rank as i64, true)
        .unwrap();
    let (staging, handles) = shared(most);
    surface.register_buffer_rocm(fa, &staging, &handles, &nowhere).unwrap();
    rank.meet();
    let [input, output] = [(); 2].map(|()| device.allocate(most).unwrap());

    // Values of many magnitudes, so that another order of additions would give other bits; the expected ones a row at a time.
    let contents = inputs(rank.world, batches.iter().max().unwrap() * HIDDEN, DTYPE, 11);
    let row_of = |content: &Vec<u8>, row: usize| content[row * ROW_BYTES..][..ROW_BYTES].to_vec();
    let expected: Vec<Vec<u8>> = (0..most / ROW_BYTES)
        .map(|row| sum(&contents.iter().map(|content| row_of(content, row)).collect::<Vec<_>>(), DTYPE))
        .collect();
    for (round, &rows) in batches.iter().enumerate() {
        let bytes = rows * ROW_BYTES;
        // The rows in another order each time: what stands where does not matter.
        let order: Vec<usize> = (0..rows).map(|row| (row + 3 * round) % rows).collect();
        let own: Vec<u8> = order.iter().flat_map(|row| row_of(&contents[rank.rank], *row)).collect();
        for is_registered in [false, true] {
            let out = tensor(output, rows * HIDDEN, DTYPE);
            device.write(output, &vec![0; bytes]).unwrap();
            if is_registered {
                let registered = tensor(staging.address, rows * HIDDEN, DTYPE);
                device.write(staging.address, &own).unwrap();
                surface.deterministic_all_reduce_reg(fa, &registered, &out, 0).unwrap();
            } else {
                let inp = tensor(input, rows * HIDDEN, DTYPE);
                device.write(input, &own).unwrap();
                surface.deterministic_all_reduce_unreg(fa, &inp, &staging, &out, 0).unwrap();
            }
            surface.check(fa).unwrap();
            let mut found = vec![0; bytes];
            device.read(output, &mut found).unwrap();
            for (place, row) in order.iter().enumerate() {
                assert!(
                    found[place * ROW_BYTES..][..ROW_BYTES] == expected[*row],
                    "row {row} at {place} of {rows}, registered: {is_registered}"
                );
            }
            rank.meet();
        }
    }
    surface.dispose(fa).unwrap();
    rank.meet();
}
