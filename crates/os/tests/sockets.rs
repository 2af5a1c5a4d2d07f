//! Promises about sockets: whole messages, descriptors, identities, deadlines, addresses.

#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{argument, as_user, in_seconds, is_root, play};
use unisono_os::socket::{Address, Connection, Listener, Message, Received, SocketError, holder_of, sweep};
use unisono_os::{memfd, process};

fn abstract_address(test: &str) -> Address {
    Address::Abstract(format!("unisono-test-{test}-{}", std::process::id()).into_bytes())
}

fn file_address(test: &str) -> (Address, PathBuf) {
    let path = std::env::temp_dir().join(format!("unisono-test-{test}-{}", std::process::id()));
    (Address::File(path.clone()), path)
}

#[track_caller]
fn message(received: Result<Received, SocketError>) -> Message {
    match received {
        Ok(Received::Message(message)) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

fn size_of_file(descriptor: &OwnedFd) -> i64 {
    rustix::fs::fstat(descriptor).unwrap().st_size
}

#[test]
fn sixty_four_descriptors_travel_with_one_message_in_order() {
    let (one, other) = Connection::pair().unwrap();
    let memories: Vec<OwnedFd> =
        (0..64).map(|rank| memfd::create_sealed("unisono-test", 100 + rank).unwrap()).collect();
    let borrowed: Vec<BorrowedFd<'_>> = memories.iter().map(AsFd::as_fd).collect();
    one.send(b"all memories", &borrowed, in_seconds(10)).unwrap();
    let received = message(other.receive(64, in_seconds(10)));
    assert_eq!(received.bytes, b"all memories");
    let sizes: Vec<i64> = received.descriptors.iter().map(size_of_file).collect();
    assert_eq!(sizes, (100..164).collect::<Vec<i64>>());
    for descriptor in &received.descriptors {
        assert!(rustix::io::fcntl_getfd(descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
}

#[test]
fn the_kernels_most_descriptors_fit_and_one_more_is_refused() {
    let (one, other) = Connection::pair().unwrap();
    let memory = memfd::create_sealed("unisono-test", 1).unwrap();
    one.send(b"x", &[memory.as_fd(); 253], in_seconds(10)).unwrap();
    assert_eq!(message(other.receive(1, in_seconds(10))).descriptors.len(), 253);
    let refused = one.send(b"x", &[memory.as_fd(); 254], in_seconds(10)).unwrap_err();
    assert!(matches!(refused, SocketError::CannotSend { descriptors: 254, .. }), "{refused}");
}

#[test]
fn a_message_that_does_not_fit_is_an_error_and_the_next_one_arrives() {
    let (one, other) = Connection::pair().unwrap();
    one.send(&[7; 100], &[], None).unwrap();
    one.send(b"next", &[], None).unwrap();
    assert_eq!(other.receive(99, in_seconds(10)).unwrap_err(), SocketError::MessageTooLong { allowed: 99 });
    assert_eq!(message(other.receive(4, in_seconds(10))).bytes, b"next");
}

#[test]
fn messages_that_cannot_be_sent_are_refused() {
    let (one, _other) = Connection::pair().unwrap();
    assert!(matches!(one.send(b"", &[], None), Err(SocketError::CannotSend { .. })));
    let huge = vec![0; 64 << 20];
    assert!(matches!(one.send(&huge, &[], None), Err(SocketError::CannotSend { .. })));
}

#[test]
fn a_closed_end_is_told_after_the_last_message_and_raises_no_signal() {
    let (one, other) = Connection::pair().unwrap();
    one.send(b"last words", &[], None).unwrap();
    drop(one);
    assert_eq!(message(other.receive(64, in_seconds(10))).bytes, b"last words");
    assert!(matches!(other.receive(64, in_seconds(10)), Ok(Received::Closed)));
    assert_eq!(other.send(b"anyone?", &[], in_seconds(10)).unwrap_err(), SocketError::Closed);
}

#[test]
fn closing_with_unread_messages_counts_as_closed() {
    let (one, other) = Connection::pair().unwrap();
    other.send(b"never read", &[], None).unwrap();
    drop(one);
    assert!(matches!(other.receive(64, in_seconds(10)), Ok(Received::Closed)));
}

#[test]
fn every_wait_ends_at_its_deadline() {
    let listener = Listener::bind(&abstract_address("deadline")).unwrap();
    let (one, _other) = Connection::pair().unwrap();
    let soon = || Some(Instant::now() + Duration::from_millis(30));
    let start = Instant::now();
    assert!(listener.accept(soon()).unwrap_err().is_timed_out());
    assert!(one.receive(1, soon()).unwrap_err().is_timed_out());
    assert!(start.elapsed() >= Duration::from_millis(60));
    let full = loop {
        if let Err(error) = one.send(&[0; 4096], &[], soon()) {
            break error;
        }
    };
    assert!(full.is_timed_out(), "{full}");
}

#[test]
fn both_sides_know_who_the_other_is() {
    for address in [abstract_address("identity"), file_address("identity").0] {
        let listener = Listener::bind(&address).unwrap();
        let client = Connection::connect(&address, in_seconds(10)).unwrap();
        let server = listener.accept(in_seconds(10)).unwrap();
        for end in [&client, &server] {
            let peer = end.peer_credentials().unwrap();
            assert_eq!((peer.pid, peer.uid), (process::pid(), process::uid()));
        }
        client.send(b"hello", &[], None).unwrap();
        assert_eq!(message(server.receive(5, in_seconds(10))).bytes, b"hello");
    }
}

#[test]
fn a_foreign_user_is_recognised() {
    if !is_root("a_foreign_user_is_recognised") {
        return;
    }
    let address = abstract_address("foreign");
    let listener = Listener::bind(&address).unwrap();
    let client = as_user(65534, || Connection::connect(&address, in_seconds(10))).unwrap();
    let server = listener.accept(in_seconds(10)).unwrap();
    assert_eq!(server.peer_credentials().unwrap().uid, 65534);
    assert_eq!(client.peer_credentials().unwrap().uid, process::uid());
}

#[test]
fn an_address_in_use_names_the_process_that_has_it() {
    for address in [abstract_address("in-use"), file_address("in-use").0] {
        let listener = Listener::bind(&address).unwrap();
        let error = Listener::bind(&address).unwrap_err();
        let SocketError::InUse { holder: Some(holder), .. } = &error else { panic!("{error}") };
        assert_eq!(holder.pid, process::pid());
        assert!(error.to_string().contains(&format!("by process {}", process::pid())), "{error}");
        // The first listener is as it was.
        let _client = Connection::connect(&address, in_seconds(10)).unwrap();
        listener.accept(in_seconds(10)).unwrap();
        drop(listener);
        assert_eq!(holder_of(&address), None);
        Listener::bind(&address).unwrap();
    }
}

#[test]
fn a_socket_file_is_its_users_alone_and_leaves_with_its_listener() {
    let (address, path) = file_address("mode");
    let listener = Listener::bind(&address).unwrap();
    let status = std::fs::metadata(&path).unwrap();
    assert!(status.file_type().is_socket());
    assert_eq!(status.permissions().mode() & 0o777, 0o600);
    drop(listener);
    assert!(!path.exists());
    if is_root("the part about another user") {
        let _listener = Listener::bind(&address).unwrap();
        let denied = as_user(65534, || Connection::connect(&address, in_seconds(10))).unwrap_err();
        assert!(matches!(&denied, SocketError::Os(error) if error.is_permission_denied()), "{denied}");
    }
}

/// Leave a socket file at which nobody listens, as a killed process does. The standard library's listener does not take
/// its file away; a process that another test starts holds a copy of its socket from its fork to its exec.
fn desert(path: &Path) {
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    let patience = Instant::now() + Duration::from_secs(20);
    while std::os::unix::net::UnixStream::connect(path).is_ok() {
        assert!(Instant::now() < patience, "somebody listens at {} for good", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_file_of_a_dead_listener_is_replaced() {
    let (address, path) = file_address("stale");
    desert(&path);
    let stale = std::fs::metadata(&path).unwrap().ino();
    let listener = Listener::bind(&address).unwrap();
    Connection::connect(&address, in_seconds(10)).unwrap();
    listener.accept(in_seconds(10)).unwrap();
    assert!(path.exists() && stale != 0);
}

#[test]
fn of_many_who_replace_a_stale_file_at_once_one_wins() {
    let (address, path) = file_address("race");
    for _ in 0..20 {
        desert(&path);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(|| Listener::bind(&address))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    }
}

#[test]
fn what_is_no_socket_of_ours_is_never_removed() {
    let (address, path) = file_address("precious");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Listener::bind(&address), Err(SocketError::InUse { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_sweep_takes_deserted_sockets_of_that_name_and_nothing_else() {
    let (_, directory) = file_address("sweep");
    std::fs::create_dir(&directory).unwrap();
    let place = |name: &str| directory.join(name);
    for name in ["swept-1", "swept-2", "kept-other-name", "kept-linked-to"] {
        desert(&place(name));
    }
    let _listener = Listener::bind(&Address::File(place("swept-kept-listener"))).unwrap();
    let _stream = std::os::unix::net::UnixListener::bind(place("swept-kept-stream")).unwrap();
    std::fs::write(place("swept-kept-regular"), "precious").unwrap();
    std::fs::create_dir(place("swept-kept-directory")).unwrap();
    for (link, target) in [("socket", "kept-linked-to"), ("regular", "swept-kept-regular"), ("void", "none")]
    {
        std::os::unix::fs::symlink(place(target), place(&format!("swept-kept-link-{link}"))).unwrap();
    }
    if is_root("the part about another user") {
        desert(&place("swept-kept-foreign"));
        std::os::unix::fs::lchown(place("swept-kept-foreign"), Some(65534), None).unwrap();
    }
    let names = || {
        let mut names: Vec<String> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    };
    let kept: Vec<String> = names().into_iter().filter(|name| name.contains("kept")).collect();
    let is_meant = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"swept-");
    assert_eq!(sweep(&directory, is_meant).unwrap(), 2);
    assert_eq!(names(), kept);
    assert_eq!(sweep(&directory, is_meant).unwrap(), 0);
    assert_eq!(names(), kept);
    std::fs::remove_dir_all(&directory).unwrap();
    sweep(&directory, is_meant).unwrap_err();
}

#[test]
fn a_sweep_beside_many_who_make_files_takes_none_of_theirs() {
    let (_, directory) = file_address("broom");
    std::fs::create_dir(&directory).unwrap();
    let end = Instant::now() + Duration::from_millis(500);
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let mut swept = 0;
            while Instant::now() < end {
                swept += sweep(&directory, |_| true).unwrap_or(0); // The lock may be taken for long.
            }
            swept
        });
        let makers = (0..3).map(|maker| {
            let path = directory.join(format!("made-{maker}"));
            scope.spawn(move || {
                while Instant::now() < end {
                    // One that a killed process left, then one in its place.
                    desert(&path);
                    let listener = Listener::bind(&Address::File(path.clone())).unwrap();
                    assert!(path.exists(), "a file with a listener was swept away");
                    let _ = Connection::connect(listener.address(), in_seconds(1)).unwrap();
                    drop(listener);
                }
            })
        });
        makers.collect::<Vec<_>>().into_iter().for_each(|maker| maker.join().unwrap());
        assert!(sweeper.join().unwrap() > 0, "nothing was ever swept: the test has no teeth");
    });
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_listener_that_comes_late_is_waited_for() {
    let address = abstract_address("late");
    let missing = Connection::connect(&address, in_seconds(10)).unwrap_err();
    assert_eq!(missing, SocketError::NobodyListens { address: address.clone() });
    let soon = Some(Instant::now() + Duration::from_millis(30));
    let never = Connection::connect_when_listening(&address, soon).unwrap_err();
    assert!(matches!(never, SocketError::NobodyListens { .. }));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| Connection::connect_when_listening(&address, in_seconds(20)));
        std::thread::sleep(Duration::from_millis(50));
        let listener = Listener::bind(&address).unwrap();
        listener.accept(in_seconds(20)).unwrap();
        client.join().unwrap().unwrap();
    });
}

#[test]
#[ignore = "a role: receives descriptors with next to no room for them"]
fn role_short_of_descriptors() {
    let Some(name) = argument() else { return };
    let connection = Connection::connect(&Address::Abstract(name.into_bytes()), in_seconds(20)).unwrap();
    let in_use = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = rustix::process::Rlimit { current: Some(in_use + 2), maximum: Some(in_use + 2) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    assert_eq!(connection.receive(64, in_seconds(20)).unwrap_err(), SocketError::DescriptorsLost);
    // None of them was kept.
    assert!(std::fs::read_dir("/proc/self/fd").unwrap().count() as u64 <= in_use);
    connection.send(b"told", &[], in_seconds(20)).unwrap();
}

#[test]
fn lost_descriptors_are_an_error_and_none_is_kept() {
    let address = abstract_address("lost");
    let Address::Abstract(name) = &address else { unreachable!() };
    let listener = Listener::bind(&address).unwrap();
    let mut child = play("role_short_of_descriptors", None, &String::from_utf8(name.clone()).unwrap());
    let server = listener.accept(in_seconds(30)).unwrap();
    // The identity of another process, not only of ourselves.
    if std::env::var_os("UNISONO_TEST_RUNNER").is_none() {
        assert_eq!(server.peer_credentials().unwrap().pid, child.id());
    }
    let memory = memfd::create_sealed("unisono-test", 1).unwrap();
    server.send(b"x", &[memory.as_fd(); 16], in_seconds(10)).unwrap();
    assert_eq!(message(server.receive(64, in_seconds(30))).bytes, b"told");
    assert!(child.wait().unwrap().success());
}
