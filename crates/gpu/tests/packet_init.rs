//! How ranks find one another by a unique id: every rank a thread, with a driver that only keeps account of memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use unisono_gpu::driver::{Allocation, Handle, Link};
use unisono_gpu::packet::{
    HostWords, MapHost, PacketConfig, PacketContext, PacketError, PacketPeers, Shape, UniqueId, init_near,
};
use unisono_gpu::{Code, DType, Driver, Error};

/// Addresses of all ranks, and what is launched.
#[derive(Debug, Default)]
struct Accounts {
    next: u64,
    bytes: HashMap<u64, usize>,
    launched: Vec<(String, usize, Vec<u8>)>,
    mapped: Vec<(u64, Arc<HostWords>)>,
}

#[derive(Debug, Clone, Default)]
struct Accountant(Arc<Mutex<Accounts>>);

impl Driver for Accountant {
    type Kernel = String;

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        let mut accounts = self.0.lock().unwrap();
        accounts.next += 1 << 24;
        let base = accounts.next;
        accounts.bytes.insert(base, bytes);
        Ok(base)
    }

    fn free(&self, base: u64) -> Result<(), Error> {
        let removed = self.0.lock().unwrap().bytes.remove(&base);
        removed.map(drop).ok_or(Error::Driver { call: "free", reason: "unknown".into() })
    }

    fn allocation_of(&self, address: u64) -> Result<Allocation, Error> {
        let accounts = self.0.lock().unwrap();
        let found =
            accounts.bytes.iter().find(|(base, bytes)| (**base..**base + **bytes as u64).contains(&address));
        let found = found.map(|(base, bytes)| Allocation { base: *base, bytes: *bytes });
        found.ok_or(Error::Driver { call: "allocation_of", reason: "unknown".into() })
    }

    fn export(&self, base: u64) -> Result<Handle, Error> {
        let mut handle = [0; 64];
        handle[..8].copy_from_slice(&base.to_le_bytes());
        Ok(handle)
    }

    fn open(&self, handle: &Handle) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(handle[..8].try_into().unwrap()))
    }

    fn close(&self, _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn copy(&self, _: u64, _: u64, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn read(&self, _: u64, into: &mut [u8]) -> Result<(), Error> {
        into.fill(0);
        Ok(())
    }

    fn kernel(&self, _: &Code, name: &str) -> Result<String, Error> {
        Ok(name.to_owned())
    }

    fn launch(&self, kernel: &String, blocks: usize, _: usize, parameters: &[u8]) -> Result<(), Error> {
        self.0.lock().unwrap().launched.push((kernel.clone(), blocks, parameters.to_vec()));
        Ok(())
    }

    fn is_capturing(&self) -> Result<bool, Error> {
        Ok(false)
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64, Error> {
        self.allocate(bytes)
    }

    fn free_host(&self, address: u64) -> Result<(), Error> {
        self.free(address)
    }

    fn peek(&self, _: u64, into: &mut [u8]) -> Result<(), Error> {
        into.fill(0);
        Ok(())
    }

    fn set_stream(&self, _: u64) {}

    fn synchronize(&self) -> Result<(), Error> {
        Ok(())
    }

    fn identity(&self) -> Result<String, Error> {
        Ok("accounts".to_owned())
    }

    fn link(&self, _: &str) -> Result<Link, Error> {
        Ok(Link::Direct)
    }
}

impl MapHost for Accountant {
    fn map_host(&self, words: &Arc<HostWords>) -> Result<u64, Error> {
        let base = self.allocate(8 * words.count())?;
        self.0.lock().unwrap().mapped.push((base, Arc::clone(words)));
        Ok(base)
    }

    fn unmap_host(&self, address: u64) -> Result<(), Error> {
        self.free(address)
    }
}

const BYTES: usize = 1 << 12;

fn config(driver: &Accountant, rank: usize, world: usize, ranks_per_node: usize) -> PacketConfig {
    let shape = Shape::new(rank, world, ranks_per_node).unwrap();
    let scratch = driver.allocate(shape.scratch_bytes(BYTES) + 16).unwrap();
    PacketConfig::new(shape, scratch, shape.scratch_bytes(BYTES), BYTES)
}

fn every_rank(
    world: usize,
    init: impl Fn(usize) -> Result<PacketContext<Accountant>, Error> + Sync,
) -> Vec<Result<PacketContext<Accountant>, Error>> {
    std::thread::scope(|scope| {
        let start = |rank| {
            let init = &init;
            scope.spawn(move || init(rank))
        };
        let ranks: Vec<_> = (0..world).map(start).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn ranks_of_a_node_find_one_another_by_an_id() {
    let driver = Accountant::default();
    let id = UniqueId::generate([127, 0, 0, 1].into()).unwrap();
    let timeout = Duration::from_secs(30);
    let peers = PacketPeers { id: &id, rank_to_node: &[0, 0, 0], timeout };
    let ranks = every_rank(3, |rank| init_near(driver.clone(), config(&driver, rank, 3, 3), &peers));
    let input = driver.allocate(BYTES).unwrap();
    for context in ranks {
        let mut context = context.unwrap();
        context.all_reduce(input, input, 10, DType::BF16, None).unwrap();
        context.check().unwrap();
        context.dispose().unwrap();
    }
    let launched = std::mem::take(&mut driver.0.lock().unwrap().launched);
    assert_eq!(launched.len(), 3);
    for (name, blocks, parameters) in launched {
        assert_eq!((name.as_str(), blocks, parameters.len()), ("packet_near_bf16_4", 1, 184));
    }
}

#[test]
fn a_division_into_nodes_that_no_packets_go_between_is_refused() {
    let driver = Accountant::default();
    let id = UniqueId::generate([127, 0, 0, 1].into()).unwrap();
    let peers = PacketPeers { id: &id, rank_to_node: &[0, 1], timeout: Duration::from_secs(1) };
    let refused = init_near(driver.clone(), config(&driver, 0, 2, 2), &peers).unwrap_err();
    assert_eq!(refused, Error::Packet(PacketError::Nodes { world: 2, ranks_per_node: 2 }));
}

#[cfg(feature = "remote")]
#[test]
fn ranks_of_two_nodes_find_one_another_by_an_id_and_are_linked() {
    use unisono_gpu::packet::init_far;

    let driver = Accountant::default();
    let id = UniqueId::generate([127, 0, 0, 1].into()).unwrap();
    let peers = PacketPeers { id: &id, rank_to_node: &[0, 0, 1, 1], timeout: Duration::from_secs(60) };
    let ranks = every_rank(4, |rank| {
        init_far(driver.clone(), config(&driver, rank, 4, 2), &peers, [127, 0, 0, 1].into())
    });
    let mut ranks: Vec<_> = ranks.into_iter().map(Result::unwrap).collect();
    let opposite: Vec<_> = ranks.iter().map(|context| context.shape().opposite()).collect();
    assert_eq!(opposite, [Some(2), Some(3), Some(0), Some(1)]);
    assert!(ranks.iter_mut().all(|context| context.check().is_ok()));
    for context in ranks {
        context.dispose().unwrap();
    }
    assert_eq!(driver.0.lock().unwrap().mapped.len(), 4);
}
