//! Where buffers may lie: aligned, apart from one another, and not where the all-reduce itself works.

use super::{AllReduce, Staging};
use crate::driver::Driver;
use crate::error::Error;
use crate::layout::META_BYTES;

/// What nothing may touch, in errors.
const OWN: &str = "the all-reduce's own memory for signals and scratch";
const STAGING: &str = "the staging buffer";

impl<D: Driver> AllReduce<D> {
    /// Neither may lie where this rank's signals and scratch are, and what is staged is read by the peers while the output is
    /// written.
    pub(super) fn check_own_memory(
        &self,
        input: (u64, usize),
        output: (u64, usize),
        staging: Option<Staging>,
    ) -> Result<(), Error> {
        let check =
            |what, (address, bytes), memory, begin, length| match touch((address, bytes), (begin, length)) {
                true => Err(Error::InUse { what, address, bytes, memory }),
                false => Ok(()),
            };
        let (own, own_bytes) = (self.signals[self.rank], META_BYTES + self.scratch_used);
        for (what, buffer) in [("input", input), ("output", output)] {
            check(what, buffer, OWN, own, own_bytes)?;
        }
        let Some(staging) = staging else { return Ok(()) };
        check("output", output, STAGING, staging.address, input.1)?;
        if input.0 == staging.address {
            return Ok(());
        }
        check("input", input, STAGING, staging.address, input.1)
    }
}

pub(super) fn bytes_from<D: Driver>(driver: &D, address: u64) -> Result<usize, Error> {
    let allocation = driver.allocation_of(address)?;
    Ok(allocation.bytes - (address - allocation.base) as usize)
}

pub(super) fn check_aligned(what: &'static str, address: u64) -> Result<(), Error> {
    if address.is_multiple_of(16) { Ok(()) } else { Err(Error::Misaligned { what, address }) }
}

/// Whether they have bytes in common: address and length of each.
fn touch(one: (u64, usize), other: (u64, usize)) -> bool {
    let end = |(address, bytes): (u64, usize)| address.saturating_add(bytes as u64);
    one.0 < end(other) && other.0 < end(one)
}

/// Address and length of each.
pub(super) fn check_apart(input: (u64, usize), output: (u64, usize)) -> Result<(), Error> {
    if touch(input, output) {
        return Err(Error::Overlap { input: input.0, output: output.0, bytes: input.1.min(output.1) });
    }
    Ok(())
}

pub(crate) fn check_buffers(input: u64, output: u64, bytes: usize) -> Result<(), Error> {
    check_aligned("input", input)?;
    check_aligned("output", output)?;
    if input == output { Ok(()) } else { check_apart((input, bytes), (output, bytes)) }
}
