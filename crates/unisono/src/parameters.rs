//! What all ranks of a communicator agree on: the switch between algorithms and the size of the staging.
//!
//! Rank 0's parameters are handed to all ranks when they meet and never change, so that the choice of an
//! algorithm is a pure function of the call and of them. A rank's own environment decides nothing alone.

use serde::{Deserialize, Serialize};

use crate::call::Algorithm;
use crate::error::{Error, Result};

/// The largest world size.
pub const MAX_WORLD_SIZE: usize = unisono_protocol::MAX_RANKS;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Sizes and switches of a communicator, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Parameters {
    /// The algorithm of every all-reduce and reduce, whatever its size; `None` chooses by size.
    pub algorithm: Option<Algorithm>,
    /// A message from one rank to another of up to this many bytes says by itself that it has come (packet).
    pub packet_bytes: usize,
    /// An all-reduce or reduce of up to this many bytes goes in one step (packet or swap), a larger one in two (migrate).
    pub small_bytes: usize,
    /// An all-reduce or reduce above this many bytes goes in chunks that overlap (pipeline). Also the staging of
    /// migrate: all slots of a rank together.
    pub chunk_bytes: usize,
    /// The chunks of a pipeline.
    pub pipeline_bytes: usize,
    /// Staging of each pair of ranks and direction for swap; larger data goes in pieces of this size.
    pub swap_bytes: usize,
    /// Each of the two buffers a root broadcasts through.
    pub broadcast_bytes: usize,
    /// The window of each ordered pair for send and recv: a send of up to this size returns at once.
    pub window_bytes: usize,
    /// From this many bytes on, an all-reduce on registered memory works in place on all ranks' memory (push); the other
    /// operations on registered memory do from 32 times as many.
    pub push_bytes: usize,
}

impl Parameters {
    /// The defaults for a world size: under 16 MiB per rank for up to 8 ranks.
    pub fn for_world(world_size: usize) -> Self {
        let peers = world_size.saturating_sub(1).max(1);
        let share =
            |total: usize, least: usize, most: usize| (total / peers).next_power_of_two().clamp(least, most);
        Parameters {
            algorithm: None,
            // A packet costs its reader no look at the arrival line, but its writer a tag per peer.
            packet_bytes: match peers {
                1 => 4 * KIB,
                2..=7 => KIB,
                _ => 0,
            },
            // Swap moves (N-1) copies of the message per rank, migrate 2 (N-1)/N in one step more.
            small_bytes: match peers {
                1 => 16 * KIB,
                2..=3 => 4 * KIB,
                _ => 2 * KIB,
            },
            // Above this the staging would not stay in a core's own cache; 128 KiB slices do (measured: 1 to 64 MiB).
            chunk_bytes: MIB,
            pipeline_bytes: 128 * KIB * world_size.max(2),
            // Larger pieces would not stay in a core's own cache (measured: all-gather of 1 MiB, 64 µs against 76).
            swap_bytes: share(512 * KIB, 16 * KIB, 128 * KIB),
            broadcast_bytes: 256 * KIB,
            window_bytes: share(512 * KIB, 16 * KIB, 128 * KIB),
            push_bytes: 64 * KIB,
        }
    }

    /// The defaults, with what the environment says: `UNISONO_PACKET_BYTES`, `UNISONO_SMALL_BYTES`,
    /// `UNISONO_CHUNK_BYTES`, `UNISONO_PIPELINE_BYTES`, `UNISONO_SWAP_BYTES`, `UNISONO_BROADCAST_BYTES`,
    /// `UNISONO_WINDOW_BYTES`, `UNISONO_PUSH_BYTES` (bytes, or with KiB or MiB), and `UNISONO_ALGORITHM` (`auto`, `packet`,
    /// `swap`, `migrate` or `pipeline`).
    ///
    /// # Errors
    /// [`Error::Setting`] names a variable that is not a size, or not an algorithm.
    pub fn from_env(world_size: usize) -> Result<Self> {
        let mut parameters = Parameters::for_world(world_size);
        if let Some(value) = std::env::var_os("UNISONO_ALGORITHM") {
            parameters.algorithm = parse_algorithm(&value.to_string_lossy())?;
        }
        for (name, field) in [
            ("UNISONO_PACKET_BYTES", &mut parameters.packet_bytes),
            ("UNISONO_SMALL_BYTES", &mut parameters.small_bytes),
            ("UNISONO_CHUNK_BYTES", &mut parameters.chunk_bytes),
            ("UNISONO_PIPELINE_BYTES", &mut parameters.pipeline_bytes),
            ("UNISONO_SWAP_BYTES", &mut parameters.swap_bytes),
            ("UNISONO_BROADCAST_BYTES", &mut parameters.broadcast_bytes),
            ("UNISONO_WINDOW_BYTES", &mut parameters.window_bytes),
            ("UNISONO_PUSH_BYTES", &mut parameters.push_bytes),
        ] {
            if let Some(value) = std::env::var_os(name) {
                let value = value.to_string_lossy().into_owned();
                *field = bytes_of(name, &value)?;
            }
        }
        parameters.check()?;
        Ok(parameters)
    }

    /// Refuse sizes that cannot work: each between a cache line and 1 GiB.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(algorithm) = self.algorithm
            && !REDUCING.contains(&algorithm)
        {
            return Err(unknown_algorithm("algorithm", algorithm.name()));
        }
        for (name, bytes, least) in [
            ("packet_bytes", self.packet_bytes, 0),
            ("small_bytes", self.small_bytes, 0),
            ("chunk_bytes", self.chunk_bytes, 64),
            ("pipeline_bytes", self.pipeline_bytes, 64),
            ("swap_bytes", self.swap_bytes, 64),
            ("broadcast_bytes", self.broadcast_bytes, 64),
            ("window_bytes", self.window_bytes, 128),
            ("push_bytes", self.push_bytes, 0),
        ] {
            if bytes < least || bytes > 1024 * MIB {
                return Err(Error::Setting {
                    name: name.to_string(),
                    value: bytes.to_string(),
                    problem: format!("expected {least} bytes to 1 GiB"),
                });
            }
        }
        Ok(())
    }
}

/// What a variable says, as a size in bytes.
pub(crate) fn bytes_of(name: &str, value: &str) -> Result<usize> {
    parse_bytes(value).ok_or_else(|| Error::Setting {
        name: name.to_string(),
        value: value.to_string(),
        problem: "expected a size such as 16384, 16KiB or 4MiB".to_string(),
    })
}

impl Parameters {
    /// How an all-reduce or reduce of `bytes` bytes travels.
    #[inline]
    pub(crate) fn reduction_by(&self, bytes: usize, world: usize) -> Algorithm {
        match self.algorithm {
            // A single rank stages nothing, so that one step is as good for any size.
            _ if world == 1 => Algorithm::Swap,
            Some(algorithm) => algorithm,
            None if bytes <= self.packet_bytes => Algorithm::Packet,
            None if bytes <= self.small_bytes => Algorithm::Swap,
            None if bytes <= self.chunk_bytes => Algorithm::Migrate,
            None => Algorithm::Pipeline,
        }
    }

    /// Whether a message of `bytes` bytes from one rank to another is a packet.
    #[inline]
    pub(crate) fn is_packet(&self, bytes: usize) -> bool {
        match self.algorithm {
            None => bytes <= self.packet_bytes,
            Some(algorithm) => algorithm == Algorithm::Packet,
        }
    }
}

/// The algorithms that reduce.
const REDUCING: [Algorithm; 4] =
    [Algorithm::Packet, Algorithm::Swap, Algorithm::Migrate, Algorithm::Pipeline];

fn unknown_algorithm(name: &str, value: &str) -> Error {
    Error::Setting {
        name: name.to_string(),
        value: value.to_string(),
        problem: format!("expected auto or one of {}", REDUCING.map(Algorithm::name).join(", ")),
    }
}

fn parse_algorithm(text: &str) -> Result<Option<Algorithm>> {
    match text.trim() {
        "auto" => Ok(None),
        name => match REDUCING.into_iter().find(|algorithm| algorithm.name() == name) {
            Some(algorithm) => Ok(Some(algorithm)),
            None => Err(unknown_algorithm("UNISONO_ALGORITHM", text)),
        },
    }
}

/// A size in bytes: a number, or one with KiB, MiB or GiB.
fn parse_bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => KIB,
        "m" | "mib" => MIB,
        "g" | "gib" => 1024 * MIB,
        _ => return None,
    };
    digits.trim().parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("16384"), Some(16384));
        assert_eq!(parse_bytes("16KiB"), Some(16384));
        assert_eq!(parse_bytes(" 4 MiB "), Some(4 * MIB));
        for nonsense in
            ["", "KiB", "-1", "1.5MiB", "12parsecs", "99999999999999999999", "18446744073709551615k"]
        {
            assert_eq!(parse_bytes(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn every_default_passes_its_own_check() {
        for world_size in 1..=MAX_WORLD_SIZE {
            Parameters::for_world(world_size).check().unwrap();
        }
    }
}
