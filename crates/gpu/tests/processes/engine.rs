//! What an engine has on each rank: memory exchanged by handles, a staging buffer, streams that it can capture.

use std::ffi::{c_int, c_void};

use libloading::{Library, Symbol};
use unisono_gpu::driver::any::{Device, Platform};
use unisono_gpu::driver::sim::ProcessGraph;
use unisono_gpu::surface::{Surface, Tensor};
use unisono_gpu::{DType, Driver, META_BYTES};

use crate::hub::Rank;

pub(crate) const MOST_BYTES: usize = 64 << 10;

pub(crate) struct Engine<'a> {
    pub(crate) rank: &'a Rank,
    pub(crate) surface: Surface,
    pub(crate) device: Device,
    pub(crate) stream: u64,
    vendor: Option<Library>,
    pub(crate) fa: i64,
    /// Where every rank's memory for signals, and staging buffer, is as seen here.
    pub(crate) metas: Vec<u64>,
    pub(crate) staging: Vec<u64>,
}

/// What was captured.
pub(crate) enum Graph {
    Sim(ProcessGraph),
    Vendor(usize),
}

/// Device memory as a tensor.
pub(crate) fn tensor(address: u64, elements: usize, dtype: DType) -> Tensor {
    Tensor {
        address,
        elements,
        element_bytes: dtype.size(),
        dtype: Some(dtype),
        is_contiguous: true,
        storage_bytes: elements * dtype.size(),
    }
}

impl<'a> Engine<'a> {
    pub(crate) fn new(rank: &'a Rank) -> Self {
        let surface = Surface::new();
        // The second one, so that what is current for a thread has to be changed, and put back.
        let device = surface.device(1).unwrap();
        let vendor = vendor_of(&device);
        let stream = vendor.as_ref().map_or(0, |vendor| new_stream(vendor, device.platform()));
        device.set_stream(stream);
        let mut engine =
            Self { rank, surface, device, stream, vendor, fa: 0, metas: Vec::new(), staging: Vec::new() };
        engine.metas = engine.shared(META_BYTES + MOST_BYTES);
        engine.staging = engine.shared(MOST_BYTES);
        let table = engine.device.allocate(64 * 16).unwrap();
        let table = Tensor { element_bytes: 1, dtype: None, ..tensor(table, 64 * 16, DType::F32) };
        let table = Tensor { storage_bytes: 64 * 16, ..table };
        let (surface, metas) = (&engine.surface, integers(&engine.metas));
        engine.fa =
            surface.init_custom_ar(engine.device.clone(), &metas, &table, rank.rank as i64, true).unwrap();
        engine.surface.register_buffer(engine.fa, &integers(&engine.staging)).unwrap();
        rank.meet();
        engine
    }

    /// The same on every rank; where each rank's is, as seen here.
    pub(crate) fn shared(&self, bytes: usize) -> Vec<u64> {
        let own = self.device.allocate(bytes).unwrap();
        let handles = self.rank.exchange(&self.device.export(own).unwrap());
        let seen = handles.iter().enumerate().map(|(peer, handle)| match peer == self.rank.rank {
            true => own,
            false => self.device.open(&handle[..].try_into().unwrap()).unwrap(),
        });
        seen.collect()
    }

    /// Own memory with these bytes in it.
    pub(crate) fn filled(&self, bytes: &[u8]) -> u64 {
        let address = self.device.allocate(bytes.len().max(16)).unwrap();
        self.device.write(address, bytes).unwrap();
        address
    }

    pub(crate) fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut found = vec![0; bytes];
        self.device.read(address, &mut found).unwrap();
        found
    }

    pub(crate) fn begin_capture(&self) {
        match (&self.device, &self.vendor) {
            (Device::Sim(device), _) => device.begin_capture(),
            (_, Some(vendor)) => {
                let name: &[u8] = match self.device.platform() {
                    Platform::Cuda => b"cuStreamBeginCapture_v2",
                    _ => b"hipStreamBeginCapture",
                };
                // SAFETY: the type as the vendors declare it; mode 0 is the strictest.
                let code = unsafe {
                    let begin: Symbol<'_, unsafe extern "C" fn(*mut c_void, c_int) -> c_int> =
                        vendor.get(name).unwrap();
                    begin(pointer(self.stream), 0)
                };
                assert_eq!(code, 0);
            }
            _ => unreachable!("a vendor's device without its library"),
        }
    }

    pub(crate) fn end_capture(&self) -> Graph {
        match (&self.device, &self.vendor) {
            (Device::Sim(device), _) => Graph::Sim(device.end_capture().unwrap()),
            (_, Some(vendor)) => {
                let name: &[u8] = match self.device.platform() {
                    Platform::Cuda => b"cuStreamEndCapture",
                    _ => b"hipStreamEndCapture",
                };
                let mut graph = std::ptr::null_mut();
                // SAFETY: the type as the vendors declare it; a place for one pointer.
                let code = unsafe {
                    let end: Symbol<'_, unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int> =
                        vendor.get(name).unwrap();
                    end(pointer(self.stream), &raw mut graph)
                };
                assert_eq!(code, 0, "something has spoilt the capture");
                Graph::Vendor(graph.addr())
            }
            _ => unreachable!("a vendor's device without its library"),
        }
    }

    pub(crate) fn replay(&self, graph: &Graph) {
        match (graph, &self.device, &self.vendor) {
            (Graph::Sim(graph), Device::Sim(device), _) => device.replay(graph).unwrap(),
            (Graph::Vendor(graph), _, Some(vendor)) => {
                let name: &[u8] = match self.device.platform() {
                    Platform::Cuda => b"cuGraphLaunch",
                    _ => b"hipGraphLaunch",
                };
                // SAFETY: the type as the vendors declare it.
                let code = unsafe {
                    let launch: Symbol<'_, unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int> =
                        vendor.get(name).unwrap();
                    launch(pointer(*graph as u64), pointer(self.stream))
                };
                assert_eq!(code, 0);
            }
            _ => unreachable!("another device's graph"),
        }
    }
}

pub(crate) fn integers(addresses: &[u64]) -> Vec<i64> {
    addresses.iter().map(|address| address.cast_signed()).collect()
}

fn pointer(number: u64) -> *mut c_void {
    std::ptr::without_provenance_mut(number as usize)
}

fn vendor_of(device: &Device) -> Option<Library> {
    let variable = match device.platform() {
        Platform::Sim => return None,
        Platform::Cuda => "UNISONO_CUDA_LIBRARY",
        Platform::Hip => "UNISONO_HIP_LIBRARY",
    };
    // SAFETY: the library that the driver has loaded already.
    Some(unsafe { Library::new(std::env::var(variable).unwrap()) }.unwrap())
}

/// Created as an engine does it: with the device current.
fn new_stream(vendor: &Library, platform: Platform) -> u64 {
    let mut stream = std::ptr::null_mut();
    type Create = unsafe extern "C" fn(*mut *mut c_void, u32) -> c_int;
    // SAFETY: the types as the vendors declare them; a place for one pointer.
    let code = unsafe {
        match platform {
            Platform::Cuda => {
                let push: Symbol<'_, unsafe extern "C" fn(*mut c_void) -> c_int> =
                    vendor.get(b"cuCtxPushCurrent_v2").unwrap();
                let retain: Symbol<'_, unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int> =
                    vendor.get(b"cuDevicePrimaryCtxRetain").unwrap();
                let mut context = std::ptr::null_mut();
                assert_eq!(retain(&raw mut context, 1), 0);
                assert_eq!(push(context), 0);
                let code = vendor.get::<Create>(b"cuStreamCreate").unwrap()(&raw mut stream, 0);
                let pop: Symbol<'_, unsafe extern "C" fn(*mut *mut c_void) -> c_int> =
                    vendor.get(b"cuCtxPopCurrent_v2").unwrap();
                assert_eq!(pop(&raw mut context), 0);
                code
            }
            _ => {
                let set: Symbol<'_, unsafe extern "C" fn(c_int) -> c_int> =
                    vendor.get(b"hipSetDevice").unwrap();
                assert_eq!(set(1), 0);
                let code = vendor.get::<Create>(b"hipStreamCreateWithFlags").unwrap()(&raw mut stream, 0);
                assert_eq!(set(0), 0);
                code
            }
        }
    };
    assert_eq!(code, 0);
    stream.addr() as u64
}
