//! Words of the host's that a device reaches.

use std::sync::Arc;

use unisono_gpu::packet::{HostWords, MapHost};
use unisono_gpu::surface::Surface;
use unisono_gpu::{Driver, Error};

use crate::hub::Rank;

pub(crate) fn stay(_: &Rank) {
    let device = Surface::new().device(1).unwrap();
    let [taken, kept] = [(); 2].map(|()| Arc::new(HostWords::new(10).unwrap()));
    let addresses = [&taken, &kept].map(|words| device.map_host(words).unwrap());
    device.unmap_host(addresses[0]).unwrap();
    assert_eq!(Arc::strong_count(&taken), 1);
    // SAFETY: the test harness's other threads read no variables meanwhile.
    unsafe { std::env::set_var("UNISONO_FAKE_STAYS_REGISTERED", "1") };
    assert!(matches!(device.unmap_host(addresses[1]), Err(Error::Driver { .. })));
    assert_eq!(Arc::strong_count(&kept), 2, "the device may still reach them");
    // So do those that are left to the end.
    device.map_host(&taken).unwrap();
    device.synchronize().unwrap();
    drop(device);
    assert_eq!(Arc::strong_count(&taken), 2);
}
