//! A side of a measured queue: the writer, or a reader that answers through a queue of its own.
//!
//! The one invariant that matters: every message is copied in and copied out, and looked at by its receiver: its number
//! and its last byte.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use unisono::queue::{Handle, Reader, Writer};
use unisono_measure::Samples;
use unisono_os::cpu;

use super::protocol::{Answer, QueueRequest};

/// No step of a measurement takes longer unless something is wrong.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What this worker is.
pub(super) enum Side {
    Writer { writer: Box<Writer>, replies: Vec<Reader> },
    Reader { reader: Box<Reader>, replies: Box<Writer> },
}

/// Do what is asked of this worker.
pub(super) fn answer(request: QueueRequest, side: &mut Option<Side>) -> anyhow::Result<Answer> {
    match request {
        QueueRequest::Write { cpu, readers } => {
            pin(cpu)?;
            let writer = Writer::builder().readers(readers).timeout(TIMEOUT).create()?;
            let handle = writer.handle().to_bytes();
            *side = Some(Side::Writer { writer: Box::new(writer), replies: Vec::new() });
            Ok(Answer::Handle(handle))
        }
        QueueRequest::Read { cpu, handle, rank } => {
            pin(cpu)?;
            let mut reader = Reader::open(&Handle::from_bytes(&handle)?, rank)?;
            reader.set_timeout(TIMEOUT);
            let replies = Writer::builder().rank(rank + 1).timeout(TIMEOUT).create()?;
            let handle = replies.handle().to_bytes();
            *side = Some(Side::Reader { reader: Box::new(reader), replies: Box::new(replies) });
            Ok(Answer::Handle(handle))
        }
        QueueRequest::Meet { handles } => meet(known(side)?, &handles),
        QueueRequest::Echo { bytes, warm_up, messages } => echo(known(side)?, bytes, warm_up, messages),
        QueueRequest::Stream { bytes, messages } => stream(known(side)?, bytes, messages),
    }
}

fn known(side: &mut Option<Side>) -> anyhow::Result<&mut Side> {
    side.as_mut().context("this worker has not been told which side of a queue it is")
}

fn pin(cpu: usize) -> anyhow::Result<()> {
    cpu::pin_current_thread(&[cpu]).with_context(|| format!("cannot stay on core {cpu}"))
}

fn meet(side: &mut Side, handles: &[Vec<u8>]) -> anyhow::Result<Answer> {
    match side {
        Side::Writer { writer, replies } => {
            for handle in handles {
                let mut reader = Reader::open(&Handle::from_bytes(handle)?, 0)?;
                reader.set_timeout(TIMEOUT);
                replies.push(reader);
            }
            writer.wait_until_ready(TIMEOUT)?;
        }
        Side::Reader { reader, replies } => {
            reader.wait_until_ready(TIMEOUT)?;
            replies.wait_until_ready(TIMEOUT)?;
        }
    }
    Ok(Answer::Done)
}

/// A message to all readers and its echo from each: half of the time is that of one way.
fn echo(side: &mut Side, bytes: usize, warm_up: usize, messages: usize) -> anyhow::Result<Answer> {
    let (mut message, mut buffer) = (vec![0; bytes], vec![0; bytes]);
    match side {
        Side::Writer { writer, replies } => {
            let mut samples = Samples::with_capacity(messages);
            for number in 0..warm_up + messages {
                mark(&mut message, number);
                let start = Instant::now();
                writer.send(&message)?;
                for reply in replies.iter_mut() {
                    receive(reply, &mut buffer)?;
                }
                let round_trip = start.elapsed();
                if buffer != message {
                    bail!("message {number} came back changed");
                }
                if number >= warm_up {
                    samples.push(round_trip / 2);
                }
            }
            Ok(Answer::Timed(samples.summary().context("no message was to be timed")?))
        }
        Side::Reader { reader, replies } => {
            for _ in 0..warm_up + messages {
                receive(reader, &mut buffer)?;
                replies.send(&buffer)?;
            }
            Ok(Answer::Done)
        }
    }
}

/// As many messages as go, in one direction; the writer's time ends when all readers have said that they have all.
fn stream(side: &mut Side, bytes: usize, messages: usize) -> anyhow::Result<Answer> {
    let (mut message, mut buffer) = (vec![0; bytes], vec![0; bytes]);
    match side {
        Side::Writer { writer, replies } => {
            let start = Instant::now();
            for number in 0..messages {
                mark(&mut message, number);
                writer.send(&message)?;
            }
            for reply in replies.iter_mut() {
                receive(reply, &mut [0])?;
            }
            Ok(Answer::Rate(messages as f64 / start.elapsed().as_secs_f64()))
        }
        Side::Reader { reader, replies } => {
            let mut wrong = 0;
            for number in 0..messages {
                receive(reader, &mut buffer)?;
                wrong += u64::from(!is_marked(&buffer, number));
            }
            replies.send(&[0])?;
            Ok(Answer::Checked(wrong))
        }
    }
}

fn receive(reader: &mut Reader, into: &mut [u8]) -> anyhow::Result<()> {
    let bytes = reader.recv_into(into)?;
    if bytes != into.len() {
        bail!("a message of {bytes} bytes came instead of one of {}", into.len());
    }
    Ok(())
}

/// Write the message's number into its first bytes, as far as there are any, and into its last.
fn mark(message: &mut [u8], number: usize) {
    let number = (number as u64).to_le_bytes();
    let first = message.len().min(8);
    message[..first].copy_from_slice(&number[..first]);
    if let Some(last) = message.last_mut() {
        *last = number[0];
    }
}

fn is_marked(message: &[u8], number: usize) -> bool {
    let mut expected = [0; 8];
    let first = message.len().min(8);
    mark(&mut expected[..first], number);
    message[..first.saturating_sub(1)] == expected[..first.saturating_sub(1)]
        && message.last() == (first > 0).then_some(&(number as u8))
}
