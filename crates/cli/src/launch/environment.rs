//! What a rank finds in its environment: torchrun's variables, so that programs written for it run unchanged.
//!
//! The one invariant that matters: no two runs on a machine have the same run id, so their ranks never meet.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

/// The environment that all ranks of a run share.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// The number of ranks.
    pub(crate) ranks: usize,
    /// `MASTER_PORT`.
    pub(crate) port: u16,
    /// `TORCHELASTIC_RUN_ID`.
    pub(crate) run_id: String,
    /// `UNISONO_GROUP`, if the user named one.
    pub(crate) group: Option<String>,
    /// `UNISONO_SUPERVISOR`: where communicators hand in their memory for the last operation to be read.
    pub(crate) supervisor: Option<String>,
}

impl Environment {
    /// An environment for `ranks` ranks, with a run id and a port of its own.
    ///
    /// # Errors
    /// When no port of 127.0.0.1 is free.
    pub(crate) fn new(ranks: usize) -> anyhow::Result<Self> {
        Ok(Environment { ranks, port: free_port()?, run_id: unique_run_id(), group: None, supervisor: None })
    }

    /// Give `command` what rank number `rank` is to find.
    pub(crate) fn apply(&self, rank: usize, command: &mut Command) {
        let (rank, ranks) = (rank.to_string(), self.ranks.to_string());
        command.envs([
            ("RANK", rank.as_str()),
            ("LOCAL_RANK", &rank),
            ("ROLE_RANK", &rank),
            ("WORLD_SIZE", &ranks),
            ("LOCAL_WORLD_SIZE", &ranks),
            ("ROLE_WORLD_SIZE", &ranks),
            ("ROLE_NAME", "default"),
            ("GROUP_RANK", "0"),
            ("GROUP_WORLD_SIZE", "1"),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", &self.port.to_string()),
            ("TORCHELASTIC_RUN_ID", &self.run_id),
            ("TORCHELASTIC_RESTART_COUNT", "0"),
            ("TORCHELASTIC_MAX_RESTARTS", "0"),
            // No agent of torchrun listens at MASTER_PORT: rank 0 is to open the store itself.
            ("TORCHELASTIC_USE_AGENT_STORE", "False"),
        ]);
        // A run inside a run is its own: what the outer one said of ids must not reach these ranks.
        command.env_remove("UNISONO_RUN_ID");
        for (name, value) in [("UNISONO_GROUP", &self.group), ("UNISONO_SUPERVISOR", &self.supervisor)] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }
}

/// A port of 127.0.0.1 that nobody listens on at this moment. The kernel hands them out in turn, so that it is
/// not likely to give the same one to somebody else before rank 0 has taken it.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr().context("no free port on 127.0.0.1")?.port())
}

/// This process and this moment: unique on this machine, also among containers that number processes alike.
fn unique_run_id() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("unisono-{}-{:x}", std::process::id(), since_epoch.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::ffi::OsStr;

    #[test]
    fn a_rank_finds_what_torchrun_would_have_told_it() {
        let environment = Environment { group: Some("tensor".to_string()), ..Environment::new(4).unwrap() };
        let mut command = Command::new("true");
        environment.apply(2, &mut command);
        let variables: HashMap<&OsStr, Option<&OsStr>> = command.get_envs().collect();
        let value = |name: &str| variables[OsStr::new(name)].and_then(OsStr::to_str);
        for (name, expected) in [
            ("RANK", "2"),
            ("LOCAL_RANK", "2"),
            ("WORLD_SIZE", "4"),
            ("LOCAL_WORLD_SIZE", "4"),
            ("GROUP_RANK", "0"),
            ("MASTER_ADDR", "127.0.0.1"),
            ("UNISONO_GROUP", "tensor"),
        ] {
            assert_eq!(value(name), Some(expected), "{name}");
        }
        assert_ne!(value("MASTER_PORT"), Some("0"));
        assert_eq!(value("UNISONO_SUPERVISOR"), None);
    }

    #[test]
    fn no_two_runs_share_an_id() {
        assert_ne!(unique_run_id(), unique_run_id());
    }
}
