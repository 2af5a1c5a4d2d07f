//! The functions of AMD's runtime that are used, with the types of `hip/hip_runtime_api.h`.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::super::library::functions;

/// Device memory, streams, modules, functions: pointers.
pub(super) type Pointer = *mut c_void;

/// `hipIpcMemHandle_t`, passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct IpcHandle(pub(super) [u8; 64]);

pub(super) const SUCCESS: c_int = 0;
/// `hipErrorNoBinaryForGpu`: the code object is for another generation.
pub(super) const NO_BINARY_FOR_GPU: c_int = 209;
/// `hipErrorSharedObjectInitFailed`, `hipErrorInvalidImage`: as older runtimes say the same.
pub(super) const OTHER_IMAGE: [c_int; 2] = [303, 200];
/// `hipIpcMemLazyEnablePeerAccess`.
pub(super) const LAZY_ENABLE_PEER_ACCESS: c_uint = 1;
/// `hipDeviceMallocUncached`.
pub(super) const UNCACHED: c_uint = 3;
/// `hipHostMallocPortable | hipHostMallocMapped | hipHostMallocCoherent`.
pub(super) const HOST_PORTABLE_MAPPED_COHERENT: c_uint = 0x1 | 0x2 | 0x4000_0000;
/// `hipHostRegisterPortable | hipHostRegisterMapped`: fine-grained unless asked otherwise, so both sides' atomics see one another.
pub(super) const REGISTER_PORTABLE_MAPPED: c_uint = 1 | 2;
/// `hipMemcpyHostToDevice`, `hipMemcpyDeviceToHost`, `hipMemcpyDeviceToDevice`.
pub(super) const HOST_TO_DEVICE: c_int = 1;
pub(super) const DEVICE_TO_HOST: c_int = 2;
pub(super) const DEVICE_TO_DEVICE: c_int = 3;
/// `hipStreamCaptureStatusNone`.
pub(super) const NOT_CAPTURING: c_int = 0;
/// `hipStreamCaptureModeRelaxed`.
pub(super) const RELAXED: c_int = 2;
/// `hipStreamNonBlocking`.
pub(super) const NON_BLOCKING: c_uint = 1;
/// `HIP_LAUNCH_PARAM_BUFFER_POINTER`, `HIP_LAUNCH_PARAM_BUFFER_SIZE`, `HIP_LAUNCH_PARAM_END`.
pub(super) const LAUNCH_BUFFER: [usize; 3] = [1, 2, 3];
/// `HSA_AMD_LINK_INFO_TYPE_XGMI`.
pub(super) const LINK_XGMI: u32 = 4;

functions! {
    /// `libamdhip64`.
    Hip {
        hipInit: fn(c_uint) -> c_int,
        hipGetLastError: fn() -> c_int,
        hipGetErrorName: fn(c_int) -> *const c_char,
        hipGetErrorString: fn(c_int) -> *const c_char,
        hipGetDeviceCount: fn(*mut c_int) -> c_int,
        hipGetDevice: fn(*mut c_int) -> c_int,
        hipSetDevice: fn(c_int) -> c_int,
        hipDeviceGetPCIBusId: fn(*mut c_char, c_int, c_int) -> c_int,
        hipDeviceGetByPCIBusId: fn(*mut c_int, *const c_char) -> c_int,
        hipDeviceCanAccessPeer: fn(*mut c_int, c_int, c_int) -> c_int,
        hipExtGetLinkTypeAndHopCount: fn(c_int, c_int, *mut u32, *mut u32) -> c_int,
        hipMalloc: fn(*mut Pointer, usize) -> c_int,
        hipExtMallocWithFlags: fn(*mut Pointer, usize, c_uint) -> c_int,
        hipFree: fn(Pointer) -> c_int,
        hipHostMalloc: fn(*mut Pointer, usize, c_uint) -> c_int,
        hipHostGetDevicePointer: fn(*mut Pointer, Pointer, c_uint) -> c_int,
        hipHostFree: fn(Pointer) -> c_int,
        hipHostRegister: fn(Pointer, usize, c_uint) -> c_int,
        hipHostUnregister: fn(Pointer) -> c_int,
        hipMemGetAddressRange: fn(*mut Pointer, *mut usize, Pointer) -> c_int,
        hipMemsetAsync: fn(Pointer, c_int, usize, Pointer) -> c_int,
        hipMemcpyAsync: fn(Pointer, *const c_void, usize, c_int, Pointer) -> c_int,
        hipIpcGetMemHandle: fn(*mut IpcHandle, Pointer) -> c_int,
        hipIpcOpenMemHandle: fn(*mut Pointer, IpcHandle, c_uint) -> c_int,
        hipIpcCloseMemHandle: fn(Pointer) -> c_int,
        hipStreamCreateWithFlags: fn(*mut Pointer, c_uint) -> c_int,
        hipStreamDestroy: fn(Pointer) -> c_int,
        hipStreamSynchronize: fn(Pointer) -> c_int,
        hipStreamIsCapturing: fn(Pointer, *mut c_int) -> c_int,
        hipThreadExchangeStreamCaptureMode: fn(*mut c_int) -> c_int,
        hipModuleLoadData: fn(*mut Pointer, *const c_void) -> c_int,
        hipModuleUnload: fn(Pointer) -> c_int,
        hipModuleGetFunction: fn(*mut Pointer, Pointer, *const c_char) -> c_int,
        hipModuleLaunchKernel: fn(
            Pointer, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Pointer, *mut *mut c_void,
            *mut *mut c_void,
        ) -> c_int,
    }
}
