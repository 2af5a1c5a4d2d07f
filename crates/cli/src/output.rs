//! What the program prints, and how.
//!
//! Every subcommand writes results through [`result_line`] and messages through [`complain`]. The one invariant
//! that matters: a reader that goes away (`| head`) ends the output, never the program with a panic.

use std::io::{ErrorKind, Write};

/// Write one line (or several, with line ends in them) of results to standard output.
///
/// # Errors
/// When standard output cannot be written, but not when its reader has gone away.
pub(crate) fn result_line(text: &str) -> anyhow::Result<()> {
    let mut standard_output = std::io::stdout().lock();
    let written = standard_output
        .write_all(text.as_bytes())
        .and_then(|()| standard_output.write_all(b"\n"))
        .and_then(|()| standard_output.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Write a message to standard error, with the program's name before it. Where that fails there is nobody
/// left to tell.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "unisono: {message}");
}

/// An error with its causes, each said once: many errors quote their cause in their own text.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Numbers as a person lists them: `0, 1 and 3`.
fn list(numbers: &[usize]) -> String {
    let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "none".to_string(),
    }
}

/// Ranks as a person lists them: `rank 1`, `ranks 0 and 2`.
pub(crate) fn ranks(numbers: &[usize]) -> String {
    format!("{} {}", if numbers.len() == 1 { "rank" } else { "ranks" }, list(numbers))
}

/// `1 rank`, `2 ranks`.
pub(crate) fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn a_cause_that_is_quoted_already_is_not_said_twice() {
        let error = anyhow!("no such file").context("cannot open x: no such file").context("starting");
        assert_eq!(chain(&error), "starting: cannot open x: no such file");
    }

    #[test]
    fn numbers_are_listed_as_a_person_does() {
        assert_eq!(list(&[]), "none");
        assert_eq!(list(&[3]), "3");
        assert_eq!(list(&[0, 1, 3]), "0, 1 and 3");
        assert_eq!((ranks(&[1]), ranks(&[0, 2])), ("rank 1".to_string(), "ranks 0 and 2".to_string()));
        assert_eq!((counted(1, "rank"), counted(2, "rank")), ("1 rank".to_string(), "2 ranks".to_string()));
    }
}
