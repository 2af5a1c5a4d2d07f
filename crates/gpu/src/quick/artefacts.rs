//! The quick kernels as they are shipped, built like those of `artefacts`.

use super::level::{Arithmetic, QuantLevel};
use crate::artefacts::Code;
use crate::dtype::DType;

/// The kernels of one level.
#[derive(Debug, Clone, Copy)]
pub struct QuickArtefact {
    /// Of which level.
    pub level: QuantLevel,
    /// For NVIDIA.
    pub ptx: &'static str,
    /// For AMD: a generation's name, and its code object.
    pub code_objects: [(&'static str, &'static [u8]); 2],
}

impl QuickArtefact {
    /// For a driver.
    pub fn code(&self) -> Code {
        Code { ptx: self.ptx, code_objects: self.code_objects }
    }
}

macro_rules! artefact {
    ($level:ident, $name:literal) => {
        QuickArtefact {
            level: QuantLevel::$level,
            ptx: include_str!(concat!("../../artefacts/", $name, ".ptx")),
            code_objects: [
                ("gfx90a", include_bytes!(concat!("../../artefacts/", $name, "-gfx90a.hsaco"))),
                ("gfx942", include_bytes!(concat!("../../artefacts/", $name, "-gfx942.hsaco"))),
            ],
        }
    };
}

impl QuantLevel {
    /// Its kernels.
    pub fn artefact(self) -> QuickArtefact {
        match self {
            Self::Fp => artefact!(Fp, "quick_fp"),
            Self::Int8 => artefact!(Int8, "quick_int8"),
            Self::Int6 => artefact!(Int6, "quick_int6"),
            Self::Int4 => artefact!(Int4, "quick_int4"),
        }
    }

    /// The name of the kernel for a type that travels as it is or, bf16, as f16.
    pub fn kernel(self, dtype: DType, as_f16: bool, arithmetic: Arithmetic) -> String {
        let cast = if as_f16 && dtype == DType::BF16 { "_as_f16" } else { "" };
        let wide = if arithmetic == Arithmetic::Wide { "_wide" } else { "" };
        format!("quick_{}_{}{cast}{wide}", self.name(), dtype.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_in_every_artefact() {
        let contains = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        for level in QuantLevel::ALL {
            let QuickArtefact { ptx, code_objects, .. } = level.artefact();
            for arithmetic in [Arithmetic::Narrow, Arithmetic::Wide] {
                for (dtype, as_f16) in [(DType::F16, false), (DType::BF16, false), (DType::BF16, true)] {
                    let name = level.kernel(dtype, as_f16, arithmetic);
                    assert!(ptx.contains(&format!(".entry {name}(")), "{name}");
                    let descriptor = format!("{name}.kd\0");
                    assert!(code_objects.iter().all(|(_, code)| contains(code, &descriptor)), "{name}");
                }
            }
        }
    }
}
