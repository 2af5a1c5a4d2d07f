//! Describing a queue before it is made.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use unisono_os::cpu;
use unisono_os::poll::Waker;

use super::elsewhere::{Outlet, Plan, Room};
use super::error::{Error, Result};
use super::hall::{Hall, WhenGone};
use super::handle::Handle;
use super::host::{self, Host};
use super::memory::{MOST_READERS, Made, WriterMemory};
use super::pool::MOST_UNREAD_BYTES;
use super::porch::Porch;
use super::writer::{Limits, Writer};
use crate::background::Background;
use crate::marker::own_pidfd;

/// The ring's length unless another is asked for.
const RING_BYTES: usize = 4 << 20;
/// How long a side waits for what was promised before it says so in the log.
pub(super) const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// What a queue is to be; made by [`Writer::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    rank: usize,
    reader_ranks: Vec<usize>,
    ring_bytes: usize,
    max_chunks: Option<usize>,
    max_chunk_bytes: Option<usize>,
    when_gone: WhenGone,
    timeout: Option<Duration>,
    warn_interval: Duration,
    directory: Option<PathBuf>,
    remote_ranks: Vec<usize>,
    connect_ip: Option<IpAddr>,
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder {
            rank: 0,
            reader_ranks: vec![0],
            ring_bytes: RING_BYTES,
            max_chunks: None,
            max_chunk_bytes: None,
            when_gone: WhenGone::default(),
            timeout: Some(crate::DEFAULT_TIMEOUT),
            warn_interval: WARN_INTERVAL,
            directory: std::env::var_os("UNISONO_DIR").map(PathBuf::from),
            remote_ranks: Vec::new(),
            connect_ip: None,
        }
    }

    /// The rank that the writer goes by in errors of its readers. Default 0.
    pub fn rank(mut self, rank: usize) -> Self {
        self.rank = rank;
        self
    }

    /// So many readers, of ranks 0, 1, … Default 1.
    pub fn readers(self, count: usize) -> Self {
        self.reader_ranks(0..count)
    }

    /// Readers of these ranks.
    pub fn reader_ranks(mut self, ranks: impl IntoIterator<Item = usize>) -> Self {
        self.reader_ranks = ranks.into_iter().collect();
        self
    }

    /// The ring's length in bytes, made a power of two of at least a page. Default 4 MiB.
    pub fn ring_bytes(mut self, bytes: usize) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// How many messages may be unread by the slowest reader before sending waits. By default only their bytes count.
    pub fn max_chunks(mut self, messages: usize) -> Self {
        self.max_chunks = Some(messages);
        self
    }

    /// The longest message that is written into the ring. Default, and at most, a quarter of the ring; longer messages get
    /// memory of their own.
    pub fn max_chunk_bytes(mut self, bytes: usize) -> Self {
        self.max_chunk_bytes = Some(bytes);
        self
    }

    /// What to do when a reader leaves or dies. Default: sending fails.
    pub fn when_gone(mut self, policy: WhenGone) -> Self {
        self.when_gone = policy;
        self
    }

    /// How long sending waits for readers that are behind; `None`: without end. Default 30 minutes.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// How long somebody is waited for before the log says so. Default 60 s.
    pub fn warn_interval(mut self, interval: Duration) -> Self {
        self.warn_interval = interval;
        self
    }

    /// Listen at a socket file in this directory, too, for readers in other network namespaces. Default: where `UNISONO_DIR`
    /// says, if it does.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Readers of these ranks elsewhere, on other machines: messages go to them over the network. Default: none.
    ///
    /// The handle then holds the key with which both sides sign; it is to be kept from others. What goes over the network
    /// is signed and not encrypted.
    #[cfg(feature = "remote")]
    pub fn remote_readers(mut self, ranks: impl IntoIterator<Item = usize>) -> Self {
        self.remote_ranks = ranks.into_iter().collect();
        self
    }

    /// The address of this machine, IPv4 or IPv6, at which readers elsewhere reach it; the port is the system's choice.
    /// Only with [`remote_readers`](Builder::remote_readers). Default: the address from which this machine would send to others, without a network the loopback's.
    #[cfg(feature = "remote")]
    pub fn connect_ip(mut self, ip: IpAddr) -> Self {
        self.connect_ip = Some(ip);
        self
    }

    fn check(&self) -> Result<()> {
        let refuse = |problem: String| Err(Error::argument("create", problem));
        for (readers, place) in
            [(self.reader_ranks.len(), "on one machine"), (self.remote_ranks.len(), "elsewhere")]
        {
            if readers > MOST_READERS {
                return refuse(format!("{readers} readers {place}: at most {MOST_READERS}"));
            }
        }
        let mut ranks = [&self.reader_ranks[..], &self.remote_ranks[..]].concat();
        ranks.sort_unstable();
        if let Some(twice) = ranks.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(format!("reader rank {} is there twice", twice[0]));
        }
        if self.max_chunks == Some(0) {
            return refuse("max_chunks is 0: at least one message must be allowed to be unread".to_string());
        }
        if let Some(ip) = self.connect_ip.filter(|_| self.remote_ranks.is_empty()) {
            return refuse(format!(
                "connect_ip {ip}, and no readers elsewhere: name them with remote_readers, or leave the address out"
            ));
        }
        if let Some(ip) = self.connect_ip.filter(IpAddr::is_unspecified) {
            return refuse(format!("connect_ip {ip} is no address that others can connect to"));
        }
        if self.warn_interval.is_zero() {
            return refuse("a warn_interval of zero would warn for ever".to_string());
        }
        Ok(())
    }

    /// Make the queue. Readers may come from now on.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], and [`Error::System`] if memory does not suffice.
    pub fn create(self) -> Result<Writer> {
        self.check()?;
        let nonce = unisono_os::random::bytes::<16>().map_err(Error::os("drawing a queue's name"))?;
        let nonce_word = Handle::nonce_word_of(nonce);
        let readers = self.reader_ranks.len();
        // Readers elsewhere need no ring, but what is unread by them is bounded as if there were one.
        let is_all_elsewhere = readers == 0 && !self.remote_ranks.is_empty();
        let ring_bytes = if is_all_elsewhere { 0 } else { self.ring_bytes };
        let Made { memory, descriptor, marker } =
            WriterMemory::create(ring_bytes, nonce_word, self.rank, readers)?;
        let marker = Arc::new(marker);
        let crowded = (readers + 1) as f64 > cpu::usable_cores();
        let longest = memory.ring_bytes().max(self.ring_bytes as u64) / 4;
        let limits = Limits {
            timeout: self.timeout,
            warn_interval: self.warn_interval,
            max_chunks: self.max_chunks,
            max_chunk_bytes: self.max_chunk_bytes.map_or(longest, |bytes| longest.min(bytes as u64)),
            crowded,
        };
        let outlet = self.outlet(nonce, &limits)?;
        let elsewhere = outlet.as_ref().map(Outlet::at);
        let handle = Handle::new(nonce, self.rank, &self.reader_ranks, self.directory.as_deref(), elsewhere);
        let waker = Waker::new().map_err(Error::os("making the host's wake-up"))?;
        let hall = Arc::new(Hall::new(memory, &self.reader_ranks, self.when_gone, waker, outlet));
        let listening = Arc::downgrade(&hall);
        if let Some(outlet) = &hall.outlet {
            outlet.listen(move || listening.upgrade().iter().for_each(|hall| hall.has_news_from_elsewhere()));
        }
        let host = Host {
            hall: Arc::clone(&hall),
            porch: Porch::new(host::open_doors(&handle)?, handle.name()),
            handle: handle.clone(),
            data: descriptor,
            own_pidfd: own_pidfd()?,
            marker: Arc::clone(&marker),
            crowded,
        };
        let host = Background::spawn("unisono-queue", move || host.run())?;
        Ok(Writer::assemble(hall, handle, limits, host, marker))
    }

    /// The way to readers elsewhere, if there are to be any.
    fn outlet(&self, nonce: [u8; 16], limits: &Limits) -> Result<Option<Outlet>> {
        if self.remote_ranks.is_empty() {
            return Ok(None);
        }
        let room = Room {
            messages: self.max_chunks,
            bytes: self.ring_bytes as u64,
            small: limits.max_chunk_bytes,
            bytes_of_any: MOST_UNREAD_BYTES,
        };
        let plan = Plan {
            nonce,
            writer_rank: self.rank,
            ranks: self.remote_ranks.clone(),
            ip: self.connect_ip,
            policy: self.when_gone,
            room,
        };
        Outlet::open(plan).map(Some)
    }
}
