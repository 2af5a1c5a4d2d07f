//! The functions of NVIDIA's driver and of its management library that are used, with the types of `cuda.h` and `nvml.h`.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::super::library::functions;

/// `CUdeviceptr`.
pub(super) type Address = u64;
/// `CUcontext`, `CUmodule`, `CUfunction`, `CUstream`: pointers that only the driver looks behind.
pub(super) type Opaque = *mut c_void;

/// `CUipcMemHandle`, passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct IpcHandle(pub(super) [u8; 64]);

/// `CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`: the only flag that opening takes.
pub(super) const LAZY_ENABLE_PEER_ACCESS: c_uint = 1;
/// `CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP`.
pub(super) const HOST_PORTABLE_MAPPED: c_uint = 1 | 2;
/// `CU_STREAM_CAPTURE_STATUS_NONE`.
pub(super) const NOT_CAPTURING: c_int = 0;
/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
pub(super) const RELAXED: c_int = 2;
/// `CU_STREAM_NON_BLOCKING`.
pub(super) const NON_BLOCKING: c_uint = 1;
/// `CU_LAUNCH_PARAM_BUFFER_POINTER`, `CU_LAUNCH_PARAM_BUFFER_SIZE`, `CU_LAUNCH_PARAM_END`.
pub(super) const LAUNCH_BUFFER: [usize; 3] = [1, 2, 0];
/// `CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED` and its like are not met: peers' memory is only opened by handle.
pub(super) const SUCCESS: c_int = 0;

functions! {
    /// `libcuda`.
    Cuda {
        cuInit: fn(c_uint) -> c_int,
        cuGetErrorName: fn(c_int, *mut *const c_char) -> c_int,
        cuGetErrorString: fn(c_int, *mut *const c_char) -> c_int,
        cuDeviceGet: fn(*mut c_int, c_int) -> c_int,
        cuDeviceGetPCIBusId: fn(*mut c_char, c_int, c_int) -> c_int,
        cuDeviceGetByPCIBusId: fn(*mut c_int, *const c_char) -> c_int,
        cuDeviceCanAccessPeer: fn(*mut c_int, c_int, c_int) -> c_int,
        cuDevicePrimaryCtxRetain: fn(*mut Opaque, c_int) -> c_int,
        cuDevicePrimaryCtxRelease_v2: fn(c_int) -> c_int,
        cuCtxPushCurrent_v2: fn(Opaque) -> c_int,
        cuCtxPopCurrent_v2: fn(*mut Opaque) -> c_int,
        cuMemAlloc_v2: fn(*mut Address, usize) -> c_int,
        cuMemFree_v2: fn(Address) -> c_int,
        cuMemHostAlloc: fn(*mut *mut c_void, usize, c_uint) -> c_int,
        cuMemHostGetDevicePointer_v2: fn(*mut Address, *mut c_void, c_uint) -> c_int,
        cuMemFreeHost: fn(*mut c_void) -> c_int,
        cuMemGetAddressRange_v2: fn(*mut Address, *mut usize, Address) -> c_int,
        cuMemsetD8Async: fn(Address, u8, usize, Opaque) -> c_int,
        cuMemcpyDtoDAsync_v2: fn(Address, Address, usize, Opaque) -> c_int,
        cuMemcpyHtoDAsync_v2: fn(Address, *const c_void, usize, Opaque) -> c_int,
        cuMemcpyDtoHAsync_v2: fn(*mut c_void, Address, usize, Opaque) -> c_int,
        cuIpcGetMemHandle: fn(*mut IpcHandle, Address) -> c_int,
        cuIpcOpenMemHandle_v2: fn(*mut Address, IpcHandle, c_uint) -> c_int,
        cuIpcCloseMemHandle: fn(Address) -> c_int,
        cuStreamCreate: fn(*mut Opaque, c_uint) -> c_int,
        cuStreamDestroy_v2: fn(Opaque) -> c_int,
        cuStreamSynchronize: fn(Opaque) -> c_int,
        cuStreamIsCapturing: fn(Opaque, *mut c_int) -> c_int,
        cuThreadExchangeStreamCaptureMode: fn(*mut c_int) -> c_int,
        cuModuleLoadData: fn(*mut Opaque, *const c_void) -> c_int,
        cuModuleUnload: fn(Opaque) -> c_int,
        cuModuleGetFunction: fn(*mut Opaque, Opaque, *const c_char) -> c_int,
        cuLaunchKernel: fn(
            Opaque, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Opaque, *mut *mut c_void,
            *mut *mut c_void,
        ) -> c_int,
    }
}

/// `NVML_P2P_CAPS_INDEX_NVLINK`, `NVML_P2P_STATUS_OK`.
pub(super) const P2P_NVLINK: c_int = 2;
pub(super) const P2P_OK: c_int = 0;

functions! {
    /// `libnvidia-ml`.
    Nvml {
        nvmlInit_v2: fn() -> c_int,
        nvmlErrorString: fn(c_int) -> *const c_char,
        nvmlDeviceGetHandleByPciBusId_v2: fn(*const c_char, *mut Opaque) -> c_int,
        nvmlDeviceGetP2PStatus: fn(Opaque, Opaque, c_int, *mut c_int) -> c_int,
    }
}
