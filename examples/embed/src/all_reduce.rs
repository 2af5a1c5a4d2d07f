//! The all-reduce of tensor parallelism as a candle operation.
//!
//! Engines built on candle write their all-reduce as a custom operation whose GPU side calls a vendor's library and
//! whose CPU side returns an error. This file fills the CPU side: [`AllReduce`] adds up a tensor over all ranks of a
//! [`Communicator`], in shared memory. It depends on candle and unisono alone, so an engine may take it as it is.
//!
//! The one invariant that matters: every rank applies it to tensors of the same shape and type, in the same order.
//! A rank that does something else gets an error that names both calls, on every rank, instead of a hang.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Error, InplaceOp1, Layout, Result, Shape, bail};
use unisono::{Communicator, Element, ReduceOp};

/// Adds up a tensor over all ranks: afterwards each rank holds the sum, the same bits everywhere.
///
/// `tensor.inplace_op1(&all_reduce)` overwrites the tensor and allocates nothing: the right form for the result of a
/// matrix product that nobody else holds. `tensor.apply_op1_no_bwd(&all_reduce)` leaves the tensor alone and returns
/// the sum as a new one. Both work on contiguous f32, f64, f16 and bf16 tensors in host memory, views with an offset
/// included; f16 and bf16 are added in f32 and rounded once.
#[derive(Clone)]
pub(crate) struct AllReduce {
    communicator: Communicator,
}

impl AllReduce {
    /// An all-reduce over the ranks of `communicator`.
    pub(crate) fn new(communicator: Communicator) -> Self {
        Self { communicator }
    }

    /// Adds up the part of `storage` that `layout` covers.
    fn sum<T: Element>(&self, storage: &mut [T], layout: &Layout) -> Result<()> {
        let values = storage.get_mut(contiguous(layout)?).ok_or_else(|| out_of_range(layout))?;
        self.communicator.all_reduce(values, ReduceOp::Sum).map_err(Error::wrap)
    }

    /// Adds up a copy of the part of `storage` that `layout` covers.
    fn sum_of_copy<T: Element>(&self, storage: &[T], layout: &Layout) -> Result<Vec<T>> {
        let mut values = storage.get(contiguous(layout)?).ok_or_else(|| out_of_range(layout))?.to_vec();
        self.communicator.all_reduce(&mut values, ReduceOp::Sum).map_err(Error::wrap)?;
        Ok(values)
    }
}

impl InplaceOp1 for AllReduce {
    fn name(&self) -> &'static str {
        "all-reduce"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match storage {
            CpuStorage::F32(values) => self.sum(values, layout),
            CpuStorage::F64(values) => self.sum(values, layout),
            CpuStorage::F16(values) => self.sum(values, layout),
            CpuStorage::BF16(values) => self.sum(values, layout),
            other => Err(unsupported(other)),
        }
    }
}

impl CustomOp1 for AllReduce {
    fn name(&self) -> &'static str {
        "all-reduce"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let sum = match storage {
            CpuStorage::F32(values) => CpuStorage::F32(self.sum_of_copy(values, layout)?),
            CpuStorage::F64(values) => CpuStorage::F64(self.sum_of_copy(values, layout)?),
            CpuStorage::F16(values) => CpuStorage::F16(self.sum_of_copy(values, layout)?),
            CpuStorage::BF16(values) => CpuStorage::BF16(self.sum_of_copy(values, layout)?),
            other => return Err(unsupported(other)),
        };
        Ok((sum, layout.shape().clone()))
    }
}

/// Where in its storage a tensor lies, if it lies there in one piece.
fn contiguous(layout: &Layout) -> Result<std::ops::Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!(
            "all-reduce needs a contiguous tensor, this one has shape {:?} and strides {:?}: call contiguous() first",
            layout.shape(),
            layout.stride()
        ),
    }
}

fn out_of_range(layout: &Layout) -> Error {
    Error::Msg(format!("all-reduce got a layout that reaches beyond its storage: {layout:?}"))
}

fn unsupported(storage: &CpuStorage) -> Error {
    let found = storage.dtype();
    Error::Msg(format!(
        "all-reduce adds up f32, f64, f16 and bf16, this tensor is {found:?}: call to_dtype() first"
    ))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, IndexOp, Tensor};
    use half::{bf16, f16};

    use super::*;

    /// Runs `body` as each of `world_size` ranks, one a thread, and returns what each of them made of it.
    fn on_each_rank<R: Send>(world_size: usize, body: impl Fn(usize, AllReduce) -> R + Sync) -> Vec<R> {
        let body = &body;
        std::thread::scope(|scope| {
            let ranks: Vec<_> = Communicator::in_process(world_size)
                .unwrap()
                .into_iter()
                .map(|communicator| {
                    let all_reduce = AllReduce::new(communicator);
                    scope.spawn(move || body(all_reduce.communicator.rank(), all_reduce))
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn every_rank_gets_the_sum_in_place() {
        let sums = on_each_rank(3, |rank, all_reduce| {
            let tensor = Tensor::new(&[rank as f32, 1.0, -2.5], &Device::Cpu).unwrap();
            tensor.inplace_op1(&all_reduce).unwrap();
            tensor.to_vec1::<f32>().unwrap()
        });
        assert_eq!(sums, vec![vec![3.0, 3.0, -7.5]; 3]);
    }

    #[test]
    fn the_other_form_leaves_its_input_alone() {
        let results = on_each_rank(2, |rank, all_reduce| {
            let tensor = Tensor::new(&[rank as f64 + 1.0], &Device::Cpu).unwrap();
            let sum = tensor.apply_op1_no_bwd(&all_reduce).unwrap();
            (tensor.to_vec1::<f64>().unwrap(), sum.to_vec1::<f64>().unwrap())
        });
        assert_eq!(results, [(vec![1.0], vec![3.0]), (vec![2.0], vec![3.0])]);
    }

    #[test]
    fn a_view_with_an_offset_changes_only_what_it_shows() {
        let wholes = on_each_rank(2, |_, all_reduce| {
            let tensor = Tensor::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu).unwrap();
            tensor.i(1).unwrap().inplace_op1(&all_reduce).unwrap();
            tensor.to_vec2::<f32>().unwrap()
        });
        assert_eq!(wholes, vec![vec![vec![1.0, 2.0], vec![6.0, 8.0], vec![5.0, 6.0]]; 2]);
    }

    #[test]
    fn half_precision_is_added_in_single_precision_and_rounded_once() {
        // 1024 + 0.5 + 0.5: each step alone would round back to 1024 in f16, whose steps are 1 wide there.
        let sums = on_each_rank(3, |rank, all_reduce| {
            let value = if rank == 0 { 1024.0 } else { 0.5 };
            let tensor = Tensor::new(&[f16::from_f32(value)], &Device::Cpu).unwrap();
            tensor.inplace_op1(&all_reduce).unwrap();
            let brain = Tensor::new(&[bf16::from_f32(0.25)], &Device::Cpu).unwrap();
            brain.inplace_op1(&all_reduce).unwrap();
            (tensor.to_vec1::<f16>().unwrap()[0].to_f32(), brain.to_vec1::<bf16>().unwrap()[0].to_f32())
        });
        assert_eq!(sums, [(1025.0, 0.75); 3]);
    }

    #[test]
    fn a_transposed_tensor_and_an_integer_tensor_are_refused_with_the_way_out() {
        on_each_rank(1, |_, all_reduce| {
            let transposed = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap().t().unwrap();
            let error = transposed.inplace_op1(&all_reduce).unwrap_err().to_string();
            assert!(error.contains("contiguous()"), "{error}");
            let integers = Tensor::zeros(4, DType::U32, &Device::Cpu).unwrap();
            let error = integers.apply_op1_no_bwd(&all_reduce).unwrap_err().to_string();
            assert!(error.contains("to_dtype()"), "{error}");
        });
    }
}
