//! `libcuda`.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use unisono_gpu::{Code, Driver, Error};

use crate::state::{CONTEXTS, MODE, State, lock, state};

pub(crate) const INVALID_VALUE: c_int = 1;
const NOT_INITIALIZED: c_int = 3;
const INVALID_DEVICE: c_int = 101;
const INVALID_CONTEXT: c_int = 201;
const NOT_FOUND: c_int = 500;
const LAUNCH_FAILED: c_int = 719;
const CAPTURE_UNSUPPORTED: c_int = 900;
const CAPTURE_INVALIDATED: c_int = 901;

const ALL: [(c_int, &CStr, &CStr); 8] = [
    (INVALID_VALUE, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
    (NOT_INITIALIZED, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
    (INVALID_DEVICE, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
    (INVALID_CONTEXT, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
    (NOT_FOUND, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
    (LAUNCH_FAILED, c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
    (
        CAPTURE_UNSUPPORTED,
        c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        c"operation not permitted when stream is capturing",
    ),
    (
        CAPTURE_INVALIDATED,
        c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        c"operation failed due to a previous error during capture",
    ),
];

/// The one context there is.
const CONTEXT: usize = 0xc0;

fn with_context(act: impl FnOnce(&State) -> c_int) -> c_int {
    if CONTEXTS.with_borrow(|contexts| contexts.last() != Some(&CONTEXT)) {
        return INVALID_CONTEXT;
    }
    state().map_or(NOT_INITIALIZED, act)
}

/// Of what is done at once, even while somebody captures.
pub(crate) fn now(act: impl FnOnce(&State) -> c_int) -> c_int {
    with_context(|state| if state.may_act_now() { act(state) } else { CAPTURE_UNSUPPORTED })
}

pub(crate) fn code(done: Result<(), Error>) -> c_int {
    if done.is_ok() { 0 } else { INVALID_VALUE }
}

unsafe fn put<T>(place: *mut T, found: Result<T, Error>) -> c_int {
    match found {
        Ok(found) => {
            // SAFETY: the caller's place.
            unsafe { place.write(found) };
            0
        }
        Err(_) => INVALID_VALUE,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: c_uint) -> c_int {
    if flags != 0 { INVALID_VALUE } else { state().map_or(NOT_INITIALIZED, |_| 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: c_int, name: *mut *const c_char) -> c_int {
    let found = ALL.iter().find(|(known, ..)| *known == code);
    // SAFETY: the caller's place.
    unsafe { name.write(found.map_or(std::ptr::null(), |(_, name, _)| name.as_ptr())) };
    if found.is_some() { 0 } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: c_int, text: *mut *const c_char) -> c_int {
    let found = ALL.iter().find(|(known, ..)| *known == code);
    // SAFETY: the caller's place.
    unsafe { text.write(found.map_or(std::ptr::null(), |(_, _, text)| text.as_ptr())) };
    if found.is_some() { 0 } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, index: c_int) -> c_int {
    if !(0..2).contains(&index) {
        return INVALID_DEVICE;
    }
    // SAFETY: the caller's place.
    unsafe { device.write(index) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(name: *mut c_char, length: c_int, device: c_int) -> c_int {
    let bus = format!("0000:{:02x}:{:02x}.0\0", std::process::id() % 251, device);
    if bus.len() > length as usize {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's place for so many bytes.
    unsafe { std::ptr::copy_nonoverlapping(bus.as_ptr(), name.cast(), bus.len()) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetByPCIBusId(device: *mut c_int, bus: *const c_char) -> c_int {
    // SAFETY: the caller's text ends with a zero.
    if !unsafe { CStr::from_ptr(bus) }.to_bytes().starts_with(b"0000:") {
        return INVALID_DEVICE;
    }
    // SAFETY: the caller's place.
    unsafe { device.write(1) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceCanAccessPeer(can: *mut c_int, own: c_int, peer: c_int) -> c_int {
    // SAFETY: the caller's place.
    unsafe { can.write(c_int::from(own != peer)) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, _device: c_int) -> c_int {
    // SAFETY: the caller's place.
    unsafe { context.write(std::ptr::without_provenance_mut(CONTEXT)) };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxPushCurrent_v2(context: *mut c_void) -> c_int {
    CONTEXTS.with_borrow_mut(|contexts| contexts.push(context.addr()));
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(context: *mut *mut c_void) -> c_int {
    let Some(popped) = CONTEXTS.with_borrow_mut(Vec::pop) else { return INVALID_CONTEXT };
    // SAFETY: the caller's place.
    unsafe { context.write(std::ptr::without_provenance_mut(popped)) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int {
    // SAFETY: the caller's place.
    now(|state| unsafe { put(address, state.device.allocate(bytes)) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    now(|state| code(state.device.free(address)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(memory: *mut *mut c_void, bytes: usize, flags: c_uint) -> c_int {
    if flags != 3 {
        return INVALID_VALUE;
    }
    let found = |state: &State| {
        state.device.allocate_host(bytes).map(|at| std::ptr::with_exposed_provenance_mut(at as usize))
    };
    // SAFETY: the caller's place.
    now(|state| unsafe { put(memory, found(state)) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostGetDevicePointer_v2(
    address: *mut u64,
    memory: *mut c_void,
    _flags: c_uint,
) -> c_int {
    // SAFETY: the caller's place.
    with_context(|state| unsafe { put(address, Ok(state.device_pointer(memory.addr()))) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostRegister_v2(memory: *mut c_void, bytes: usize, flags: c_uint) -> c_int {
    if flags != 3 {
        return INVALID_VALUE;
    }
    now(|state| state.register(memory.expose_provenance(), bytes).map_or(INVALID_VALUE, |()| 0))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostUnregister(memory: *mut c_void) -> c_int {
    now(|state| state.unregister(memory.addr()).map_or(INVALID_VALUE, |()| 0))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(memory: *mut c_void) -> c_int {
    now(|state| code(state.device.free_host(memory.addr() as u64)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, address: u64) -> c_int {
    with_context(|state| match state.device.allocation_of(address) {
        Ok(found) => {
            // SAFETY: the caller's places.
            unsafe {
                base.write(found.base);
                bytes.write(found.bytes);
            }
            0
        }
        Err(_) => INVALID_VALUE,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(
    address: u64,
    value: u8,
    bytes: usize,
    stream: *mut c_void,
) -> c_int {
    with_context(|state| {
        if state.is_captured(stream.addr()) || state.device.allocation_of(address).is_err() {
            return INVALID_VALUE;
        }
        // SAFETY: of memory just allocated, which nobody else knows of.
        unsafe {
            std::ptr::write_bytes(std::ptr::with_exposed_provenance_mut::<u8>(address as usize), value, bytes)
        };
        0
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, _stream: *mut c_void) -> c_int {
    with_context(|state| code(state.device.copy(from, to, bytes)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    _stream: *mut c_void,
) -> c_int {
    // SAFETY: the caller's bytes.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast(), bytes) };
    with_context(|state| code(state.device.write(to, bytes)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    _stream: *mut c_void,
) -> c_int {
    // SAFETY: the caller's place for so many bytes.
    let into = unsafe { std::slice::from_raw_parts_mut(to.cast(), bytes) };
    with_context(|state| code(state.device.read(from, into)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuIpcGetMemHandle(handle: *mut [u8; 64], address: u64) -> c_int {
    // SAFETY: the caller's place.
    with_context(|state| unsafe { put(handle, state.device.export(address)) })
}

/// `CUipcMemHandle`, by value.
#[repr(C)]
pub struct IpcHandle([u8; 64]);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuIpcOpenMemHandle_v2(address: *mut u64, handle: IpcHandle, flags: c_uint) -> c_int {
    if flags != 1 {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's place.
    now(|state| unsafe { put(address, state.device.open(&handle.0)) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuIpcCloseMemHandle(address: u64) -> c_int {
    now(|state| code(state.device.close(address)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut *mut c_void, _flags: c_uint) -> c_int {
    with_context(|state| {
        let mut last = lock(&state.streams);
        *last += 16;
        // SAFETY: the caller's place.
        unsafe { stream.write(std::ptr::without_provenance_mut(*last)) };
        0
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(_stream: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: *mut c_void) -> c_int {
    with_context(|state| {
        if state.is_captured(stream.addr()) {
            return CAPTURE_UNSUPPORTED;
        }
        // While another stream is captured, nothing is under way that could be waited for.
        match state.device.is_capturing() {
            Ok(true) => 0,
            _ => state.device.synchronize().map_or(LAUNCH_FAILED, |()| 0),
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(stream: *mut c_void, status: *mut c_int) -> c_int {
    // SAFETY: the caller's place.
    with_context(|state| unsafe { put(status, Ok(c_int::from(state.is_captured(stream.addr())))) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuThreadExchangeStreamCaptureMode(mode: *mut c_int) -> c_int {
    // SAFETY: the caller's place.
    unsafe { mode.write(MODE.replace(mode.read())) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut *mut c_void, image: *const c_void) -> c_int {
    // SAFETY: PTX comes as a text that ends with a zero.
    let Ok(text) = unsafe { CStr::from_ptr(image.cast()) }.to_str() else { return INVALID_VALUE };
    if !text.contains(".version") {
        return INVALID_VALUE;
    }
    let ptx: &'static str = Box::leak(text.to_owned().into_boxed_str());
    let none: &'static [u8] = &[];
    now(|state| {
        let number = state.add_module(Code { ptx, code_objects: [("gfx90a", none), ("gfx942", none)] });
        // SAFETY: the caller's place.
        unsafe { module.write(std::ptr::without_provenance_mut(number)) };
        0
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(_module: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut *mut c_void,
    module: *mut c_void,
    name: *const c_char,
) -> c_int {
    // SAFETY: the caller's text ends with a zero.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    now(|state| match state.kernel(module.addr(), &name) {
        Some(number) => {
            // SAFETY: the caller's place.
            unsafe { function.write(std::ptr::without_provenance_mut(number)) };
            0
        }
        None => NOT_FOUND,
    })
}

/// The parameters out of `extra`: pointer, size, end, as the vendor's numbers say.
pub(crate) unsafe fn parameters<'a>(extra: *mut *mut c_void, end: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's five words.
    let words = unsafe { std::slice::from_raw_parts(extra, 5) };
    if [words[0].addr(), words[2].addr(), words[4].addr()] != [1, 2, end] {
        return None;
    }
    // SAFETY: the third names a size, the first so many bytes.
    Some(unsafe { std::slice::from_raw_parts(words[1].cast(), *words[3].cast::<usize>()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    x: c_uint,
    y: c_uint,
    z: c_uint,
    threads: c_uint,
    threads_y: c_uint,
    threads_z: c_uint,
    _shared_bytes: c_uint,
    _stream: *mut c_void,
    kernel_parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> c_int {
    if [y, z, threads_y, threads_z] != [1; 4] || !kernel_parameters.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's.
    let Some(parameters) = (unsafe { parameters(extra, 0) }) else { return INVALID_VALUE };
    with_context(|state| state.launch(function.addr(), x, threads, parameters).map_or(INVALID_VALUE, code))
}

// What an engine calls, and the tests in its place.

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: *mut c_void, _mode: c_int) -> c_int {
    state()
        .map_or(NOT_INITIALIZED, |state| if state.begin_capture(stream.addr()) { 0 } else { INVALID_VALUE })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(stream: *mut c_void, graph: *mut *mut c_void) -> c_int {
    match state().and_then(|state| state.end_capture(stream.addr())) {
        Some(number) => {
            // SAFETY: the caller's place.
            unsafe { graph.write(std::ptr::without_provenance_mut(number)) };
            0
        }
        None => CAPTURE_INVALIDATED,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(graph: *mut c_void, _stream: *mut c_void) -> c_int {
    state().map_or(NOT_INITIALIZED, |state| code(state.replay(graph.addr())))
}
