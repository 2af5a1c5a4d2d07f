//! What a writer and its readers do when they are asked, the same for every library that is called from Rust: the loops, the
//! checks and the lines of words. (`bench/callers/queue.py` says the same in Python.)
//!
//! | asked | the writer answers | a reader answers |
//! |---|---|---|
//! | `echo MANNER BYTES WARM_UP MESSAGES` | `samples MESSAGES WRONG`, then half a round trip of each in 32-bit nanoseconds | `wrong MESSAGES` |
//! | `stream BYTES MESSAGES` | `samples 1 0`, then the nanoseconds of a thousand messages | `wrong MESSAGES` |
//! | `rest MILLISECONDS` | `samples 1 0`, then its processor time in microseconds, while no message comes | the same |
//! | `quit` | nothing: all end | |
//!
//! The one invariant that matters: a message is the same bytes for everybody, and every one that arrives is looked at. This file is
//! compiled into the callers of the other libraries, too, and knows none of them.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// How a message gets in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// From a buffer of the sender into one of the receiver.
    Copied,
    /// Its first eight bytes are written and read where it lies, the others stay as they are.
    InPlace,
}

/// What a caller is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A message to all readers, and its echo from each.
    Echo {
        manner: Manner,
        bytes: usize,
        warm_up: usize,
        messages: usize,
    },
    /// As many messages in one direction.
    Stream {
        bytes: usize,
        messages: usize,
    },
    /// Nothing is sent for a while, and the readers wait.
    Rest {
        milliseconds: u64,
    },
    Quit,
}

/// The ends of a library's queues that one process holds: the writer that of a queue to all readers, and of one from each reader;
/// a reader those that belong to it.
pub(crate) trait Ends {
    /// Send a copy; waits while somebody is too far behind.
    fn send(&mut self, message: &[u8]) -> anyhow::Result<()>;
    /// Receive into a buffer of this length, from a reader, or from the writer (0); waits until there is something.
    fn receive(&mut self, from: usize, into: &mut [u8]) -> anyhow::Result<()>;
    /// Send a message of so many bytes of which only the first eight are written.
    fn send_in_place(&mut self, bytes: usize, first: [u8; 8]) -> anyhow::Result<()>;
    /// Receive one of so many bytes, and read only the first eight.
    fn receive_in_place(&mut self, from: usize, bytes: usize) -> anyhow::Result<[u8; 8]>;
    /// Why nobody can wait without burning time, if so.
    fn cannot_rest(&self) -> Option<&'static str>;
}

/// Which process of a group this is.
pub(crate) struct Seat {
    pub(crate) rank: usize,
    pub(crate) readers: usize,
    /// What no other group of this machine goes by.
    pub(crate) name: String,
}

impl Manner {
    fn name(self) -> &'static str {
        match self {
            Manner::Copied => "copied",
            Manner::InPlace => "in_place",
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Echo { manner, bytes, warm_up, messages } => {
                writeln!(f, "echo {} {bytes} {warm_up} {messages}", manner.name())
            }
            Request::Stream { bytes, messages } => writeln!(f, "stream {bytes} {messages}"),
            Request::Rest { milliseconds } => writeln!(f, "rest {milliseconds}"),
            Request::Quit => writeln!(f, "quit"),
        }
    }
}

impl FromStr for Request {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["echo", manner, bytes, warm_up, messages] => Ok(Request::Echo {
                manner: match *manner {
                    "copied" => Manner::Copied,
                    "in_place" => Manner::InPlace,
                    _ => bail!("{manner:?} is no manner"),
                },
                bytes: bytes.parse()?,
                warm_up: warm_up.parse()?,
                messages: messages.parse()?,
            }),
            ["stream", bytes, messages] => {
                Ok(Request::Stream { bytes: bytes.parse()?, messages: messages.parse()? })
            }
            ["rest", milliseconds] => Ok(Request::Rest { milliseconds: milliseconds.parse()? }),
            ["quit"] => Ok(Request::Quit),
            _ => bail!("{line:?} is no request"),
        }
    }
}

impl Seat {
    /// As the driver says, on the core that it says.
    pub(crate) fn take() -> anyhow::Result<Seat> {
        // As the driver has; without privileges nothing changes.
        let _ = unisono_os::process::raise_priority();
        let number = |name| anyhow::Ok(setting(name)?.parse::<usize>()?);
        let (rank, ranks) = (number("RANK")?, number("WORLD_SIZE")?);
        ensure!(rank < ranks && ranks > 1, "rank {rank} of {ranks}");
        let cpus = setting("BENCH_CPUS")?;
        let cpus: Vec<usize> = cpus.split(',').map(str::parse).collect::<Result<_, _>>()?;
        ensure!(!cpus.is_empty(), "BENCH_CPUS names no core");
        unisono_os::cpu::pin_current_thread(&[cpus[rank % cpus.len()]])?;
        Ok(Seat { rank, readers: ranks - 1, name: format!("{}-{ranks}", setting("MASTER_PORT")?) })
    }

    /// Do what the driver asks until it says that this is the end.
    pub(crate) fn serve(&self, ends: &mut impl Ends) -> anyhow::Result<()> {
        let stream = UnixStream::connect(setting("BENCH_SOCKET")?).context("the driver's socket")?;
        let mut answers = stream.try_clone().context("the driver's socket")?;
        let session = unisono_os::process::session();
        writeln!(answers, "rank {} {} {session}", self.rank, std::process::id())?;
        let mut requests = BufReader::new(stream);
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(requests.read_line(&mut line)? > 0, "the driver has gone");
            let answer = match line.parse()? {
                Request::Quit => return Ok(()),
                Request::Rest { .. } if ends.cannot_rest().is_some() => {
                    format!("lacks {}\n", ends.cannot_rest().unwrap_or_default()).into_bytes()
                }
                Request::Rest { milliseconds } => self.rest(ends, Duration::from_millis(milliseconds))?,
                Request::Stream { bytes, messages } => self.stream(ends, bytes, messages)?,
                Request::Echo { manner: Manner::Copied, bytes, warm_up, messages } => {
                    let mut copies = Copies { message: vec![0; bytes], buffer: vec![0; bytes] };
                    self.echo(ends, &mut copies, warm_up, messages)?
                }
                Request::Echo { manner: Manner::InPlace, bytes, warm_up, messages } => {
                    self.echo(ends, &mut Places { bytes, first: [0; 8] }, warm_up, messages)?
                }
            };
            answers.write_all(&answer)?;
        }
    }

    fn echo<E: Ends>(
        &self,
        ends: &mut E,
        traffic: &mut impl Traffic<E>,
        warm_up: usize,
        messages: usize,
    ) -> anyhow::Result<Vec<u8>> {
        if self.rank > 0 {
            for _ in 0..warm_up + messages {
                traffic.receive(ends, 0)?;
                traffic.send_back(ends)?;
            }
            return Ok(b"wrong 0\n".to_vec()); // The writer looks at what comes back.
        }
        let (mut wrong, mut samples) = (0, Vec::with_capacity(messages));
        for number in 0..warm_up + messages {
            traffic.mark(number);
            let start = Instant::now();
            traffic.send(ends)?;
            for reader in 0..self.readers {
                traffic.receive(ends, reader)?;
            }
            let round_trip = start.elapsed();
            wrong += usize::from(!traffic.is_right(number));
            if number >= warm_up {
                samples.push(round_trip / 2);
            }
        }
        Ok(samples_in_words(&samples, wrong))
    }

    /// The writer's time ends when every reader has said that it has all.
    fn stream(&self, ends: &mut impl Ends, bytes: usize, messages: usize) -> anyhow::Result<Vec<u8>> {
        let mut message = vec![0; bytes];
        if self.rank > 0 {
            let mut wrong = 0;
            for number in 0..messages {
                ends.receive(0, &mut message)?;
                wrong += usize::from(!is_marked(&message, number));
            }
            ends.send(&[1; 8])?;
            return Ok(format!("wrong {wrong}\n").into_bytes());
        }
        let start = Instant::now();
        for number in 0..messages {
            mark(&mut message, number);
            ends.send(&message)?;
        }
        for reader in 0..self.readers {
            ends.receive(reader, &mut [0; 8])?;
        }
        let of_a_thousand = start.elapsed().as_nanos() * 1000 / messages.max(1) as u128;
        Ok(samples_in_words(&[Duration::from_nanos(u64::try_from(of_a_thousand)?)], 0))
    }

    fn rest(&self, ends: &mut impl Ends, time: Duration) -> anyhow::Result<Vec<u8>> {
        let before = processor_time()?;
        if self.rank == 0 {
            std::thread::sleep(time);
            ends.send(&[1; 8])?;
        } else {
            ends.receive(0, &mut [0; 8])?;
        }
        let used = processor_time()?.saturating_sub(before);
        // Microseconds: nanoseconds of seconds would not fit.
        Ok(samples_in_words(&[used / 1000], 0))
    }
}

/// Messages of an echo, in one manner or the other.
trait Traffic<E> {
    fn mark(&mut self, number: usize);
    fn is_right(&self, number: usize) -> bool;
    fn send(&mut self, ends: &mut E) -> anyhow::Result<()>;
    fn send_back(&mut self, ends: &mut E) -> anyhow::Result<()>;
    fn receive(&mut self, ends: &mut E, from: usize) -> anyhow::Result<()>;
}

struct Copies {
    message: Vec<u8>,
    buffer: Vec<u8>,
}

impl<E: Ends> Traffic<E> for Copies {
    fn mark(&mut self, number: usize) {
        mark(&mut self.message, number);
    }

    fn is_right(&self, _number: usize) -> bool {
        self.buffer == self.message
    }

    fn send(&mut self, ends: &mut E) -> anyhow::Result<()> {
        ends.send(&self.message)
    }

    fn send_back(&mut self, ends: &mut E) -> anyhow::Result<()> {
        ends.send(&self.buffer)
    }

    fn receive(&mut self, ends: &mut E, from: usize) -> anyhow::Result<()> {
        ends.receive(from, &mut self.buffer)
    }
}

struct Places {
    bytes: usize,
    first: [u8; 8],
}

impl<E: Ends> Traffic<E> for Places {
    fn mark(&mut self, number: usize) {
        self.first = (number as u64).to_le_bytes();
    }

    fn is_right(&self, number: usize) -> bool {
        self.first == (number as u64).to_le_bytes()
    }

    fn send(&mut self, ends: &mut E) -> anyhow::Result<()> {
        ends.send_in_place(self.bytes, self.first)
    }

    fn send_back(&mut self, ends: &mut E) -> anyhow::Result<()> {
        ends.send_in_place(self.bytes, self.first)
    }

    fn receive(&mut self, ends: &mut E, from: usize) -> anyhow::Result<()> {
        self.first = ends.receive_in_place(from, self.bytes)?;
        Ok(())
    }
}

fn setting(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: callers are started by the driver"))
}

/// Write the message's number into its first bytes and into its last.
fn mark(message: &mut [u8], number: usize) {
    let number = (number as u64).to_le_bytes();
    let first = message.len().min(8);
    message[..first].copy_from_slice(&number[..first]);
    if let Some(last) = message.last_mut() {
        *last = number[0];
    }
}

fn is_marked(message: &[u8], number: usize) -> bool {
    let number = (number as u64).to_le_bytes();
    message.len() > 8 && message[..8] == number && message.last() == Some(&number[0])
}

fn samples_in_words(samples: &[Duration], wrong: usize) -> Vec<u8> {
    let mut answer = format!("samples {} {wrong}\n", samples.len()).into_bytes();
    let nanoseconds = |sample: &Duration| u32::try_from(sample.as_nanos()).unwrap_or(u32::MAX);
    answer.extend(samples.iter().flat_map(|sample| nanoseconds(sample).to_ne_bytes()));
    answer
}

/// What all threads of this process have run.
fn processor_time() -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir("/proc/self/task").context("looking at the own threads")? {
        // A thread that has ended in between is passed over. The first number is the time on a core.
        let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let ran = text.split(' ').next().and_then(|word| word.parse::<u64>().ok());
        nanoseconds += ran.context("the system does not count what threads run")?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_arrives_as_it_was_sent() {
        for request in [
            Request::Echo { manner: Manner::InPlace, bytes: 64, warm_up: 3, messages: 40 },
            Request::Echo { manner: Manner::Copied, bytes: 1 << 20, warm_up: 0, messages: 1 },
            Request::Stream { bytes: 1024, messages: 7 },
            Request::Rest { milliseconds: 5000 },
            Request::Quit,
        ] {
            assert_eq!(request.to_string().parse::<Request>().unwrap(), request);
        }
        assert!("echo copied 64 1".parse::<Request>().is_err());
        assert!("echo thrown 64 1 1".parse::<Request>().is_err());
    }

    #[test]
    fn a_message_of_another_number_is_wrong() {
        let mut message = [0; 64];
        mark(&mut message, 0x1234);
        assert!(is_marked(&message, 0x1234) && !is_marked(&message, 0x1235));
        message[63] = 0;
        assert!(!is_marked(&message, 0x1234));
    }
}
