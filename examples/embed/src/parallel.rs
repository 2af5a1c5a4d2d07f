//! Linear layers that are split over the ranks, the way Megatron-LM splits them (Shoeybi et al., 2019).
//!
//! Two layers make a pair. The first is split by output: each rank holds some rows of the weight and computes some
//! columns of the result, from an input that every rank has in full. What follows (attention by heads, GELU) works on
//! those columns alone. The second is split by input: it takes exactly those columns, each rank's product is one
//! summand of the result, and an all-reduce adds the summands up. Two matrix products, one all-reduce:
//!
//! ```text
//!               rank 0 ── x·A₀ᵀ ── f ── ·B₀ᵀ ──┐
//!   x (all ranks)                              Σ all-reduce ── + b ── y (all ranks)
//!               rank 1 ── x·A₁ᵀ ── f ── ·B₁ᵀ ──┘
//! ```
//!
//! The model builds its attention and its MLP from such pairs. The invariant: input and output of a pair are the same
//! bits on all ranks, so that everything between pairs (residuals, layer norms) may simply be computed everywhere.

use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::Tensor;

use crate::ranks::Ranks;
use crate::weights::Weights;

/// A linear layer split by output: this rank's rows of the weight and its part of the bias.
pub(crate) struct ColumnParallelLinear {
    weight: Tensor,
    bias: Tensor,
}

impl ColumnParallelLinear {
    /// Reads this rank's part of the layer `name`, which in full turns `inputs` values a row into `outputs`.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        inputs: usize,
        outputs: usize,
        ranks: &Ranks,
    ) -> Result<Self> {
        let shard = ranks.shard();
        let load = || -> Result<Self> {
            Ok(Self {
                weight: weights.rows(&format!("{name}.weight"), &[outputs, inputs], shard)?,
                bias: weights.rows(&format!("{name}.bias"), &[outputs], shard)?,
            })
        };
        load().with_context(|| format!("loading rank {}'s part of {name}", shard.rank))
    }

    /// From (rows, inputs), the same on all ranks, to (rows, outputs / world size), different on each. No
    /// communication.
    pub(crate) fn forward(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        input.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)
    }
}

/// A linear layer split by input: this rank's columns of the weight, and the whole bias.
pub(crate) struct RowParallelLinear {
    weight: Tensor,
    bias: Tensor,
    ranks: Arc<Ranks>,
}

impl RowParallelLinear {
    /// Reads this rank's part of the layer `name`, which in full turns `inputs` values a row into `outputs`.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        inputs: usize,
        outputs: usize,
        ranks: &Arc<Ranks>,
    ) -> Result<Self> {
        let shard = ranks.shard();
        let load = || -> Result<Self> {
            Ok(Self {
                weight: weights.columns(&format!("{name}.weight"), [outputs, inputs], shard)?,
                bias: weights.whole(&format!("{name}.bias"), &[outputs])?,
                ranks: Arc::clone(ranks),
            })
        };
        load().with_context(|| format!("loading rank {}'s part of {name}", shard.rank))
    }

    /// From (rows, inputs / world size), different on each rank, to (rows, outputs), the same on all. One all-reduce.
    pub(crate) fn forward(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        let partial = input.matmul(&self.weight.t()?)?;
        self.ranks.sum_in_place(&partial)?;
        // After the sum: a bias added before it would count once per rank.
        partial.broadcast_add(&self.bias)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use candle_core::Device;
    use unisono::Communicator;

    use super::*;
    use crate::weights::tests::written;

    /// Runs `body` as each of `world_size` ranks, one a thread, and returns what each of them made of it.
    pub(crate) fn on_each_rank<R: Send>(world_size: usize, body: impl Fn(Arc<Ranks>) -> R + Sync) -> Vec<R> {
        let body = &body;
        std::thread::scope(|scope| {
            let ranks: Vec<_> = Communicator::in_process(world_size)
                .unwrap()
                .into_iter()
                .map(|communicator| scope.spawn(move || body(Arc::new(Ranks::connected(communicator)))))
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    /// The largest absolute difference between two tensors of one shape.
    pub(crate) fn largest_difference(left: &Tensor, right: &Tensor) -> f32 {
        (left - right).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    fn random(shape: &[usize]) -> Tensor {
        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
    }

    fn pair_of_layers(test: &str) -> Weights {
        let tensors = [
            ("first.weight", random(&[24, 6])),
            ("first.bias", random(&[24])),
            ("second.weight", random(&[6, 24])),
            ("second.bias", random(&[6])),
        ];
        written(test, tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into())
    }

    /// Loads the pair as one of `ranks` and runs it on `input`.
    fn forward(weights: &Weights, input: &Tensor, ranks: &Arc<Ranks>) -> Tensor {
        let first = ColumnParallelLinear::load(weights, "first", 6, 24, ranks).unwrap();
        let second = RowParallelLinear::load(weights, "second", 24, 6, ranks).unwrap();
        second.forward(&first.forward(input).unwrap().gelu_erf().unwrap()).unwrap()
    }

    #[test]
    fn a_split_pair_gives_what_the_whole_pair_gives() {
        let weights = pair_of_layers("pair");
        let input = random(&[5, 6]);
        let whole = forward(&weights, &input, &Arc::new(Ranks::alone()));
        for world_size in [1, 2, 3, 4] {
            for split in on_each_rank(world_size, |ranks| forward(&weights, &input, &ranks)) {
                let difference = largest_difference(&split, &whole);
                assert!(difference < 1e-5, "{world_size} ranks differ by {difference}");
            }
        }
    }

    #[test]
    fn each_rank_holds_only_its_part() {
        let weights = pair_of_layers("parts");
        let shapes = on_each_rank(4, |ranks| {
            let first = ColumnParallelLinear::load(&weights, "first", 6, 24, &ranks).unwrap();
            let second = RowParallelLinear::load(&weights, "second", 24, 6, &ranks).unwrap();
            (first.weight.dims2().unwrap(), first.bias.dims1().unwrap(), second.weight.dims2().unwrap())
        });
        assert_eq!(shapes, [((6, 6), 6, (6, 6)); 4]);
    }

    #[test]
    fn an_all_reduce_is_made_by_the_second_layer_alone() {
        let weights = pair_of_layers("count");
        let input = random(&[5, 6]);
        let counts = on_each_rank(2, |ranks| {
            forward(&weights, &input, &ranks);
            ranks.take_all_reduce_times().len()
        });
        assert_eq!(counts, [1, 1]);
    }
}
