//! A plain SUB socket in another language reads what a publisher sends, with what the documentation of the wire says.
//!
//! It needs Python and pyzmq, which `cargo xtask test` brings (and names in `UNISONO_TEST_PYZMQ`); without them it fails.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};
use unisono_remote::{Key, Leftovers, PART_BYTES, Publisher, PublisherConfig};

const PATIENCE: Duration = Duration::from_secs(20);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn python() -> Command {
    let mut python = Command::new("python3");
    if let Some(folder) = std::env::var_os("UNISONO_TEST_PYZMQ") {
        python.env("PYTHONPATH", folder);
    }
    let imports = python.args(["-c", "import zmq"]).output().expect("python3 starts");
    let problem = String::from_utf8_lossy(&imports.stderr);
    assert!(imports.status.success(), "pyzmq is missing: run `cargo xtask test`, which brings it\n{problem}");
    let mut again = Command::new("python3");
    again.envs(python.get_envs().filter_map(|(name, value)| Some((name, value?))));
    again
}

/// The reader in Python, begun; it prints what it reads.
fn start(address: SocketAddr, key: [u8; 32], nonce: [u8; 16]) -> Child {
    python()
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plain_subscriber.py"))
        .args([address.ip().to_string(), address.port().to_string()])
        .args([hex(&key), hex(&nonce), "6".to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 starts")
}

fn read_at(ip: IpAddr) {
    let (key, nonce) = (Key::from_bytes([0x5a; 32]), [0xc3; 16]);
    let config = PublisherConfig {
        key: key.clone(),
        nonce,
        rank: 1,
        readers: vec![6],
        ip,
        leftovers: Leftovers::Told,
    };
    let publisher = Publisher::bind(config).expect("the loopback is here");
    let reader = start(publisher.address(), key.to_bytes(), nonce);
    let lengths =
        [0, 1, 1000, PART_BYTES, PART_BYTES + 1, 20 << 20].into_iter().chain((0..500).map(|n| n * 3));
    let mut expected = String::new();
    for (number, bytes) in lengths.enumerate() {
        let message: Vec<u8> = (0..bytes).map(|at| (at * 7 + number) as u8).collect();
        expected += &format!("{number} {bytes} {}\n", hex(&Sha256::digest(&message)));
        publisher.wait(Some(PATIENCE), |behind| (behind.bytes < 1 << 20).then_some(())).expect("it reads");
        publisher.send(message);
    }
    publisher.close(PATIENCE);
    let output = reader.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected + "end\n");
}

#[test]
fn a_plain_sub_socket_reads_and_checks_every_message() {
    read_at(Ipv4Addr::LOCALHOST.into());
    if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        read_at(Ipv6Addr::LOCALHOST.into());
    } else {
        eprintln!("LEFT OUT: IPv6 is turned off on this machine");
    }
}

#[test]
fn a_plain_sub_socket_says_hello_again_when_it_is_not_answered() {
    let busy = zmq::Context::new().socket(zmq::XPUB).expect("a socket");
    busy.set_rcvtimeo(PATIENCE.as_millis() as i32).expect("a time-out");
    busy.bind("tcp://127.0.0.1:*").expect("the loopback is here");
    let endpoint = busy.get_last_endpoint().expect("it is bound").expect("text");
    let address = endpoint.strip_prefix("tcp://").expect("tcp").parse().expect("an address");
    let mut reader = start(address, [1; 32], [2; 16]);
    let mut hellos = Vec::new();
    while hellos.len() < 3 {
        let word = busy.recv_bytes(0).expect("it says something");
        // What it takes back begins with a zero.
        if word[0] == 1 {
            assert!(
                word[1..].starts_with(b"unisono1h") && !hellos.contains(&word),
                "each is another session's"
            );
            hellos.push(word);
        }
    }
    reader.kill().expect("it waits for an answer");
    reader.wait().expect("it is our child");
}
