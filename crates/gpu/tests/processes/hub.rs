//! Ranks as processes: this test program again, once for each, and a socket over which they exchange bytes.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use unisono_gpu::Error;

/// Nothing takes so long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(120);

const RANK: &str = "UNISONO_TEST_RANK";
const WORLD: &str = "UNISONO_TEST_WORLD";
const SOCKET: &str = "UNISONO_TEST_SOCKET";
const SCENARIO: &str = "UNISONO_TEST_SCENARIO";

/// What a rank's process knows.
pub(crate) struct Rank {
    pub(crate) rank: usize,
    pub(crate) world: usize,
    pub(crate) scenario: String,
    hub: UnixStream,
}

impl Rank {
    /// `None` in the process of the tests themselves.
    pub(crate) fn of_this_process() -> Option<Self> {
        let number = |name| std::env::var(name).ok()?.parse::<usize>().ok();
        let (rank, world) = (number(RANK)?, number(WORLD)?);
        let mut hub = UnixStream::connect(std::env::var(SOCKET).ok()?).unwrap();
        hub.set_read_timeout(Some(DEADLINE)).unwrap();
        hub.write_all(&(rank as u32).to_le_bytes()).unwrap();
        Some(Self { rank, world, scenario: std::env::var(SCENARIO).unwrap(), hub })
    }

    /// Gives bytes to all; returns those of all, in the ranks' order.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        send(&self.hub, bytes);
        (0..self.world).map(|_| receive(&self.hub).expect("every rank sends")).collect()
    }

    /// The same, as the library wants it.
    pub(crate) fn try_exchange(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        Ok(self.exchange(bytes))
    }

    /// All have come.
    pub(crate) fn meet(&self) {
        self.exchange(&[]);
    }
}

fn send(mut stream: &UnixStream, bytes: &[u8]) {
    stream.write_all(&(bytes.len() as u32).to_le_bytes()).unwrap();
    stream.write_all(bytes).unwrap();
}

fn receive(mut stream: &UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Runs a scenario with so many ranks; the variables say on which driver.
pub(crate) fn run(scenario: &str, world: usize, variables: &[(&str, String)]) {
    let socket = std::env::temp_dir().join(format!("unisono-gpu-{}-{scenario}-{world}", std::process::id()));
    let socket = unique(socket, variables);
    let listener = UnixListener::bind(&socket).unwrap();
    let start = |rank: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_rank", "--nocapture"])
            .env(RANK, rank.to_string())
            .env(WORLD, world.to_string())
            .env(SOCKET, &socket)
            .env(SCENARIO, scenario)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut children: Vec<Child> = (0..world).map(start).collect();
    let ranks = accept(&listener, world, &mut children);
    let _ = std::fs::remove_file(&socket);
    let have_come = ranks.is_some();
    if let Some(ranks) = ranks {
        while let Some(all) = ranks.iter().map(receive).collect::<Option<Vec<_>>>() {
            ranks.iter().for_each(|rank| all.iter().for_each(|bytes| send(rank, bytes)));
        }
    }
    let mut failed = String::new();
    for (rank, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            let said = [&output.stdout[..], &output.stderr[..]].concat();
            failed += &format!("rank {rank}: {}\n", String::from_utf8_lossy(&said));
        }
    }
    assert!(failed.is_empty(), "{scenario}:\n{failed}");
    assert!(have_come, "{scenario}: a rank's process ended before it came");
}

fn unique(socket: PathBuf, variables: &[(&str, String)]) -> PathBuf {
    let suffix: usize = variables.iter().flat_map(|(_, value)| value.bytes()).map(usize::from).sum();
    socket.with_extension(suffix.to_string())
}

/// `None` if a rank's process ended before it came.
fn accept(listener: &UnixListener, world: usize, children: &mut [Child]) -> Option<Vec<UnixStream>> {
    listener.set_nonblocking(true).unwrap();
    let start = Instant::now();
    let mut ranks: Vec<Option<UnixStream>> = (0..world).map(|_| None).collect();
    while ranks.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                let mut rank = [0; 4];
                stream.read_exact(&mut rank).unwrap();
                ranks[u32::from_le_bytes(rank) as usize] = Some(stream);
            }
            Err(_) if children.iter_mut().any(|child| child.try_wait().unwrap().is_some()) => return None,
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
        assert!(start.elapsed() < DEADLINE, "not all ranks came");
    }
    ranks.into_iter().collect()
}
