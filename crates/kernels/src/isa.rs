//! Which instruction sets this machine has, and which one the kernels use.
//!
//! The answer is found once for the process. `UNISONO_ISA` forces one, for comparing them and for tests. The
//! one invariant that matters: an [`Isa`] that [`Isa::is_available`] denies never has its kernels called.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// An instruction set that there are kernels for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Isa {
    /// Plain loops; whatever the compiler makes of them for the oldest processor of the architecture.
    Portable,
    /// x86-64 with AVX2 and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW and DQ.
    Avx512,
    /// 64-bit Arm with Advanced SIMD.
    Neon,
}

/// The environment variable that forces an instruction set.
const VARIABLE: &str = "UNISONO_ISA";

/// Whether the processor is one of AMD's, or of those built after them: what pays there and what elsewhere differs.
pub fn is_amd() -> bool {
    crate::arch::is_amd()
}

impl Isa {
    /// All instruction sets, the most capable first.
    pub const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// The lower-case name: `portable`, `avx2`, `avx512`, `neon`.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
        }
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The instruction sets that this machine can run, best first; [`Isa::Portable`] is always the last.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The best instruction set of this machine.
    pub fn best() -> Isa {
        Isa::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// The instruction set that kernels use: the one named by `UNISONO_ISA`, else the best one.
    ///
    /// The variable is read once; changing it later has no effect.
    ///
    /// # Errors
    /// [`UnsupportedIsa`] when the variable names no instruction set or one that this machine lacks.
    pub fn selected() -> Result<Isa, UnsupportedIsa> {
        static SELECTED: OnceLock<Result<Isa, UnsupportedIsa>> = OnceLock::new();
        SELECTED
            .get_or_init(|| {
                select(std::env::var_os(VARIABLE).map(|name| name.to_string_lossy().into_owned()))
            })
            .clone()
    }
}

/// What `UNISONO_ISA` with this value selects; unset and empty select the best.
fn select(asked: Option<String>) -> Result<Isa, UnsupportedIsa> {
    let Some(asked) = asked.filter(|name| !name.is_empty()) else {
        return Ok(Isa::best());
    };
    match asked.parse::<Isa>() {
        Ok(isa) if isa.is_available() => Ok(isa),
        _ => Err(UnsupportedIsa { asked, available: Isa::available() }),
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A name that is no instruction set was given where one is needed.
///
/// Use one of the names of [`Isa::name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{asked:?} is not an instruction set: use one of portable avx2 avx512 neon")]
pub struct UnknownIsa {
    /// The name as it was given.
    pub asked: String,
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Isa, UnknownIsa> {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| UnknownIsa { asked: name.to_owned() })
    }
}

/// `UNISONO_ISA` asks for kernels that this machine cannot run.
///
/// Unset the variable, or set it to one of the instruction sets that the error lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedIsa {
    /// The value of the variable.
    pub asked: String,
    /// What this machine can run, best first.
    pub available: Vec<Isa>,
}

impl fmt::Display for UnsupportedIsa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{VARIABLE}={} cannot be used on this machine, which has:", self.asked)?;
        self.available.iter().try_for_each(|isa| write!(formatter, " {isa}"))
    }
}

impl std::error::Error for UnsupportedIsa {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portable_kernels_are_always_there_and_come_last() {
        assert_eq!(Isa::available().last(), Some(&Isa::Portable));
        assert_eq!(Isa::available().first(), Some(&Isa::best()));
    }

    #[test]
    fn a_forced_instruction_set_is_taken_or_refused_by_name() {
        assert_eq!(select(Some("portable".to_owned())), Ok(Isa::Portable));
        assert_eq!(select(None), Ok(Isa::best()));
        assert_eq!(select(Some(String::new())), Ok(Isa::best()));
        let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx512" };
        for name in [foreign, "sse9"] {
            let refusal = select(Some(name.to_owned())).expect_err("no machine has it");
            let text = refusal.to_string();
            assert!(text.contains(name) && text.contains("portable"), "{text}");
        }
    }
}
