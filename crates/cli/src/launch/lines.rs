//! The ranks' output, line by line, each with its rank before it.
//!
//! A thread per pipe reads lines and writes them to this program's own stream. The one invariant that matters:
//! a line is written with a single call under the stream's lock, so lines of different ranks never mix.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::thread::JoinHandle;

/// A line longer than this is passed on in pieces, so that a rank that never ends its line cannot fill our memory.
const LONGEST_LINE: u64 = 64 * 1024;

/// Colours that can be read on dark and on light ground: cyan, yellow, green, magenta, blue, red.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// Where lines go: the stream of the same kind as the rank's own.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Stream {
    fn write(self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Stream::Output => {
                let mut stream = std::io::stdout().lock();
                stream.write_all(bytes)?;
                stream.flush()
            }
            Stream::Error => std::io::stderr().lock().write_all(bytes),
        }
    }

    /// Whether lines are to be coloured: the stream is a terminal and the user has not set `NO_COLOR`.
    fn is_coloured(self) -> bool {
        let terminal = match self {
            Stream::Output => std::io::stdout().is_terminal(),
            Stream::Error => std::io::stderr().is_terminal(),
        };
        terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }
}

/// Pass on everything that comes from `pipe`, until it ends, on a thread of its own.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn pass_on(
    rank: usize,
    pipe: impl Read + Send + 'static,
    stream: Stream,
) -> std::io::Result<JoinHandle<()>> {
    let prefix = prefix(rank, stream.is_coloured());
    std::thread::Builder::new().name(format!("output of {rank}")).spawn(move || {
        // A reader of ours that has gone away must not stop the rank: its pipe is read to the end regardless.
        copy_lines(pipe, prefix.as_bytes(), |line| {
            let _ = stream.write(line);
        });
    })
}

fn prefix(rank: usize, coloured: bool) -> String {
    if coloured {
        format!("\x1b[{}m[{rank}]\x1b[0m ", COLOURS[rank % COLOURS.len()])
    } else {
        format!("[{rank}] ")
    }
}

/// Hand each line of `from`, with `prefix` before it and a line end behind it, to `write`.
fn copy_lines(from: impl Read, prefix: &[u8], mut write: impl FnMut(&[u8])) {
    let mut from = BufReader::new(from);
    let mut line = prefix.to_vec();
    // A pipe that cannot be read any more has ended as far as anybody can tell.
    while let Ok(1..) = (&mut from).take(LONGEST_LINE).read_until(b'\n', &mut line) {
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        write(&line);
        line.truncate(prefix.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        copy_lines(input, b"[3] ", |line| lines.push(String::from_utf8_lossy(line).into_owned()));
        lines
    }

    #[test]
    fn every_line_gets_its_rank_and_the_last_one_its_end() {
        assert_eq!(lines(b"one\n\ntwo"), ["[3] one\n", "[3] \n", "[3] two\n"]);
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn bytes_that_are_no_text_pass_unchanged() {
        let mut seen = Vec::new();
        copy_lines(&[0xff, 0, b'\n'][..], b"", |line| seen.extend_from_slice(line));
        assert_eq!(seen, [0xff, 0, b'\n']);
    }

    #[test]
    fn an_endless_line_is_passed_on_in_pieces() {
        let pieces = lines(&vec![b'x'; LONGEST_LINE as usize + 1]);
        assert_eq!(pieces.iter().map(String::len).collect::<Vec<_>>(), [LONGEST_LINE as usize + 5, 6]);
    }

    #[test]
    fn only_a_terminal_gets_colours() {
        assert_eq!(prefix(1, false), "[1] ");
        assert_eq!(prefix(1, true), "\x1b[33m[1]\x1b[0m ");
    }
}
