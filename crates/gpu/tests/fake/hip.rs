//! `libamdhip64`, of a machine whose devices are gfx942: other code objects are refused.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use unisono_gpu::packet::packet_artefacts;
use unisono_gpu::{Code, Driver, Error, artefacts};

use crate::cuda::parameters;
use crate::state::{DEVICE, MODE, State, lock, state};

const INVALID_VALUE: c_int = 1;
const NOT_INITIALIZED: c_int = 3;
const INVALID_DEVICE: c_int = 101;
const NO_BINARY_FOR_GPU: c_int = 209;
const NOT_FOUND: c_int = 500;
const LAUNCH_FAILURE: c_int = 719;
const CAPTURE_UNSUPPORTED: c_int = 900;
const CAPTURE_INVALIDATED: c_int = 901;

const ALL: [(c_int, &CStr, &CStr); 8] = [
    (INVALID_VALUE, c"hipErrorInvalidValue", c"invalid argument"),
    (NOT_INITIALIZED, c"hipErrorNotInitialized", c"initialization error"),
    (INVALID_DEVICE, c"hipErrorInvalidDevice", c"invalid device ordinal"),
    (
        NO_BINARY_FOR_GPU,
        c"hipErrorNoBinaryForGpu",
        c"no kernel image is available for execution on the device",
    ),
    (NOT_FOUND, c"hipErrorNotFound", c"named symbol not found"),
    (LAUNCH_FAILURE, c"hipErrorLaunchFailure", c"unspecified launch failure"),
    (
        CAPTURE_UNSUPPORTED,
        c"hipErrorStreamCaptureUnsupported",
        c"operation not permitted when stream is capturing",
    ),
    (
        CAPTURE_INVALIDATED,
        c"hipErrorStreamCaptureInvalidated",
        c"operation failed due to a previous error during capture",
    ),
];

thread_local! {
    /// The code object that this thread had refused: the runtime remembers what failed until it is asked.
    static LAST: Cell<c_int> = const { Cell::new(0) };
}

/// Calls are to be made with the second device current: the first is what a thread has unless it says otherwise.
const OWN: c_int = 1;

fn with_device(act: impl FnOnce(&State) -> c_int) -> c_int {
    if DEVICE.get() != OWN {
        return INVALID_DEVICE;
    }
    state().map_or(NOT_INITIALIZED, act)
}

/// Of what is done at once, even while somebody captures.
fn now(act: impl FnOnce(&State) -> c_int) -> c_int {
    with_device(|state| if state.may_act_now() { act(state) } else { CAPTURE_UNSUPPORTED })
}

fn code(done: Result<(), Error>) -> c_int {
    if done.is_ok() { 0 } else { INVALID_VALUE }
}

fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
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
pub extern "C" fn hipInit(_flags: c_uint) -> c_int {
    state().map_or(NOT_INITIALIZED, |_| 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn hipGetLastError() -> c_int {
    LAST.take()
}

#[unsafe(no_mangle)]
pub extern "C" fn hipGetErrorName(code: c_int) -> *const c_char {
    ALL.iter().find(|(known, ..)| *known == code).map_or(c"hipErrorUnknown", |found| found.1).as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn hipGetErrorString(code: c_int) -> *const c_char {
    ALL.iter().find(|(known, ..)| *known == code).map_or(c"unknown error", |found| found.2).as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipGetDeviceCount(count: *mut c_int) -> c_int {
    // SAFETY: the caller's place.
    unsafe { put(count, Ok(2)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipGetDevice(device: *mut c_int) -> c_int {
    // SAFETY: the caller's place.
    unsafe { put(device, Ok(DEVICE.get())) }
}

#[unsafe(no_mangle)]
pub extern "C" fn hipSetDevice(device: c_int) -> c_int {
    DEVICE.set(device);
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipDeviceGetPCIBusId(name: *mut c_char, length: c_int, device: c_int) -> c_int {
    // SAFETY: handed on.
    unsafe { crate::cuda::cuDeviceGetPCIBusId(name, length, device) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipDeviceGetByPCIBusId(device: *mut c_int, bus: *const c_char) -> c_int {
    // SAFETY: handed on.
    unsafe { crate::cuda::cuDeviceGetByPCIBusId(device, bus) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipDeviceCanAccessPeer(can: *mut c_int, _own: c_int, _peer: c_int) -> c_int {
    // SAFETY: the caller's place.
    unsafe { put(can, Ok(1)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipExtGetLinkTypeAndHopCount(
    _own: c_int,
    _peer: c_int,
    kind: *mut u32,
    hops: *mut u32,
) -> c_int {
    let is_direct = std::env::var("UNISONO_SIM_LINK").map_or(true, |link| link == "direct");
    // SAFETY: the caller's places.
    unsafe {
        kind.write(if is_direct { 4 } else { 2 });
        hops.write(1);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipMalloc(memory: *mut *mut c_void, bytes: usize) -> c_int {
    // SAFETY: the caller's place.
    now(|state| unsafe { put(memory, state.device.allocate(bytes).map(pointer)) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipExtMallocWithFlags(
    memory: *mut *mut c_void,
    bytes: usize,
    flags: c_uint,
) -> c_int {
    // SAFETY: handed on.
    if flags == 3 { unsafe { hipMalloc(memory, bytes) } } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub extern "C" fn hipFree(memory: *mut c_void) -> c_int {
    now(|state| code(state.device.free(memory.addr() as u64)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipHostMalloc(memory: *mut *mut c_void, bytes: usize, flags: c_uint) -> c_int {
    if flags != 0x4000_0003 {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's place.
    now(|state| unsafe { put(memory, state.device.allocate_host(bytes).map(pointer)) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipHostGetDevicePointer(
    mapped: *mut *mut c_void,
    memory: *mut c_void,
    _flags: c_uint,
) -> c_int {
    // SAFETY: the caller's place.
    with_device(|state| unsafe { put(mapped, Ok(pointer(state.device_pointer(memory.addr())))) })
}

#[unsafe(no_mangle)]
pub extern "C" fn hipHostRegister(memory: *mut c_void, bytes: usize, flags: c_uint) -> c_int {
    if flags != 3 {
        return INVALID_VALUE;
    }
    now(|state| state.register(memory.expose_provenance(), bytes).map_or(INVALID_VALUE, |()| 0))
}

#[unsafe(no_mangle)]
pub extern "C" fn hipHostUnregister(memory: *mut c_void) -> c_int {
    now(|state| state.unregister(memory.addr()).map_or(INVALID_VALUE, |()| 0))
}

#[unsafe(no_mangle)]
pub extern "C" fn hipHostFree(memory: *mut c_void) -> c_int {
    now(|state| code(state.device.free_host(memory.addr() as u64)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipMemGetAddressRange(
    base: *mut *mut c_void,
    bytes: *mut usize,
    address: *mut c_void,
) -> c_int {
    with_device(|state| match state.device.allocation_of(address.addr() as u64) {
        Ok(found) => {
            // SAFETY: the caller's places.
            unsafe {
                base.write(pointer(found.base));
                bytes.write(found.bytes);
            }
            0
        }
        Err(_) => INVALID_VALUE,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipMemsetAsync(
    memory: *mut c_void,
    value: c_int,
    bytes: usize,
    stream: *mut c_void,
) -> c_int {
    with_device(|state| {
        let is_known = state.device.allocation_of(memory.addr() as u64).is_ok();
        if state.is_captured(stream.addr()) || !is_known {
            return INVALID_VALUE;
        }
        // SAFETY: of memory just allocated, which nobody else knows of.
        unsafe { std::ptr::write_bytes(memory.cast::<u8>(), value as u8, bytes) };
        0
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipMemcpyAsync(
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
    kind: c_int,
    _stream: *mut c_void,
) -> c_int {
    let (to_address, from_address) = (to.addr() as u64, from.addr() as u64);
    with_device(|state| match kind {
        1 => {
            // SAFETY: the kind says that these are the host's.
            let bytes = unsafe { std::slice::from_raw_parts(from.cast(), bytes) };
            code(state.device.write(to_address, bytes))
        }
        2 => {
            // SAFETY: as above.
            let into = unsafe { std::slice::from_raw_parts_mut(to.cast(), bytes) };
            code(state.device.read(from_address, into))
        }
        3 => code(state.device.copy(from_address, to_address, bytes)),
        _ => INVALID_VALUE,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipIpcGetMemHandle(handle: *mut [u8; 64], memory: *mut c_void) -> c_int {
    // SAFETY: the caller's place.
    with_device(|state| unsafe { put(handle, state.device.export(memory.addr() as u64)) })
}

/// `hipIpcMemHandle_t`, by value.
#[repr(C)]
pub struct IpcHandle([u8; 64]);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipIpcOpenMemHandle(
    memory: *mut *mut c_void,
    handle: IpcHandle,
    flags: c_uint,
) -> c_int {
    if flags != 1 {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's place.
    now(|state| unsafe { put(memory, state.device.open(&handle.0).map(pointer)) })
}

#[unsafe(no_mangle)]
pub extern "C" fn hipIpcCloseMemHandle(memory: *mut c_void) -> c_int {
    now(|state| code(state.device.close(memory.addr() as u64)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipStreamCreateWithFlags(stream: *mut *mut c_void, _flags: c_uint) -> c_int {
    with_device(|state| {
        let mut last = lock(&state.streams);
        *last += 16;
        // SAFETY: the caller's place.
        unsafe { stream.write(std::ptr::without_provenance_mut(*last)) };
        0
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn hipStreamDestroy(_stream: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn hipStreamSynchronize(stream: *mut c_void) -> c_int {
    with_device(|state| {
        if state.is_captured(stream.addr()) {
            return CAPTURE_UNSUPPORTED;
        }
        // While another stream is captured, nothing is under way that could be waited for.
        match state.device.is_capturing() {
            Ok(true) => 0,
            _ => state.device.synchronize().map_or(LAUNCH_FAILURE, |()| 0),
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipStreamIsCapturing(stream: *mut c_void, status: *mut c_int) -> c_int {
    // SAFETY: the caller's place.
    with_device(|state| unsafe { put(status, Ok(c_int::from(state.is_captured(stream.addr())))) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipThreadExchangeStreamCaptureMode(mode: *mut c_int) -> c_int {
    // SAFETY: the caller's place.
    unsafe { mode.write(MODE.replace(mode.read())) };
    0
}

/// The shipped kernels whose code object for gfx942 this is. Compares no further than to the first difference.
unsafe fn shipped(image: *const u8) -> Option<Code> {
    let packets = packet_artefacts().map(|artefact| artefact.kernel.code());
    artefacts().into_iter().map(|artefact| artefact.algorithm.code()).chain(packets).find(|code| {
        // SAFETY: an image that has been equal so far is not shorter.
        code.code_objects[1].1.iter().enumerate().all(|(at, byte)| unsafe { *image.add(at) } == *byte)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipModuleLoadData(module: *mut *mut c_void, image: *const c_void) -> c_int {
    // SAFETY: the caller's image.
    let Some(code) = (unsafe { shipped(image.cast()) }) else {
        LAST.set(NO_BINARY_FOR_GPU);
        return NO_BINARY_FOR_GPU;
    };
    now(|state| {
        let number = state.add_module(code);
        // SAFETY: the caller's place.
        unsafe { module.write(std::ptr::without_provenance_mut(number)) };
        0
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn hipModuleUnload(_module: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipModuleGetFunction(
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

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipModuleLaunchKernel(
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
    // As an engine's next launch would find it.
    if LAST.get() != 0 {
        return LAST.get();
    }
    // SAFETY: the caller's.
    let Some(parameters) = (unsafe { parameters(extra, 3) }) else { return INVALID_VALUE };
    with_device(|state| state.launch(function.addr(), x, threads, parameters).map_or(INVALID_VALUE, code))
}

// What an engine calls, and the tests in its place.

#[unsafe(no_mangle)]
pub extern "C" fn hipStreamBeginCapture(stream: *mut c_void, _mode: c_int) -> c_int {
    state()
        .map_or(NOT_INITIALIZED, |state| if state.begin_capture(stream.addr()) { 0 } else { INVALID_VALUE })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipStreamEndCapture(stream: *mut c_void, graph: *mut *mut c_void) -> c_int {
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
pub extern "C" fn hipGraphLaunch(graph: *mut c_void, _stream: *mut c_void) -> c_int {
    state().map_or(NOT_INITIALIZED, |state| code(state.replay(graph.addr())))
}
