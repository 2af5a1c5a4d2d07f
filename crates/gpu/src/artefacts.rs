//! The kernels as they are shipped: PTX for compute capability 8.0, which the driver compiles for the device at hand.
//!
//! Built by `cargo xtask kernels` from `kernels/`; `artefacts/versions.toml` says with what.

use crate::dtype::DType;
use crate::plan::Algorithm;

/// A text of PTX with the kernels of one algorithm.
#[derive(Debug, Clone, Copy)]
pub struct Artefact {
    /// Of which algorithm.
    pub algorithm: Algorithm,
    /// The PTX.
    pub ptx: &'static str,
}

/// All of them.
pub fn artefacts() -> [Artefact; 2] {
    [Algorithm::OneShot, Algorithm::TwoShot].map(|algorithm| Artefact { algorithm, ptx: algorithm.ptx() })
}

impl Algorithm {
    pub(crate) fn ptx(self) -> &'static str {
        match self {
            Self::OneShot => include_str!("../artefacts/one_shot.ptx"),
            Self::TwoShot => include_str!("../artefacts/two_shot.ptx"),
        }
    }

    /// The name of the kernel for a type and a number of ranks.
    pub fn kernel(self, dtype: DType, world: usize) -> String {
        let algorithm = match self {
            Self::OneShot => "one_shot",
            Self::TwoShot => "two_shot",
        };
        format!("{algorithm}_{}_{world}", dtype.name())
    }
}
