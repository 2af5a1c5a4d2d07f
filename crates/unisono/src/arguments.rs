//! What is checked before anything is published: lengths, roots, overlaps.
//!
//! An error from here leaves the communicator as it was, on every rank that got it; the message says what was
//! asked, what was found and what to do.

use crate::error::{BoxedResult, Error};
use crate::memory::{Source, Target};

/// `count` elements of `element` bytes for each of `ranks` ranks, as bytes.
#[inline]
pub(crate) fn total_bytes(
    operation: &'static str,
    count: usize,
    element: usize,
    ranks: usize,
) -> BoxedResult<usize> {
    count
        .checked_mul(element)
        .and_then(|bytes| bytes.checked_mul(ranks))
        .filter(|bytes| isize::try_from(*bytes).is_ok())
        .ok_or_else(|| {
            let problem =
                format!("{count} elements of {element} bytes for {ranks} ranks do not fit the address space");
            refusal(operation, problem)
        })
}

/// `found` elements where `expected` are needed.
pub(crate) fn length(operation: &'static str, what: &str, expected: usize, found: usize) -> BoxedResult<()> {
    if expected == found {
        return Ok(());
    }
    Err(refusal(operation, format!("expected {what} of {expected} elements, found {found}")))
}

/// The rank of another or any rank of the communicator.
pub(crate) fn rank(operation: &'static str, role: &str, rank: usize, world: usize) -> BoxedResult<()> {
    if rank < world {
        return Ok(());
    }
    Err(refusal(operation, format!("{role} {rank} does not exist: the ranks are 0 to {}", world - 1)))
}

/// Input and output must be the same memory or not overlap; `same_at` is where the input may lie in the output
/// (or the output in the input), in bytes; `None` if there is no form in place.
#[inline(always)]
pub(crate) fn overlap(
    operation: &'static str,
    input: Source<'_>,
    output: Target<'_>,
    same_at: Option<isize>,
) -> BoxedResult<()> {
    // The common case, in two instructions.
    if same_at == Some(0) && std::ptr::eq(input.start(), output.as_source().start()) {
        return Ok(());
    }
    overlap_elsewhere(operation, input, output, same_at)
}

fn overlap_elsewhere(
    operation: &'static str,
    input: Source<'_>,
    output: Target<'_>,
    same_at: Option<isize>,
) -> BoxedResult<()> {
    let (start, end) = (input.address(), input.address().saturating_add(input.len()));
    let output = output.as_source();
    let (first, last) = (output.address(), output.address().saturating_add(output.len()));
    let apart = input.len() == 0 || output.len() == 0 || end <= first || last <= start;
    let in_place = same_at.is_some_and(|same_at| first.checked_add_signed(same_at) == Some(start));
    if apart || in_place {
        return Ok(());
    }
    let or_in_place = same_at.map_or(String::new(), |same_at| {
        format!(", or the input must lie {same_at} bytes from the start of the output (in place)")
    });
    let (read, written) = (input.len(), output.len());
    let problem = format!(
        "input ({read} bytes) and output ({written} bytes) overlap: they must be separate{or_in_place}"
    );
    Err(refusal(operation, problem))
}

#[cold]
fn refusal(operation: &'static str, problem: String) -> Box<Error> {
    Box::new(Error::argument(operation, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_allowed_only_in_place() {
        let mut data = [0u8; 64];
        let target = Target::of(&mut data);
        let source = target.as_source();
        let check = |input, output, at| overlap("test", input, output, Some(at)).is_ok();
        assert!(check(source, target, 0));
        assert!(check(source.part(0, 32), target.part(32, 32), 0));
        assert!(!check(source.part(0, 33), target.part(32, 32), 0));
        assert!(check(source.part(16, 16), target, 16));
        assert!(!check(source.part(16, 16), target, 0));
        assert!(check(source.part(10, 0), target, 0), "empty memory overlaps nothing");
        assert!(overlap("test", source, target, None).is_err(), "no form in place");
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(total_bytes("test", usize::MAX / 2, 8, 1).is_err());
        assert!(total_bytes("test", usize::MAX / 8, 1, 64).is_err());
        assert_eq!(total_bytes("test", 10, 4, 3).unwrap(), 120);
    }
}
