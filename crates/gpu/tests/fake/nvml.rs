//! `libnvidia-ml`: all devices are connected as `UNISONO_SIM_LINK` says.

use std::ffi::{CStr, c_char, c_int, c_void};

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_code: c_int) -> *const c_char {
    c"Not Found".as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(
    bus: *const c_char,
    device: *mut *mut c_void,
) -> c_int {
    // SAFETY: the caller's text ends with a zero.
    if !unsafe { CStr::from_ptr(bus) }.to_bytes().starts_with(b"0000:") {
        return 6;
    }
    // SAFETY: the caller's place for a pointer.
    unsafe { *device = std::ptr::without_provenance_mut(7) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetP2PStatus(
    own: *mut c_void,
    peer: *mut c_void,
    index: c_int,
    status: *mut c_int,
) -> c_int {
    if own.addr() != 7 || peer.addr() != 7 || index != 2 {
        return 2;
    }
    let is_direct = std::env::var("UNISONO_SIM_LINK").map_or(true, |link| link == "direct");
    // SAFETY: the caller's place for a number.
    unsafe { *status = if is_direct { 0 } else { 5 } };
    0
}
