//! Whether two devices are connected by NVLink: NVIDIA's management library knows, also of devices that this process does not
//! see.

use std::ffi::{CStr, CString, c_int};
use std::sync::OnceLock;

use super::super::Link;
use super::super::library::{self, refusal, text};
use super::api::{Nvml, Opaque, P2P_NVLINK, P2P_OK, SUCCESS};
use crate::error::Error;

/// The names under which it is looked for.
const NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// The link between two devices, by their addresses on the bus.
pub(super) fn link(own: &CStr, peer: &CString) -> Result<Link, Error> {
    let nvml = nvml()?;
    let (own, peer) = (device(&nvml, own)?, device(&nvml, peer)?);
    let mut status: c_int = -1;
    // SAFETY: both handles are the library's own; the status is a place for one number.
    let code = unsafe { (nvml.nvmlDeviceGetP2PStatus)(own, peer, P2P_NVLINK, &raw mut status) };
    check(&nvml, "nvmlDeviceGetP2PStatus", code)?;
    Ok(if status == P2P_OK { Link::Direct } else { Link::Bus })
}

fn nvml() -> Result<Nvml, Error> {
    static LOADED: OnceLock<Result<Nvml, Error>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let library = library::load("NVIDIA's management library", "UNISONO_NVML_LIBRARY", &NAMES)?;
            let nvml = Nvml::load(library)?;
            // SAFETY: takes nothing; may be called any number of times.
            check(&nvml, "nvmlInit", unsafe { (nvml.nvmlInit_v2)() })?;
            Ok(nvml)
        })
        .clone()
}

fn device(nvml: &Nvml, bus: &CStr) -> Result<Opaque, Error> {
    let mut device = std::ptr::null_mut();
    // SAFETY: the text ends with a zero; the handle is a place for one pointer.
    let code = unsafe { (nvml.nvmlDeviceGetHandleByPciBusId_v2)(bus.as_ptr(), &raw mut device) };
    check(nvml, "nvmlDeviceGetHandleByPciBusId", code)?;
    Ok(device)
}

fn check(nvml: &Nvml, call: &'static str, code: c_int) -> Result<(), Error> {
    if code == SUCCESS {
        return Ok(());
    }
    // SAFETY: any number may be asked about; the texts are the library's and stay.
    let description = unsafe { text((nvml.nvmlErrorString)(code)) };
    Err(refusal(call, code, "NVML", &description))
}
