//! unisono's own side of the queue comparison.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use unisono::queue::{Handle, Reader, Writer};

use super::loops::{Ends, Seat};

/// No message of a measurement takes longer unless something is wrong.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a process holds: its own queue, and a reader of each queue that comes to it.
struct Queues {
    writer: Writer,
    readers: Vec<Reader>,
}

/// Be a process of unisono's group until told to end.
///
/// # Errors
/// When the others do not come, a message does not arrive, or the driver has gone.
pub(crate) fn run() -> anyhow::Result<()> {
    let seat = Seat::take()?;
    let socket = std::env::var("BENCH_SOCKET").map(PathBuf::from).context("BENCH_SOCKET is not set")?;
    let place = |rank: usize| socket.with_file_name(format!("{}.handle-{rank}", seat.name));
    let readers = if seat.rank == 0 { seat.readers } else { 1 };
    let mut writer = Writer::builder().readers(readers).timeout(TIMEOUT).create()?;
    lay_down(writer.handle(), &place(seat.rank))?;
    let writers = if seat.rank == 0 { 1..seat.readers + 1 } else { 0..1 };
    let mut opened = Vec::new();
    for rank in writers {
        let own = if seat.rank == 0 { 0 } else { seat.rank - 1 };
        let mut reader = Reader::open(&pick_up(&place(rank))?, own)?;
        reader.set_timeout(TIMEOUT);
        opened.push(reader);
    }
    writer.wait_until_ready(TIMEOUT)?;
    for reader in &mut opened {
        reader.wait_until_ready(TIMEOUT)?;
    }
    seat.serve(&mut Queues { writer, readers: opened })
}

fn lay_down(handle: &Handle, place: &Path) -> anyhow::Result<()> {
    let mut unfinished = place.as_os_str().to_owned();
    unfinished.push(".unfinished");
    std::fs::write(&unfinished, handle.to_bytes()).context("laying down a handle")?;
    std::fs::rename(&unfinished, place).context("laying down a handle")
}

fn pick_up(place: &Path) -> anyhow::Result<Handle> {
    let begin = Instant::now();
    while !place.exists() {
        ensure!(begin.elapsed() < TIMEOUT, "nobody has laid down {}", place.display());
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(Handle::from_bytes(&std::fs::read(place)?)?)
}

impl Ends for Queues {
    #[inline]
    fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        Ok(self.writer.send(message)?)
    }

    #[inline]
    fn receive(&mut self, from: usize, into: &mut [u8]) -> anyhow::Result<()> {
        let bytes = self.readers[from].recv_into(into)?;
        ensure!(bytes == into.len(), "a message of {bytes} bytes came instead of one of {}", into.len());
        Ok(())
    }

    #[inline]
    fn send_in_place(&mut self, bytes: usize, first: [u8; 8]) -> anyhow::Result<()> {
        let mut slot = self.writer.reserve(bytes)?;
        ensure!(slot.write_at(0, &first), "the slot is too short");
        slot.commit();
        Ok(())
    }

    #[inline]
    fn receive_in_place(&mut self, from: usize, bytes: usize) -> anyhow::Result<[u8; 8]> {
        let message = self.readers[from].recv()?;
        ensure!(
            message.len() == bytes,
            "a message of {} bytes came instead of one of {bytes}",
            message.len()
        );
        let mut first = [0; 8];
        message.copy_to(&mut first);
        Ok(first)
    }

    fn cannot_rest(&self) -> Option<&'static str> {
        None
    }
}
