//! The ranks of one implementation: started, asked all at once, and ended.
//!
//! However they are started (one by one or by an `mpirun`), ranks connect to a socket of the group's own and then sleep
//! until they are asked. The one invariant that matters: a group outlives neither the driver nor its own failure; the first
//! failure ends all of its ranks.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use unisono_os::poll;
use unisono_os::process::{self, ChildSetup, Signal};

use crate::recipe::Recipe;
use crate::wire::{Answer, Request, read_line};

/// Ranks that have not come by then will not come.
const TIME_TO_COME: Duration = Duration::from_secs(30);
/// No request takes longer, even where ranks wait a scheduler's slice for one another at each step.
const TIME_TO_ANSWER: Duration = Duration::from_secs(90);
/// Ranks that were told to go have gone by then.
const TIME_TO_GO: Duration = Duration::from_secs(2);

/// Where and how many: the same for all groups of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) ranks: usize,
    /// Rank r stays on the r-th of them, beginning again where there are fewer cores than ranks.
    pub(crate) cpus: Vec<usize>,
    /// A folder for sockets.
    pub(crate) sockets: PathBuf,
    /// A folder for what the ranks print.
    pub(crate) logs: PathBuf,
}

impl Place {
    /// The cores as a list that callers read.
    fn cpu_list(&self) -> String {
        self.cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
    }
}

/// One rank as the driver sees it.
struct Rank {
    pid: u32,
    answers: BufReader<UnixStream>,
    requests: UnixStream,
}

/// The ranks of one implementation.
pub(crate) struct Group {
    pub(crate) recipe: Recipe,
    ranks: Vec<Rank>,
    processes: Vec<Child>,
    log: PathBuf,
    idle: Idle,
}

/// What the group has burnt while it was not its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    since: Instant,
    cpu_then: Duration,
    cpu: Duration,
    time: Duration,
}

impl Idle {
    /// The share of one core.
    pub(crate) fn share(&self) -> f64 {
        if self.time.is_zero() { 0.0 } else { self.cpu.as_secs_f64() / self.time.as_secs_f64() }
    }
}

impl Group {
    /// Start the ranks of a recipe and wait until all have come.
    ///
    /// # Errors
    /// When they do not come, with the last they have said.
    pub(crate) fn start(recipe: &Recipe, place: &Place) -> anyhow::Result<Group> {
        let file = recipe.name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        let log = place.logs.join(format!("{file}-{}-ranks.log", place.ranks));
        let socket = place.sockets.join(format!("{file}-{}", place.ranks));
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("listening at {}", socket.display()))?;
        let mut group = Group {
            recipe: recipe.clone(),
            ranks: Vec::new(),
            processes: start_processes(recipe, place, &socket, &log)?,
            log,
            idle: Idle {
                since: Instant::now(),
                cpu_then: Duration::ZERO,
                cpu: Duration::ZERO,
                time: Duration::ZERO,
            },
        };
        let came = group.meet(&listener, place.ranks);
        let _ = std::fs::remove_file(&socket);
        came.with_context(|| group.last_words())?;
        group.idle_begins();
        Ok(group)
    }

    /// The name in tables.
    pub(crate) fn name(&self) -> &str {
        &self.recipe.name
    }

    fn meet(&mut self, listener: &UnixListener, ranks: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + TIME_TO_COME;
        let mut came: BTreeMap<usize, Rank> = BTreeMap::new();
        while came.len() < ranks {
            // In short steps, so that an end is seen at once and not at the deadline.
            let step = Instant::now() + Duration::from_millis(100);
            if poll::until_readable(&[listener.as_fd()], Some(step))?.iter().any(|readiness| readiness.any())
            {
                let (number, rank) = greet(listener.accept().context("accepting a rank")?.0)?;
                ensure!(number < ranks, "a rank calls itself {number} of {ranks}");
                ensure!(came.insert(number, rank).is_none(), "two ranks call themselves {number}");
            }
            if let Some(status) = self.processes.iter_mut().find_map(|child| child.try_wait().ok().flatten())
            {
                bail!("{} of {ranks} ranks came before one {}", came.len(), process::describe_exit(status));
            }
            ensure!(
                Instant::now() < deadline,
                "only {} of {ranks} ranks came within {TIME_TO_COME:?}",
                came.len()
            );
        }
        self.ranks = came.into_values().collect();
        Ok(())
    }

    /// Ask all ranks the same; the answers in the order of ranks. The time until then was idle.
    ///
    /// # Errors
    /// When a rank has gone or does not answer: with the last that the group has said.
    pub(crate) fn ask(&mut self, request: &impl fmt::Display) -> anyhow::Result<Vec<Answer>> {
        self.idle_ends();
        let answers = self.exchange(request).with_context(|| self.last_words());
        self.idle_begins();
        answers
    }

    fn exchange(&mut self, request: &impl fmt::Display) -> anyhow::Result<Vec<Answer>> {
        let line = request.to_string();
        for rank in &mut self.ranks {
            rank.requests.write_all(line.as_bytes()).context("a rank has gone")?;
        }
        self.ranks.iter_mut().map(|rank| Answer::read(&mut rank.answers)).collect()
    }

    /// What the group has burnt out of turn.
    pub(crate) fn idle(&self) -> Idle {
        self.idle
    }

    fn idle_ends(&mut self) {
        self.idle.time += self.idle.since.elapsed();
        self.idle.cpu += self.cpu_time().saturating_sub(self.idle.cpu_then);
    }

    fn idle_begins(&mut self) {
        self.idle.cpu_then = self.cpu_time();
        self.idle.since = Instant::now();
    }

    fn cpu_time(&self) -> Duration {
        self.ranks.iter().filter_map(|rank| process::cpu_time(rank.pid)).sum()
    }

    /// The last lines that the group's processes have printed.
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(3)..].join(" / ");
        format!("{} failed (its output is in {}; it ends: {last})", self.name(), self.log.display())
    }
}

/// Hear which rank a connection comes from.
fn greet(stream: UnixStream) -> anyhow::Result<(usize, Rank)> {
    stream.set_read_timeout(Some(TIME_TO_ANSWER)).context("setting a deadline")?;
    let requests = stream.try_clone().context("a rank's socket")?;
    let mut answers = BufReader::new(stream);
    let line = read_line(&mut answers)?;
    let words: Vec<&str> = line.split(' ').collect();
    let ["rank", number, pid, _session] = words.as_slice() else { bail!("a rank greets with {line:?}") };
    Ok((number.parse()?, Rank { pid: pid.parse()?, answers, requests }))
}

fn start_processes(recipe: &Recipe, place: &Place, socket: &Path, log: &Path) -> anyhow::Result<Vec<Child>> {
    let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let port = unused_port()?;
    let start_one = |number: Option<usize>| {
        let fill_in = |word: &String| {
            word.replace("{ranks}", &place.ranks.to_string()).replace("{cpus}", &place.cpu_list())
        };
        let words: Vec<String> = recipe.command.iter().map(fill_in).collect();
        let (program, arguments) = words.split_first().context("a recipe without a command")?;
        let mut command = Command::new(program);
        command.args(arguments);
        command.envs(recipe.environment.iter().map(|(name, value)| (name, fill_in(value))));
        command.env("BENCH_SOCKET", socket).env("BENCH_CPUS", place.cpu_list());
        command.env("OMP_NUM_THREADS", "1");
        if let Some(number) = number {
            command.env("RANK", number.to_string()).env("LOCAL_RANK", number.to_string());
            command.env("WORLD_SIZE", place.ranks.to_string());
            command.env("LOCAL_WORLD_SIZE", place.ranks.to_string());
            command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        }
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        // In one terminal session with all others, so that ranks that share a core can yield it to one another.
        let die_with_parent = Some(Signal::Kill);
        process::prepare_child(
            &mut command,
            ChildSetup { die_with_parent, new_process_group: true, ..Default::default() },
        );
        command.spawn().with_context(|| format!("starting {program} for {}", recipe.name))
    };
    if recipe.starts_all_ranks {
        Ok(vec![start_one(None)?])
    } else {
        (0..place.ranks).map(|number| start_one(Some(number))).collect()
    }
}

/// A port that nobody listens on at this moment.
fn unused_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr().context("no free port on 127.0.0.1")?.port())
}

impl Drop for Group {
    fn drop(&mut self) {
        for rank in &mut self.ranks {
            let _ = rank.requests.write_all(Request::Quit.to_string().as_bytes());
        }
        let deadline = Instant::now() + TIME_TO_GO;
        let all_gone = |processes: &mut Vec<Child>| {
            processes.iter_mut().all(|child| matches!(child.try_wait(), Ok(Some(_))))
        };
        while !self.ranks.is_empty() && !all_gone(&mut self.processes) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if all_gone(&mut self.processes) {
            return;
        }
        // What an `mpirun` has started need not be in its process group.
        for rank in &self.ranks {
            let _ = process::kill(rank.pid, Signal::Kill);
        }
        for child in &mut self.processes {
            let _ = process::kill_group(child.id(), Signal::Kill);
            let _ = child.wait();
        }
    }
}
