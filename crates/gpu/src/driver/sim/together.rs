//! Multicast objects of simulated devices in processes of their own.
//!
//! An object is a memory that all who take part have mapped: how many there are, how many have come, and for each the handle of the
//! memory that it gives. A launch looks for the others' memories first, so that whoever launches before all have bound is told.
//!
//! The invariant: a member's words are written by that member alone, once, and count from when its mark is set.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

use unisono_os::mapping::{Access, Mapping};
use unisono_os::{memfd, process};

use super::memory::{Owner, Region};
use super::process::{ProcessDevice, inode_of, lock, said, word};
use super::refused;
use crate::driver::{Driver, Handle};
use crate::error::Error;
use crate::layout::MAX_RANKS;

/// What handles of objects begin with.
const TAG: &[u8; 16] = b"unisono-sim-mcp\0";

/// Words of 8 bytes: how many devices, how many bytes, how many have joined; then for each a mark and its memory's handle.
const DEVICES: usize = 0;
const BYTES: usize = 1;
const JOINED: usize = 2;
const MEMBERS: usize = 3;
const MEMBER_WORDS: usize = 9;
const OBJECT_BYTES: usize = 8 * (MEMBERS + MAX_RANKS * MEMBER_WORDS);

/// The objects in which a device takes part, by their handles.
#[derive(Debug, Default)]
pub(super) struct Objects {
    all: Mutex<HashMap<Handle, Member>>,
}

#[derive(Debug)]
struct Member {
    object: Arc<Mapping>,
    /// By which others open the object: kept by whoever made it.
    _descriptor: Option<OwnedFd>,
    /// The own place among the members, once joined.
    index: Option<usize>,
    /// The own memory, and where all memories are reached.
    bound: Option<(u64, u64)>,
    parts: Arc<Parts>,
}

/// Where the memories of an object's members are in this process, once that is known.
#[derive(Debug, Default)]
pub(super) struct Parts {
    bases: OnceLock<Vec<u64>>,
}

impl Parts {
    /// What all have so far behind the beginning.
    pub(super) fn places(&self, offset: u64) -> Option<Vec<u64>> {
        self.bases.get().map(|bases| bases.iter().map(|base| base + offset).collect())
    }
}

fn load(object: &Mapping, index: usize) -> u64 {
    // Acquire: whoever finds a mark finds what it marks.
    object.atomic_u64(8 * index).map_or(0, |word| word.load(Ordering::Acquire))
}

fn store(object: &Mapping, index: usize, value: u64) {
    if let Some(word) = object.atomic_u64(8 * index) {
        // Release: pairs with the acquire of `load`.
        word.store(value, Ordering::Release);
    }
}

impl ProcessDevice {
    pub(super) fn new_together(&self, devices: usize, bytes: usize) -> Result<Handle, Error> {
        const CALL: &str = "create_multicast";
        if !(1..=MAX_RANKS).contains(&devices) || bytes == 0 {
            return Err(refused(CALL, format!("{bytes} bytes of each of {devices} devices")));
        }
        let descriptor = memfd::create_sealed("unisono-sim", OBJECT_BYTES).map_err(|e| said(CALL, &e))?;
        let object = Mapping::shared(descriptor.as_fd(), 0, OBJECT_BYTES, Access::ReadWrite);
        let object = object.map_err(|e| said(CALL, &e))?;
        store(&object, DEVICES, devices as u64);
        store(&object, BYTES, bytes as u64);
        let mut handle = [0; 64];
        handle[..16].copy_from_slice(TAG);
        handle[16..20].copy_from_slice(&process::pid().to_le_bytes());
        handle[20..24].copy_from_slice(&descriptor.as_raw_fd().to_le_bytes());
        let inode = inode_of(&descriptor).map_err(|problem| refused(CALL, problem))?;
        handle[24..32].copy_from_slice(&inode.to_le_bytes());
        let member = Member { _descriptor: Some(descriptor), ..Member::new(object) };
        lock(&self.inner.together.all).insert(handle, member);
        Ok(handle)
    }

    pub(super) fn join_together(&self, handle: &Handle) -> Result<(), Error> {
        const CALL: &str = "join_multicast";
        let mut all = lock(&self.inner.together.all);
        if !all.contains_key(handle) {
            all.insert(*handle, Member::new(opened(CALL, handle)?));
        }
        let Some(member) = all.get_mut(handle).filter(|member| member.index.is_none()) else {
            return Err(refused(CALL, "the device has joined already"));
        };
        let joined = member.object.atomic_u64(8 * JOINED);
        let index = joined.map_or(u64::MAX, |joined| joined.fetch_add(1, Ordering::AcqRel));
        let devices = load(&member.object, DEVICES);
        if index >= devices {
            return Err(refused(CALL, format!("all {devices} devices have joined")));
        }
        member.index = Some(index as usize);
        Ok(())
    }

    /// Bytes that each member gives.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] for a handle of no object that is there.
    pub fn bytes_together(&self, handle: &Handle) -> Result<usize, Error> {
        let all = lock(&self.inner.together.all);
        let bytes = match all.get(handle) {
            Some(member) => load(&member.object, BYTES),
            None => load(&opened("bind_multicast", handle)?, BYTES),
        };
        Ok(bytes as usize)
    }

    /// Gives an own allocation to an object; returns where the memories of all are reached. [`Driver::bind_multicast`] allocates
    /// one, vendors' drivers are given one.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] before all have joined, and twice; [`Error::TooSmall`].
    pub fn bind_together(&self, handle: &Handle, own: u64) -> Result<u64, Error> {
        const CALL: &str = "bind_multicast";
        let exported = self.export(own)?;
        let found = self.allocation_of(own)?.bytes;
        let mut all = lock(&self.inner.together.all);
        let member = all.get_mut(handle).ok_or_else(|| refused(CALL, "the device has not joined"))?;
        let index = member.index.ok_or_else(|| refused(CALL, "the device has not joined"))?;
        let (joined, devices) = (load(&member.object, JOINED), load(&member.object, DEVICES));
        if joined < devices {
            return Err(refused(CALL, format!("{joined} of {devices} devices have joined")));
        }
        if member.bound.is_some() {
            return Err(refused(CALL, "the device has bound already"));
        }
        let needed = load(&member.object, BYTES) as usize;
        if found < needed {
            return Err(Error::TooSmall { what: "the memory for a multicast object", found, needed });
        }
        let addresses = Mapping::anonymous(needed).map_err(|e| said(CALL, &e))?;
        let region = Region::together(addresses, needed, Arc::clone(&member.parts));
        let all_at = region.base;
        self.inner.regions.add(region);
        member.bound = Some((own, all_at));
        let words = MEMBERS + index * MEMBER_WORDS;
        for (at, eight) in exported.as_chunks::<8>().0.iter().enumerate() {
            store(&member.object, words + 1 + at, u64::from_le_bytes(*eight));
        }
        store(&member.object, words, 1);
        Ok(all_at)
    }

    /// Takes no part any more; returns the own memory, which is the caller's again.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] for an object in which the device takes no part.
    pub fn leave_together(&self, handle: &Handle) -> Result<Option<u64>, Error> {
        let member = lock(&self.inner.together.all).remove(handle);
        let member = member.ok_or_else(|| refused("leave_multicast", "the device has not joined"))?;
        let Some((own, all_at)) = member.bound else { return Ok(None) };
        self.remove("leave_multicast", all_at, |owner| owner == Owner::Together)?;
        let opened = member.parts.bases.get().into_iter().flatten().filter(|base| **base != own);
        let closed: Vec<_> = opened.map(|base| self.close(*base)).collect();
        closed.into_iter().collect::<Result<(), _>>()?;
        Ok(Some(own))
    }

    /// Where the memories of all members are, of every object that is bound here.
    pub(super) fn find_parts(&self) -> Result<(), Error> {
        for member in lock(&self.inner.together.all).values() {
            let Some((own, _)) = member.bound.filter(|_| member.parts.bases.get().is_none()) else {
                continue;
            };
            let devices = load(&member.object, DEVICES) as usize;
            let words = |index: usize| MEMBERS + index * MEMBER_WORDS;
            let bound = (0..devices).filter(|index| load(&member.object, words(*index)) == 1).count();
            if bound < devices {
                return Err(refused("launch", format!("{bound} of {devices} devices have bound memory")));
            }
            let mut bases = Vec::with_capacity(devices);
            for index in 0..devices {
                if Some(index) == member.index {
                    bases.push(own);
                    continue;
                }
                let mut handle = [0; 64];
                for (at, eight) in handle.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                    *eight = load(&member.object, words(index) + 1 + at).to_le_bytes();
                }
                bases.push(self.open(&handle)?);
            }
            let _ = member.parts.bases.set(bases);
        }
        Ok(())
    }
}

impl Member {
    fn new(object: Mapping) -> Self {
        Self { object: Arc::new(object), _descriptor: None, index: None, bound: None, parts: Arc::default() }
    }
}

fn opened(call: &'static str, handle: &Handle) -> Result<Mapping, Error> {
    if handle[..16] != TAG[..] {
        return Err(refused(call, "the handle is of no multicast object"));
    }
    let [pid, descriptor] = [16, 20].map(|at| word(handle, at, 4));
    let path = format!("/proc/{pid}/fd/{descriptor}");
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let gone =
        |problem: String| refused(call, format!("the multicast object is not there any more: {problem}"));
    let file = OwnedFd::from(file.map_err(|problem| gone(format!("{path}: {problem}")))?);
    let is_it = inode_of(&file).is_ok_and(|found| found == word(handle, 24, 8));
    if !is_it || memfd::verify_sealed(file.as_fd(), OBJECT_BYTES).is_err() {
        return Err(gone(path));
    }
    Mapping::shared(file.as_fd(), 0, OBJECT_BYTES, Access::ReadWrite).map_err(|e| said(call, &e))
}
