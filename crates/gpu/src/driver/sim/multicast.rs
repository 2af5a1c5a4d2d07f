//! Multicast objects of simulated devices: memory of several, reached at once.

use unisono_ptx_sim::Allocations;

use super::{Device, Handle, refused};
use crate::error::Error;

/// What handles of multicast objects begin with.
const TAG: &[u8; 16] = b"unisono-sim-mc\0\0";

/// An object: who has joined it, with what, and where each reaches it.
#[derive(Debug)]
pub(super) struct Object {
    devices: usize,
    bytes: usize,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    device: usize,
    place: u64,
    address: u64,
}

impl Device {
    pub(super) fn new_multicast(&self, devices: usize, bytes: usize) -> Handle {
        self.with(|state| {
            state.multicasts.push(Object { devices, bytes, members: Vec::new() });
            let mut handle = [0; 64];
            handle[..16].copy_from_slice(TAG);
            handle[16..24].copy_from_slice(&(state.multicasts.len() as u64).to_le_bytes());
            handle
        })
    }

    /// With the last device that joins, all reach the object.
    pub(super) fn join(&self, handle: &Handle, base: u64) -> Result<u64, Error> {
        const CALL: &str = "join_multicast";
        let mut number = [0; 8];
        number.copy_from_slice(&handle[16..24]);
        let index = (u64::from_le_bytes(number) as usize).wrapping_sub(1);
        self.with(|state| {
            let own =
                state.devices[self.device].mapped.iter().find(|m| m.allocation.base == base && m.is_own);
            let own = *own.ok_or_else(|| refused(CALL, format!("no own allocation begins at {base:#x}")))?;
            let object = state.multicasts.get_mut(index).filter(|_| handle[..16] == TAG[..]);
            let object = object.ok_or_else(|| refused(CALL, "the handle is of no multicast object"))?;
            if own.allocation.bytes < object.bytes {
                let (found, needed) = (own.allocation.bytes, object.bytes);
                return Err(Error::TooSmall { what: "the memory for a multicast object", found, needed });
            }
            if object.members.iter().any(|member| member.device == self.device) {
                return Err(refused(CALL, "the device has joined already"));
            }
            if object.members.len() == object.devices {
                return Err(refused(CALL, format!("all {} devices have joined", object.devices)));
            }
            let address = state.devices[self.device].next_address;
            state.devices[self.device].next_address += (object.bytes as u64 + 512).next_multiple_of(512);
            object.members.push(Member { device: self.device, place: own.place, address });
            if object.members.len() == object.devices {
                object.members.sort_by_key(|member| member.device);
                map(object, state.machine.memory_mut())?;
            }
            Ok(address)
        })
    }
}

fn map(object: &Object, memory: &mut Allocations) -> Result<(), Error> {
    let places: Vec<_> = object.members.iter().map(|member| member.place).collect();
    for Member { device, address, .. } in &object.members {
        if !memory.map_multicast(*device, *address, &places, object.bytes) {
            return Err(refused("join_multicast", "the addresses are taken"));
        }
    }
    Ok(())
}
