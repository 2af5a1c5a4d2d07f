//! Send and recv, as `collectives/point_to_point.rs` of the library does them: two cursors over a ring of lines.

use unisono_protocol::{Cursor, Wait, wait_until, window};

use super::machine::Space;
use super::platform::{Arc, Region, join_all, spawn};
use super::waits::{Beds, Sleeping, Spinning};

/// What sender and receiver share.
struct Window {
    head: Cursor,
    tail: Cursor,
    ring: Vec<Region>,
    /// Lines of each message.
    messages: Vec<u64>,
    space: Space,
}

fn window_of(lines: u64, messages: &[u64], space: Space) -> Arc<Window> {
    let ring = (0..lines).map(|_| Region::new(0)).collect();
    Arc::new(Window {
        head: Cursor::default(),
        tail: Cursor::default(),
        ring,
        messages: messages.to_vec(),
        space,
    })
}

/// Messages of so many lines each go through a window of `lines` lines; both sides look again while they wait.
pub(crate) fn spinning_transfer(lines: u64, messages: &[u64], space: Space) {
    let window = window_of(lines, messages, space);
    let sender = window.clone();
    let sender = spawn(move || send(&sender, Spinning));
    receive(&window, Spinning);
    join_all([sender]);
}

/// The same with both sides asleep while they wait.
pub(crate) fn sleeping_transfer(lines: u64, messages: &[u64]) {
    let window = window_of(lines, messages, Space::Kept);
    let beds = Arc::new(Beds::of([window.head.word(), window.tail.word()]));
    let (sender, beds_of_sender) = (window.clone(), beds.clone());
    let sender = spawn(move || send(&sender, Sleeping(&beds_of_sender)));
    receive(&window, Sleeping(&beds));
    join_all([sender]);
}

fn send(window: &Window, mut wait: impl Wait) {
    let lines = window.ring.len() as u64;
    let mut filled = 0;
    for message in &window.messages {
        let end = filled + message;
        while filled < end {
            let wanted = (end - filled).min((lines / 4).max(1));
            let free = || window::free(window.tail.word().look(), filled, lines);
            if window.space == Space::Kept && free() < wanted {
                let target = (filled + wanted).saturating_sub(lines);
                wait_until(1, target, |_| window.tail.word(), &mut wait).expect("nobody aborts");
            }
            let room = free().clamp(1, wanted);
            for line in filled..filled + room {
                window.ring[(line % lines) as usize].write(line + 1);
            }
            filled += room;
            window.head.word().publish(filled, &wait);
        }
    }
}

fn receive(window: &Window, mut wait: impl Wait) {
    let lines = window.ring.len() as u64;
    let mut emptied = 0;
    for message in &window.messages {
        let end = emptied + message;
        while emptied < end {
            let filled = || window::filled(window.head.word().look(), emptied, lines);
            if filled() == 0 {
                wait_until(1, emptied + 1, |_| window.head.word(), &mut wait).expect("nobody aborts");
            }
            let available = filled().clamp(1, (lines / 4).max(1)).min(end - emptied);
            for line in emptied..emptied + available {
                assert_eq!(window.ring[(line % lines) as usize].read(), line + 1, "line {line}");
            }
            emptied += available;
            window.tail.word().publish(emptied, &wait);
        }
    }
}
