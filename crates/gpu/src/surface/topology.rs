//! Whether every device reaches every other directly: what more than two ranks need.

use crate::driver::{Driver, Link};
use crate::error::Error;

/// Whether this device reaches all others directly; `identities` are those of all ranks' devices, in any order, the own one
/// among them. Ranks ask each for itself and put their answers together: all must say yes.
///
/// # Errors
///
/// [`Error::Driver`], [`Error::NoLibrary`] where the platform cannot say.
pub fn reaches_all_directly<D: Driver>(driver: &D, identities: &[String]) -> Result<bool, Error> {
    let own = driver.identity()?;
    for peer in identities {
        // Ranks that share a device reach each other within it.
        if *peer != own && driver.link(peer)? != Link::Direct {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The largest message that goes by the custom all-reduce: SGLang's limit, 8 MiB on NVIDIA's platform and 16 MiB on AMD's.
pub const fn largest_message(is_rocm: bool) -> usize {
    if is_rocm { 16 << 20 } else { 8 << 20 }
}
