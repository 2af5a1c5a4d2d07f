//! The kernels as they are shipped: PTX for compute capability 8.0, which NVIDIA's driver compiles for the device at hand, and a
//! code object for each of AMD's generations.
//!
//! Built by `cargo xtask kernels` from `kernels/`; `artefacts/versions.toml` says with what.

use crate::dtype::DType;
use crate::plan::Algorithm;

/// Kernels in the forms that drivers take. All of it is static: it is known by where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Code {
    /// For NVIDIA, and for the simulator.
    pub ptx: &'static str,
    /// For AMD: a generation's name, and its code object; empty where there is none.
    pub code_objects: [(&'static str, &'static [u8]); 2],
}

/// The kernels of one algorithm.
#[derive(Debug, Clone, Copy)]
pub struct Artefact {
    /// Of which algorithm.
    pub algorithm: Algorithm,
    /// For NVIDIA.
    pub ptx: &'static str,
    /// For AMD: a generation's name, and its code object.
    pub code_objects: [(&'static str, &'static [u8]); 2],
}

/// All of them.
pub fn artefacts() -> [Artefact; 4] {
    Algorithm::ALL.map(Algorithm::artefact)
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::OneShot, Self::TwoShot, Self::ReduceScatter, Self::AllGather];

    /// Its kernels, for a driver.
    pub fn code(self) -> Code {
        Code { ptx: self.ptx(), code_objects: self.code_objects() }
    }

    fn artefact(self) -> Artefact {
        Artefact { algorithm: self, ptx: self.ptx(), code_objects: self.code_objects() }
    }

    fn ptx(self) -> &'static str {
        match self {
            Self::OneShot => include_str!("../artefacts/one_shot.ptx"),
            Self::TwoShot => include_str!("../artefacts/two_shot.ptx"),
            Self::ReduceScatter => include_str!("../artefacts/reduce_scatter.ptx"),
            Self::AllGather => include_str!("../artefacts/all_gather.ptx"),
        }
    }

    fn code_objects(self) -> [(&'static str, &'static [u8]); 2] {
        let (gfx90a, gfx942): (&[u8], &[u8]) = match self {
            Self::OneShot => (
                include_bytes!("../artefacts/one_shot-gfx90a.hsaco"),
                include_bytes!("../artefacts/one_shot-gfx942.hsaco"),
            ),
            Self::TwoShot => (
                include_bytes!("../artefacts/two_shot-gfx90a.hsaco"),
                include_bytes!("../artefacts/two_shot-gfx942.hsaco"),
            ),
            Self::ReduceScatter => (
                include_bytes!("../artefacts/reduce_scatter-gfx90a.hsaco"),
                include_bytes!("../artefacts/reduce_scatter-gfx942.hsaco"),
            ),
            Self::AllGather => (
                include_bytes!("../artefacts/all_gather-gfx90a.hsaco"),
                include_bytes!("../artefacts/all_gather-gfx942.hsaco"),
            ),
        };
        [("gfx90a", gfx90a), ("gfx942", gfx942)]
    }

    /// The name of the kernel for a type and a number of ranks.
    pub fn kernel(self, dtype: DType, world: usize) -> String {
        let (algorithm, dtype) = (self.name(), dtype.name());
        match self {
            // Bytes are bytes.
            Self::AllGather => format!("{algorithm}_{world}"),
            _ => format!("{algorithm}_{dtype}_{world}"),
        }
    }

    /// With which the names of its kernels begin.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneShot => "one_shot",
            Self::TwoShot => "two_shot",
            Self::ReduceScatter => "reduce_scatter",
            Self::AllGather => "all_gather",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MAX_RANKS;

    fn contains(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[test]
    fn every_kernel_is_in_every_artefact() {
        for Artefact { algorithm, ptx, code_objects } in artefacts() {
            for (generation, code) in code_objects {
                assert!(code.starts_with(b"\x7fELF") && contains(code, &format!("amdhsa--{generation}")));
            }
            for (world, dtype) in (2..=MAX_RANKS).flat_map(|world| DType::ALL.map(|dtype| (world, dtype))) {
                let name = algorithm.kernel(dtype, world);
                assert!(ptx.contains(&format!(".entry {name}(")), "{name}");
                // A code object has a descriptor for each kernel.
                let descriptor = format!("{name}.kd\0");
                assert!(code_objects.iter().all(|(_, code)| contains(code, &descriptor)), "{name}");
            }
        }
    }
}
