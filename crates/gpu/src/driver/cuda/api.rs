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
/// `CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP`.
pub(super) const REGISTER_PORTABLE_MAPPED: c_uint = 1 | 2;
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
        cuMemHostRegister_v2: fn(*mut c_void, usize, c_uint) -> c_int,
        cuMemHostUnregister: fn(*mut c_void) -> c_int,
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

/// `CUmemGenericAllocationHandle`: memory without an address, or a multicast object.
pub(super) type Memory = u64;

/// `CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED`.
pub(super) const MULTICAST_SUPPORTED: c_int = 132;
/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`.
pub(super) const FILE_DESCRIPTOR: c_int = 1;
/// `CU_MEM_ALLOCATION_TYPE_PINNED`, `CU_MEM_LOCATION_TYPE_DEVICE`, `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
pub(super) const PINNED: c_int = 1;
pub(super) const ON_DEVICE: c_int = 1;
pub(super) const READ_WRITE: c_int = 3;
/// `CU_MULTICAST_GRANULARITY_MINIMUM`, `CU_MEM_ALLOC_GRANULARITY_MINIMUM`.
pub(super) const GRANULARITY_MINIMUM: c_int = 0;

/// `CUmulticastObjectProp`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct ObjectProperties {
    pub(super) devices: c_uint,
    pub(super) bytes: usize,
    pub(super) handle_types: u64,
    pub(super) flags: u64,
}

/// `CUmemLocation`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Location {
    pub(super) kind: c_int,
    pub(super) device: c_int,
}

/// `CUmemAllocationProp`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct AllocationProperties {
    pub(super) kind: c_int,
    pub(super) handle_types: c_int,
    pub(super) location: Location,
    pub(super) for_windows: *mut c_void,
    pub(super) flags: [u8; 8],
}

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    pub(super) location: Location,
    pub(super) flags: c_int,
}

functions! {
    /// What multicast objects take of `libcuda`; older drivers have not got it.
    Switch {
        cuDeviceGetAttribute: fn(*mut c_int, c_int, c_int) -> c_int,
        cuMulticastGetGranularity: fn(*mut usize, *const ObjectProperties, c_int) -> c_int,
        cuMulticastCreate: fn(*mut Memory, *const ObjectProperties) -> c_int,
        cuMulticastAddDevice: fn(Memory, c_int) -> c_int,
        cuMulticastBindMem: fn(Memory, usize, Memory, usize, usize, u64) -> c_int,
        cuMulticastUnbind: fn(Memory, c_int, usize, usize) -> c_int,
        cuMemGetAllocationGranularity: fn(*mut usize, *const AllocationProperties, c_int) -> c_int,
        cuMemCreate: fn(*mut Memory, usize, *const AllocationProperties, u64) -> c_int,
        cuMemRelease: fn(Memory) -> c_int,
        cuMemAddressReserve: fn(*mut Address, usize, usize, Address, u64) -> c_int,
        cuMemAddressFree: fn(Address, usize) -> c_int,
        cuMemMap: fn(Address, usize, usize, Memory, u64) -> c_int,
        cuMemUnmap: fn(Address, usize) -> c_int,
        cuMemSetAccess: fn(Address, usize, *const Access, usize) -> c_int,
        cuMemExportToShareableHandle: fn(*mut c_void, Memory, c_int, u64) -> c_int,
        cuMemImportFromShareableHandle: fn(*mut Memory, *mut c_void, c_int) -> c_int,
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
