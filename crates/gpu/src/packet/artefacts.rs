//! The packet kernels as they are shipped. Each is for so many ranks of a node at most: 2, 4 or 8; of two nodes also 1.

use crate::artefacts::Code;
use crate::dtype::DType;

/// Between the ranks of one node, or of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketKernel {
    /// One node.
    Near,
    /// Two nodes.
    Far,
}

/// The kernels of one kind.
#[derive(Debug, Clone, Copy)]
pub struct PacketArtefact {
    /// Of which kind.
    pub kernel: PacketKernel,
    /// For NVIDIA.
    pub ptx: &'static str,
    /// For AMD: a generation's name, and its code object.
    pub code_objects: [(&'static str, &'static [u8]); 2],
}

/// All of them.
pub fn packet_artefacts() -> [PacketArtefact; 2] {
    PacketKernel::ALL.map(|kernel| {
        let Code { ptx, code_objects } = kernel.code();
        PacketArtefact { kernel, ptx, code_objects }
    })
}

impl PacketKernel {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Near, Self::Far];

    /// Its kernels, for a driver.
    pub fn code(self) -> Code {
        let (ptx, gfx90a, gfx942): (_, &[u8], &[u8]) = match self {
            Self::Near => (
                include_str!("../../artefacts/packet_near.ptx"),
                include_bytes!("../../artefacts/packet_near-gfx90a.hsaco"),
                include_bytes!("../../artefacts/packet_near-gfx942.hsaco"),
            ),
            Self::Far => (
                include_str!("../../artefacts/packet_far.ptx"),
                include_bytes!("../../artefacts/packet_far-gfx90a.hsaco"),
                include_bytes!("../../artefacts/packet_far-gfx942.hsaco"),
            ),
        };
        Code { ptx, code_objects: [("gfx90a", gfx90a), ("gfx942", gfx942)] }
    }

    /// The name of the kernel for a type and a number of ranks per node.
    pub fn name(self, dtype: DType, ranks_per_node: usize) -> String {
        let kind = match self {
            Self::Near => "near",
            Self::Far => "far",
        };
        let most = match (self, ranks_per_node) {
            (Self::Far, 1) => 1,
            (_, 0..=2) => 2,
            (_, 3..=4) => 4,
            _ => 8,
        };
        format!("packet_{kind}_{}_{most}", dtype.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_in_every_artefact() {
        let contains =
            |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|found| found == text.as_bytes());
        for PacketArtefact { kernel, ptx, code_objects } in packet_artefacts() {
            for (generation, code) in code_objects {
                assert!(code.starts_with(b"\x7fELF") && contains(code, &format!("amdhsa--{generation}")));
            }
            for (ranks, dtype) in (1..=8).flat_map(|ranks| DType::ALL.map(|dtype| (ranks, dtype))) {
                let name = kernel.name(dtype, ranks);
                assert!(ptx.contains(&format!(".entry {name}(")), "{name}");
                let descriptor = format!("{name}.kd\0");
                assert!(code_objects.iter().all(|(_, code)| contains(code, &descriptor)), "{name}");
            }
        }
    }
}
