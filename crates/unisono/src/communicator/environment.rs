//! What the environment says about this rank: torchrun's variables and unisono's own.

use std::time::Duration;

use super::Builder;
use super::threads::Settings;
use crate::error::{Error, Result};
use crate::parameters;

/// A builder with what the environment says.
pub(super) fn builder() -> Result<Builder> {
    let rank = required("RANK")?;
    let world_size = required("WORLD_SIZE")?;
    let local = optional::<usize>("LOCAL_WORLD_SIZE")?;
    if let Some(local) = local.filter(|local| *local != world_size) {
        return Err(Error::Setting {
            name: "LOCAL_WORLD_SIZE".to_string(),
            value: local.to_string(),
            problem: format!(
                "WORLD_SIZE is {world_size}, so the ranks span several machines, but a communicator lives on one: give \
                 the ranks of each machine a communicator of their own (builder: rank(LOCAL_RANK), \
                 world_size(LOCAL_WORLD_SIZE)) and connect the machines above it"
            ),
        });
    }
    let mut builder = Builder::new().rank(rank).world_size(world_size);
    if let Some(address) = text("MASTER_ADDR")? {
        builder = builder.address(&address);
    }
    if let Some(port) = optional("MASTER_PORT")? {
        builder = builder.port(port);
    }
    Ok(builder)
}

/// What `UNISONO_*` and torchrun's run id say, for every builder.
pub(super) fn apply(mut builder: Builder) -> Result<Builder> {
    if let Some(id) = text("UNISONO_RUN_ID")?.or(text("TORCHELASTIC_RUN_ID")?) {
        builder = builder.run_id(&id);
    }
    if let Some(name) = text("UNISONO_GROUP")? {
        builder = builder.group_name(&name);
    }
    if let Some(timeout) = duration("UNISONO_TIMEOUT")? {
        builder = builder.timeout(timeout);
    }
    if let Some(timeout) = duration("UNISONO_RENDEZVOUS_TIMEOUT")? {
        builder = builder.rendezvous_timeout(timeout.unwrap_or(Duration::MAX));
    }
    if let Some(directory) = text("UNISONO_DIR")? {
        builder = builder.directory(directory);
    }
    builder.sharing = Settings::from_env()?;
    Ok(builder)
}

fn text(name: &str) -> Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(value)) => Err(Error::Setting {
            name: name.to_string(),
            value: value.to_string_lossy().into_owned(),
            problem: "expected text in UTF-8".to_string(),
        }),
    }
}

pub(super) fn optional<T: std::str::FromStr>(name: &str) -> Result<Option<T>> {
    let Some(value) = text(name)? else { return Ok(None) };
    match value.trim().parse() {
        Ok(parsed) => Ok(Some(parsed)),
        Err(_) => Err(Error::Setting {
            name: name.to_string(),
            value,
            problem: "expected a whole number".to_string(),
        }),
    }
}

/// A size in bytes.
pub(super) fn bytes(name: &str) -> Result<Option<usize>> {
    text(name)?.map(|value| parameters::bytes_of(name, &value)).transpose()
}

fn required(name: &str) -> Result<usize> {
    optional(name)?.ok_or_else(|| Error::Setting {
        name: name.to_string(),
        value: String::new(),
        problem: "is not set: start the ranks with `unisono run -n N -- ...` or torchrun, or use Communicator::builder()"
            .to_string(),
    })
}

/// Seconds, or `none` for no limit.
fn duration(name: &str) -> Result<Option<Option<Duration>>> {
    let Some(value) = text(name)? else { return Ok(None) };
    if value.eq_ignore_ascii_case("none") {
        return Ok(Some(None));
    }
    let seconds =
        value.trim().parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match seconds.filter(|seconds| !seconds.is_zero()) {
        Some(seconds) => Ok(Some(Some(seconds))),
        None => Err(Error::Setting {
            name: name.to_string(),
            value,
            problem: "expected seconds, such as 30 or 0.5, or none".to_string(),
        }),
    }
}
