//! (being laid)
use crate::workspace::Workspace;
use anyhow::{Result, bail};
pub(crate) fn run(_workspace: &Workspace) -> Result<()> {
    bail!("no demo yet")
}
