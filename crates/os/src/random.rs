//! Random bytes from the system: names that nobody else draws, numbers that tell groups apart.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::OsError;

/// `N` bytes that nobody can guess.
///
/// # Errors
/// If the system has no source of randomness (before Linux 3.17, or in a sandbox that forbids it).
pub fn bytes<const N: usize>() -> Result<[u8; N], OsError> {
    let mut drawn = [0; N];
    let mut filled = 0;
    while filled < N {
        match getrandom(&mut drawn[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(OsError::from_errno("getrandom", errno, "")),
        }
    }
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(bytes::<16>().unwrap(), bytes::<16>().unwrap());
    }
}
