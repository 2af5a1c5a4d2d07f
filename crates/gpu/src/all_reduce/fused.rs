//! All-reduce, addition of a residual, and RMSNorm in one launch.
//!
//! The invariant: the bits are those of the three one after the other, with either algorithm, on every rank. `kernels/fused.h` says
//! in which order the squares of a row are added.

use super::{AllReduce, Staging, bytes_from, check_aligned, check_apart, check_buffers};
use crate::artefacts::Code;
use crate::driver::Driver;
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::{BLOCK_THREADS, PACK_BYTES};
use crate::plan::{Algorithm, Plan};

/// What is done with the sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsNorm {
    /// What is added to the sum.
    pub residual: u64,
    /// Where the sum of both goes; may be `residual`.
    pub new_residual: u64,
    /// A factor for each element of a row, of the message's type.
    pub weight: u64,
    /// Elements of a row: a multiple of 16 bytes.
    pub hidden: usize,
    /// What is added to the mean of a row's squares.
    pub epsilon: f32,
}

/// The fused kernels of one algorithm, as they are shipped.
#[derive(Debug, Clone, Copy)]
pub struct FusedArtefact {
    /// [`Algorithm::OneShot`] or [`Algorithm::TwoShot`].
    pub algorithm: Algorithm,
    /// For NVIDIA.
    pub ptx: &'static str,
    /// For AMD: a generation's name, and its code object.
    pub code_objects: [(&'static str, &'static [u8]); 2],
}

impl FusedArtefact {
    /// For a driver.
    pub fn code(&self) -> Code {
        Code { ptx: self.ptx, code_objects: self.code_objects }
    }
}

macro_rules! artefact {
    ($algorithm:ident, $name:literal) => {
        FusedArtefact {
            algorithm: Algorithm::$algorithm,
            ptx: include_str!(concat!("../../artefacts/", $name, ".ptx")),
            code_objects: [
                ("gfx90a", include_bytes!(concat!("../../artefacts/", $name, "-gfx90a.hsaco"))),
                ("gfx942", include_bytes!(concat!("../../artefacts/", $name, "-gfx942.hsaco"))),
            ],
        }
    };
}

impl FusedArtefact {
    /// Both of them.
    pub fn all() -> [Self; 2] {
        [artefact!(OneShot, "one_shot_norm"), artefact!(TwoShot, "two_shot_norm")]
    }

    /// The name of the kernel for a type and a number of ranks.
    pub fn kernel(&self, dtype: DType, world: usize) -> String {
        format!("{}_norm_{}_{world}", self.algorithm.name(), dtype.name())
    }
}

impl<D: Driver> AllReduce<D> {
    /// Puts on the stream: the sum of all ranks' inputs, rounded, plus the residual, rounded, goes to the new residual; and that,
    /// times one over the root of the mean of its row's squares, times the weight, goes to `output`. One-shot below the bytes
    /// where [`AllReduce::all_reduce`] is, else two-shot. `output` may be `input`.
    ///
    /// # Errors
    ///
    /// As [`AllReduce::all_reduce`], and [`Error::Rows`] unless `elements` are whole rows and a row whole packs of 16 bytes;
    /// [`Error::Overlap`] where the new residual touches the input, the output or the weight, or part of the residual.
    pub fn all_reduce_rms_norm(
        &mut self,
        input: u64,
        output: u64,
        elements: usize,
        dtype: DType,
        staging: Option<Staging>,
        norm: &RmsNorm,
    ) -> Result<(), Error> {
        let RmsNorm { residual, new_residual, weight, hidden, epsilon } = *norm;
        let (bytes, row) = (elements * dtype.size(), hidden * dtype.size());
        if row == 0 || !row.is_multiple_of(PACK_BYTES) || !elements.is_multiple_of(hidden) {
            return Err(Error::Rows { elements, hidden });
        }
        check_buffers(input, output, bytes)?;
        check_aligned("weight", weight)?;
        check_buffers(residual, new_residual, bytes)?;
        check_apart((input, bytes), (new_residual, bytes))?;
        check_apart((output, bytes), (new_residual, bytes))?;
        check_apart((residual, bytes), (output, bytes))?;
        check_apart((weight, row), (new_residual, bytes))?;
        check_apart((weight, row), (output, bytes))?;
        for (what, address, needed) in [
            ("the residual", residual, bytes),
            ("the new residual", new_residual, bytes),
            ("the weight", weight, row),
        ] {
            let found = bytes_from(&self.driver, address)?;
            if found < needed {
                return Err(Error::TooSmall { what, found, needed });
            }
        }
        if elements == 0 {
            return Ok(());
        }
        let is_in_place = input == output && staging.is_none();
        let Plan { algorithm, .. } = Plan::choose(self.world, elements, dtype, is_in_place, self.most_blocks);
        if algorithm == Algorithm::TwoShot && bytes > self.scratch_bytes {
            let what = "the scratch behind the signals";
            return Err(Error::TooSmall { what, found: self.scratch_bytes, needed: bytes });
        }
        if algorithm == Algorithm::TwoShot {
            self.scratch_used = self.scratch_used.max(bytes);
        }
        self.check_own_memory((input, bytes), (new_residual, bytes), staging)?;
        let inputs = self.inputs((input, bytes), (output, bytes), staging)?;
        let mut parameters = self.call(inputs, output, elements).to_bytes();
        for word in [residual, new_residual, weight, (row / PACK_BYTES) as u64] {
            parameters.extend_from_slice(&word.to_le_bytes());
        }
        parameters.extend_from_slice(&(1.0 / hidden as f32).to_le_bytes());
        parameters.extend_from_slice(&epsilon.to_le_bytes());
        let [one_shot, two_shot] = FusedArtefact::all();
        let artefact = if algorithm == Algorithm::OneShot { one_shot } else { two_shot };
        let kernel = self.driver.kernel(&artefact.code(), &artefact.kernel(dtype, self.world))?;
        // A block takes row after row.
        let blocks = (elements / hidden).min(self.most_blocks);
        self.driver.launch(&kernel, blocks, BLOCK_THREADS, &parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_in_every_artefact() {
        let contains = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        for artefact in FusedArtefact::all() {
            for (world, dtype) in (2..=8).flat_map(|world| DType::ALL.map(|dtype| (world, dtype))) {
                let name = artefact.kernel(dtype, world);
                assert!(artefact.ptx.contains(&format!(".entry {name}(")), "{name}");
                let descriptor = format!("{name}.kd\0");
                assert!(artefact.code_objects.iter().all(|(_, code)| contains(code, &descriptor)), "{name}");
            }
        }
    }
}
