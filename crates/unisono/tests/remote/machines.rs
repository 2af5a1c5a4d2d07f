//! Machines for tests: network namespaces, each with an address of either kind, joined by a bridge in one of their own.

use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// So many machines that reach one another. They are gone when this is dropped.
pub(crate) struct Machines {
    name: String,
    count: usize,
}

/// Run a command; its failure is the test's.
fn run(words: &str) {
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().expect("a command"));
    command.args(words);
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} (of iproute2): {error}"));
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}, which needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN), and of the kernel veth, bridge and tbf: {problem}"
    );
}

impl Machines {
    pub(crate) fn new(count: usize) -> Machines {
        static MADE: AtomicU32 = AtomicU32::new(0);
        sweep();
        let name = format!("unisono{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let machines = Machines { name, count };
        let (hub, name) = (machines.hub(), &machines.name);
        run(&format!("ip netns add {hub}"));
        run(&format!("ip -n {hub} link add bridge type bridge"));
        run(&format!("ip -n {hub} link set bridge up"));
        for machine in 0..count {
            let number = machine + 1;
            run(&format!("ip netns add {name}-{machine}"));
            run(&format!(
                "ip -n {hub} link add port{machine} type veth peer name eth0 netns {name}-{machine}"
            ));
            run(&format!("ip -n {hub} link set port{machine} master bridge up"));
            run(&format!("ip -n {name}-{machine} link set lo up"));
            run(&format!("ip -n {name}-{machine} link set eth0 up"));
            run(&format!("ip -n {name}-{machine} addr add 10.77.0.{number}/24 dev eth0"));
            run(&format!("ip -n {name}-{machine} -6 addr add fd77::{number}/64 dev eth0 nodad"));
        }
        machines
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    /// The words that start a program on a machine.
    pub(crate) fn on(&self, machine: usize) -> [&str; 5] {
        let name: &'static str = Box::leak(format!("{}-{machine}", self.name).into_boxed_str());
        ["ip", "netns", "exec", name, "env"]
    }

    pub(crate) fn ipv4(&self, machine: usize) -> IpAddr {
        format!("10.77.0.{}", machine + 1).parse().expect("an address")
    }

    pub(crate) fn ipv6(&self, machine: usize) -> IpAddr {
        format!("fd77::{}", machine + 1).parse().expect("an address")
    }

    /// Cut the machine off: nothing passes any more, and nobody is told.
    pub(crate) fn cut_off(&self, machine: usize) {
        run(&format!("ip -n {} link set port{machine} down", self.hub()));
    }

    /// Let so many megabits a second reach the machine, and no more.
    pub(crate) fn slow_down(&self, machine: usize, megabits: u32) {
        let hub = self.hub();
        run(&format!(
            "tc -n {hub} qdisc add dev port{machine} root tbf rate {megabits}mbit burst 64kb latency 100ms"
        ));
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for end in (0..self.count).map(|machine| machine.to_string()).chain(["hub".to_string()]) {
            // The test has its result by now.
            let _ = Command::new("ip").args(["netns", "del", &format!("{}-{end}", self.name)]).output();
        }
    }
}

/// Take away what tests left that were killed.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let made_by =
            name.strip_prefix("unisono").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if made_by.is_some_and(|process| !std::path::Path::new(&format!("/proc/{process}")).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}
