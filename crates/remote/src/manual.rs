//! Who may hear a publisher: those whom it lets in by hand.
//!
//! An XPUB socket sends to whoever subscribes. Set to `ZMQ_XPUB_MANUAL` it only tells what somebody wants to hear, and the
//! publisher grants that, or something else, or nothing. The grant goes to whoever sent the word that was received last,
//! which ZeroMQ remembers as a pointer, and goes on remembering when the connection is gone by then. The one invariant that
//! matters: **a grant is given only when its asker is known to be there**, see [`grant`].

#![allow(unsafe_code)]

use std::ffi::c_int;

/// Let nobody hear anything without a grant, and never drop what does not fit.
pub(crate) fn let_in_by_hand(socket: &mut zmq::Socket) -> zmq::Result<()> {
    set(socket, zmq_sys::ZMQ_XPUB_MANUAL)?;
    set(socket, zmq_sys::ZMQ_XPUB_NODROP)
}

fn set(socket: &mut zmq::Socket, option: u32) -> zmq::Result<()> {
    let on: c_int = 1;
    // SAFETY: the socket is open as long as it is borrowed; the option takes an int, which is read during the call.
    let result = unsafe {
        zmq_sys::zmq_setsockopt(
            socket.as_mut_ptr(),
            option as c_int,
            (&raw const on).cast(),
            size_of::<c_int>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(zmq::Error::from_raw(last_error())) }
}

fn last_error() -> c_int {
    // SAFETY: it reads the calling thread's error number.
    unsafe { zmq_sys::zmq_errno() }
}

/// Let the sender of the subscription that was received last hear `topic`, if it is certain that it is still connected;
/// else say `false`: it has to ask again. To be called directly after the subscription was received.
///
/// A connection that ends leaves an unsubscription to be received for each of its subscriptions, and its memory is given
/// back by the same calls that put that there. So when the last subscription was received and then, having looked for news,
/// there is nothing more to be received, its sender's connection is there; and setting an option does not look for news.
pub(crate) fn grant(socket: &zmq::Socket, topic: &[u8]) -> zmq::Result<bool> {
    if socket.get_events()?.contains(zmq::POLLIN) {
        return Ok(false);
    }
    socket.set_subscribe(topic)?;
    Ok(true)
}
