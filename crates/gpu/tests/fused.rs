//! All-reduce fused with a residual and RMSNorm, as it is shipped, executed: the bits of the three one after the other, no race,
//! and whatever is taken out of its synchronisation is found out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

mod common;
mod mutate;

use common::{Options, World, inputs, sum, values};
use half::{bf16, f16};
use mutate::{Ending, all_are_caught, alone, ended};
use unisono_gpu::{Algorithm, DType, Driver, Error, FusedArtefact, RmsNorm};

const EPSILON: f32 = 1e-5;
const THREADS: usize = 512;

/// In how many orders of events each kernel is run between two ranks; `UNISONO_TEST_SEEDS` says otherwise.
fn seeds() -> u64 {
    std::env::var("UNISONO_TEST_SEEDS").map_or(200, |seeds| seeds.parse().unwrap())
}

fn numbers(bytes: &[u8], dtype: DType) -> Vec<f32> {
    let number = |bytes: &[u8]| match dtype {
        DType::F32 => f32::from_le_bytes(bytes.try_into().unwrap()),
        DType::F16 => f16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
        DType::BF16 => bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
    };
    bytes.chunks_exact(dtype.size()).map(number).collect()
}

/// To nearest even, and a NaN as the canonical one.
fn written(numbers: &[f32], dtype: DType) -> Vec<u8> {
    let bytes = |number: &f32| match (dtype, number.is_nan()) {
        (DType::F32, true) => 0x7fc0_0000_u32.to_le_bytes().to_vec(),
        (DType::F16, true) => 0x7e00_u16.to_le_bytes().to_vec(),
        (DType::BF16, true) => 0x7fc0_u16.to_le_bytes().to_vec(),
        (DType::F32, false) => number.to_le_bytes().to_vec(),
        (DType::F16, false) => f16::from_f32(*number).to_le_bytes().to_vec(),
        (DType::BF16, false) => bf16::from_f32(*number).to_le_bytes().to_vec(),
    };
    numbers.iter().flat_map(bytes).collect()
}

/// Neighbours, then pairs of neighbours, then both halves.
fn sum_of_eight(eight: &[f32]) -> f32 {
    let pair = |first: usize| eight[first] + eight[first + 1];
    (pair(0) + pair(2)) + (pair(4) + pair(6))
}

/// The squares of a row in the order that is promised.
fn sum_of_squares(row: &[f32], per_pack: usize) -> f32 {
    let mut of_threads = vec![0.0_f32; THREADS];
    for (index, value) in row.iter().enumerate() {
        of_threads[index / per_pack % THREADS] += value * value;
    }
    let eights: Vec<f32> = of_threads.chunks(8).map(sum_of_eight).collect();
    let every_eighth = |first: usize| eights[first..].iter().step_by(8).fold(0.0, |sum, eight| sum + eight);
    sum_of_eight(&(0..8).map(every_eighth).collect::<Vec<_>>())
}

/// What a rank has beside its input, which it alone knows.
struct Case {
    world: usize,
    rows: usize,
    hidden: usize,
    dtype: DType,
    is_in_place: bool,
    most_blocks: usize,
}

impl Case {
    fn elements(&self) -> usize {
        self.rows * self.hidden
    }

    fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }

    fn algorithm(&self) -> Algorithm {
        if self.is_in_place { Algorithm::TwoShot } else { Algorithm::OneShot }
    }

    /// Output and new residual: an all-reduce, an addition, a norm.
    fn expected(&self, contents: &[Vec<u8>], residual: &[u8], weight: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let reduced = numbers(&sum(contents, self.dtype), self.dtype);
        let both = reduced.iter().zip(numbers(residual, self.dtype)).map(|(sum, more)| sum + more);
        let residual = written(&both.collect::<Vec<_>>(), self.dtype);
        let weights = numbers(weight, self.dtype);
        let mut output = Vec::new();
        for row in numbers(&residual, self.dtype).chunks(self.hidden) {
            let mean = sum_of_squares(row, 16 / self.dtype.size()) * (1.0 / self.hidden as f32);
            let factor = 1.0 / (mean + EPSILON).sqrt();
            let scaled = row.iter().zip(&weights).map(|(value, weight)| value * factor * weight);
            output.extend(written(&scaled.collect::<Vec<_>>(), self.dtype));
        }
        (output, residual)
    }

    /// So many launches one after the other on the same buffers, of which the residual carries over.
    fn run(&self, ptx: Option<&str>, seed: u64, detects_races: bool, launches: u64) -> Ending {
        let bytes = self.bytes();
        let options =
            Options { detects_races, most_bytes: bytes, most_blocks: self.most_blocks, table_rows: 4 };
        let mut ranks = World::new(self.world, options);
        if let Some(ptx) = ptx {
            let artefact =
                FusedArtefact::all().into_iter().find(|one| one.algorithm == self.algorithm()).unwrap();
            ranks.simulator.replace(artefact.ptx, ptx).unwrap();
        }
        let sources = ranks.registered(bytes);
        let outputs = if self.is_in_place { sources.clone() } else { ranks.private(bytes) };
        let (residuals, weights) = (ranks.private(bytes), ranks.private(self.hidden * self.dtype.size()));
        let mut residual = values(77, self.elements(), self.dtype, seed);
        let weight = values(78, self.hidden, self.dtype, seed);
        ranks.write(&residuals, &vec![residual.clone(); self.world]);
        ranks.write(&weights, &vec![weight.clone(); self.world]);
        let mut output = Vec::new();
        for round in 0..launches {
            let contents = inputs(self.world, self.elements(), self.dtype, seed + round);
            ranks.write(&sources, &contents);
            for (index, rank) in ranks.ranks.iter_mut().enumerate() {
                let norm = RmsNorm {
                    residual: residuals[index],
                    new_residual: residuals[index],
                    weight: weights[index],
                    hidden: self.hidden,
                    epsilon: EPSILON,
                };
                let (input, output) = (sources[index], outputs[index]);
                let all_reduce = &mut rank.all_reduce;
                all_reduce
                    .all_reduce_rms_norm(input, output, self.elements(), self.dtype, None, &norm)
                    .unwrap();
            }
            (output, residual) = self.expected(&contents, &residual, &weight);
        }
        let is_late = || ranks.ranks.iter().any(|rank| rank.all_reduce.check().is_err());
        let is_right = || {
            ranks.read(&outputs, bytes).iter().all(|found| *found == output)
                && ranks.read(&residuals, bytes).iter().all(|found| *found == residual)
        };
        ended(&ranks.simulator, seed, is_late, is_right)
    }
}

#[test]
fn the_bits_are_those_of_all_reduce_addition_and_norm_one_after_the_other() {
    for world in 2..=8 {
        for dtype in DType::ALL {
            for is_in_place in [false, true] {
                // One row of two packs; more rows than blocks; more packs than threads.
                for (rows, hidden) in [(1, 32 / dtype.size()), (5, 64), (1, 16 * 515 / dtype.size())] {
                    let case = Case { world, rows, hidden, dtype, is_in_place, most_blocks: 2 };
                    let ending = case.run(None, 3, false, 2);
                    assert_eq!(
                        ending,
                        Ending::Right,
                        "{world} ranks, {rows} x {hidden} {dtype:?} {is_in_place}"
                    );
                }
            }
        }
    }
}

#[test]
fn sixteen_rows_of_4096_are_too() {
    for (world, dtype) in [(2, DType::BF16), (3, DType::F16), (4, DType::F32), (8, DType::BF16)] {
        for is_in_place in [false, true] {
            let case = Case { world, rows: 16, hidden: 4096, dtype, is_in_place, most_blocks: 4 };
            assert_eq!(
                case.run(None, 5, false, 1),
                Ending::Right,
                "{world} ranks of {dtype:?}, {is_in_place}"
            );
        }
    }
}

/// Three rows for one block, now and then for two, of so many packs that each rank has some to reduce.
fn case(algorithm: Algorithm, world: usize, dtype: DType, seed: u64) -> Case {
    let hidden = 10 * 16 / dtype.size();
    Case {
        world,
        rows: 3,
        hidden,
        dtype,
        is_in_place: algorithm == Algorithm::TwoShot,
        most_blocks: 1 + usize::from(seed % 10 == 9),
    }
}

fn no_race(algorithm: Algorithm) {
    for (world, share) in [(2, 1), (3, 10), (4, 20), (8, 40)] {
        for seed in 0..seeds() / share {
            let dtype = DType::ALL[(seed % 3) as usize];
            let ending = case(algorithm, world, dtype, seed).run(None, seed, true, 2);
            assert_eq!(ending, Ending::Right, "{algorithm:?}, {world} ranks, {dtype:?}, seed {seed}");
        }
    }
}

#[test]
fn one_shot_has_no_race_in_any_order_drawn() {
    no_race(Algorithm::OneShot);
}

#[test]
fn two_shot_in_place_has_no_race_in_any_order_drawn() {
    no_race(Algorithm::TwoShot);
}

#[test]
fn without_any_part_of_their_synchronisation_they_are_caught() {
    for artefact in FusedArtefact::all() {
        let kernel = artefact.kernel(DType::F32, 2);
        let text = alone(artefact.ptx, &kernel);
        all_are_caught(&kernel, &text, seeds(), |mutant, seed| {
            case(artefact.algorithm, 2, DType::F32, seed).run(Some(mutant), seed, true, 2)
        });
    }
}

#[test]
fn rows_that_are_none_and_buffers_that_touch_are_refused() {
    let mut ranks = World::new(2, Options::default());
    let at = ranks.registered(4096)[0];
    let rank = &mut ranks.ranks[0];
    let [output, residual, new_residual, weight] = [(); 4].map(|()| rank.device.allocate(4096).unwrap());
    let good = RmsNorm { residual, new_residual, weight, hidden: 64, epsilon: EPSILON };
    let mut refused = |elements: usize, output, norm: &RmsNorm| {
        rank.all_reduce.all_reduce_rms_norm(at, output, elements, DType::F16, None, norm).unwrap_err()
    };
    assert_eq!(refused(100, output, &good), Error::Rows { elements: 100, hidden: 64 });
    assert_eq!(
        refused(120, output, &RmsNorm { hidden: 60, ..good }),
        Error::Rows { elements: 120, hidden: 60 }
    );
    assert_eq!(refused(0, output, &RmsNorm { hidden: 0, ..good }), Error::Rows { elements: 0, hidden: 0 });
    let overlap = |input, output| Error::Overlap { input, output, bytes: 256 };
    assert_eq!(refused(128, output, &RmsNorm { new_residual: at, ..good }), overlap(at, at));
    assert_eq!(refused(128, output, &RmsNorm { new_residual: output, ..good }), overlap(output, output));
    let half = RmsNorm { new_residual: residual + 128, ..good };
    assert_eq!(refused(128, output, &half), overlap(residual, residual + 128));
    assert_eq!(refused(128, residual, &good), overlap(residual, residual));
    let askew = RmsNorm { weight: weight + 8, ..good };
    assert_eq!(refused(128, output, &askew), Error::Misaligned { what: "weight", address: weight + 8 });
    let what = "the residual";
    let short = RmsNorm { residual: residual + 3968, ..good };
    assert_eq!(refused(128, output, &short), Error::TooSmall { what, found: 128, needed: 256 });
}
