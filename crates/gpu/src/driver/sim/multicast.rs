//! Multicast objects of simulated devices: memory of several, reached at once.

use unisono_ptx_sim::Allocations;

use super::{Device, Handle, refused};
use crate::driver::{Driver, Multicast};
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
    bound: Option<Bound>,
}

#[derive(Debug, Clone, Copy)]
struct Bound {
    own: u64,
    place: u64,
    address: u64,
}

impl Object {
    fn member(&mut self, device: usize) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.device == device)
    }
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

    pub(super) fn join(&self, handle: &Handle) -> Result<(), Error> {
        const CALL: &str = "join_multicast";
        self.with_object(CALL, handle, |object, _| {
            if object.member(self.device).is_some() {
                return Err(refused(CALL, "the device has joined already"));
            }
            if object.members.len() == object.devices {
                return Err(refused(CALL, format!("all {} devices have joined", object.devices)));
            }
            object.members.push(Member { device: self.device, bound: None });
            Ok(())
        })
    }

    /// With the last device that binds, all reach the object.
    pub(super) fn bind(&self, handle: &Handle) -> Result<Multicast, Error> {
        const CALL: &str = "bind_multicast";
        let bytes = self.with_object(CALL, handle, |object, _| {
            let (joined, devices) = (object.members.len(), object.devices);
            match object.member(self.device) {
                None => Err(refused(CALL, "the device has not joined")),
                Some(Member { bound: Some(_), .. }) => Err(refused(CALL, "the device has bound already")),
                Some(_) if joined < devices => {
                    Err(refused(CALL, format!("{joined} of {devices} devices have joined")))
                }
                Some(_) => Ok(object.bytes),
            }
        })?;
        let own = self.allocate(bytes)?;
        let (place, address) = self.with(|state| {
            let device = &mut state.devices[self.device];
            let address = device.next_address;
            device.next_address += (bytes as u64 + 512).next_multiple_of(512);
            let place = device.mapped.iter().find(|m| m.allocation.base == own).map(|m| m.place);
            place.map(|place| (place, address)).ok_or_else(|| refused(CALL, "what was allocated is gone"))
        })?;
        self.with_object(CALL, handle, |object, memory| {
            if let Some(member) = object.member(self.device) {
                member.bound = Some(Bound { own, place, address });
            }
            object.members.sort_by_key(|member| member.device);
            map(object, memory)
        })?;
        Ok(Multicast { own, all: address, bytes })
    }

    pub(super) fn leave(&self, handle: &Handle) -> Result<(), Error> {
        const CALL: &str = "leave_multicast";
        let bound = self.with_object(CALL, handle, |object, memory| {
            let position = object.members.iter().position(|member| member.device == self.device);
            let position = position.ok_or_else(|| refused(CALL, "the device has not joined"))?;
            let bound = object.members.remove(position).bound;
            if let Some(bound) = bound {
                memory.unmap_multicast(self.device, bound.address);
            }
            Ok(bound)
        })?;
        bound.map_or(Ok(()), |bound| self.free(bound.own))
    }

    fn with_object<T>(
        &self,
        call: &'static str,
        handle: &Handle,
        act: impl FnOnce(&mut Object, &mut Allocations) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut number = [0; 8];
        number.copy_from_slice(&handle[16..24]);
        let index = (u64::from_le_bytes(number) as usize).wrapping_sub(1);
        self.with(|state| {
            let object = state.multicasts.get_mut(index).filter(|_| handle[..16] == TAG[..]);
            let object = object.ok_or_else(|| refused(call, "the handle is of no multicast object"))?;
            act(object, state.machine.memory_mut())
        })
    }
}

/// Nothing before all have bound.
fn map(object: &Object, memory: &mut Allocations) -> Result<(), Error> {
    let bound: Vec<(usize, Bound)> =
        object.members.iter().filter_map(|member| Some((member.device, member.bound?))).collect();
    if bound.len() < object.devices {
        return Ok(());
    }
    let places: Vec<_> = bound.iter().map(|(_, bound)| bound.place).collect();
    for (device, Bound { address, .. }) in bound {
        if !memory.map_multicast(device, address, &places, object.bytes) {
            return Err(refused("bind_multicast", "the addresses are taken"));
        }
    }
    Ok(())
}
