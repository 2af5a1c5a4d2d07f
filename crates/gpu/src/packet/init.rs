//! From a unique id to a context: memory is prepared, the ranks gather, and each takes the others' offers.
//!
//! In the signature of MSCCL++'s `mscclpp_init_context` these are: the unique id, rank and world, scratch, put buffer, ranks per node, the
//! node of each rank; which of the two functions, its selection. `rank_to_ib` is not needed: between nodes packets go over tcp.

use std::time::{Duration, Instant};

use super::context::{PacketConfig, PacketContext, Prepared};
use super::error::PacketError;
use super::gathering::gather;
use super::shape::Shape;
use super::unique_id::UniqueId;
use crate::driver::Driver;
use crate::error::Error;

/// Who is to find whom.
#[derive(Debug, Clone, Copy)]
pub struct PacketPeers<'a> {
    /// Drawn by the process that is rank 0.
    pub id: &'a UniqueId,
    /// The node of each rank, as callers of MSCCL++ have it; empty if ranks of a node are consecutive, which they must be.
    pub rank_to_node: &'a [usize],
    /// How long ranks wait for one another.
    pub timeout: Duration,
}

impl PacketPeers<'_> {
    fn check(&self, shape: Shape) -> Result<(), PacketError> {
        let (world, ranks_per_node) = (shape.world(), shape.ranks_per_node());
        let is_consecutive = |(rank, node): (usize, &usize)| *node == rank / ranks_per_node;
        let fits = self.rank_to_node.is_empty() || self.rank_to_node.len() == world;
        if fits && self.rank_to_node.iter().enumerate().all(is_consecutive) {
            return Ok(());
        }
        Err(PacketError::Nodes { world, ranks_per_node })
    }
}

/// The context of a rank of one node. All ranks call it at once.
///
/// # Errors
///
/// What [`Prepared::new`], [`gather`] and [`Prepared::connect`] return.
pub fn init_near<D: Driver>(
    driver: D,
    config: PacketConfig,
    peers: &PacketPeers<'_>,
) -> Result<PacketContext<D>, Error> {
    let shape = config.shape;
    peers.check(shape)?;
    let deadline = Instant::now() + peers.timeout;
    let prepared = Prepared::new(driver, config)?;
    let gathered = prepared
        .offer()
        .and_then(|offer| Ok(gather(peers.id, shape.rank(), shape.world(), &offer, deadline)?));
    prepared.connect(&gathered?)
}

/// The context of a rank of two nodes. All ranks call it at once. Packets for the other node are published at `ip`, an address of
/// this machine at which the other node reaches it ([`unisono_remote::own_ip`] says which one that probably is).
///
/// # Errors
///
/// What [`Prepared::new`], [`gather`] and [`Prepared::connect_far`] return; [`PacketError::Link`] where the opposite rank cannot be
/// reached.
#[cfg(feature = "remote")]
pub fn init_far<D: super::host_words::MapHost + Clone>(
    driver: D,
    config: PacketConfig,
    peers: &PacketPeers<'_>,
    ip: std::net::IpAddr,
) -> Result<PacketContext<D>, Error> {
    use super::wire::{Address, RemoteListener};

    let shape = config.shape;
    peers.check(shape)?;
    let (world, ranks_per_node) = (shape.world(), shape.ranks_per_node());
    let opposite = shape.opposite().ok_or(PacketError::Nodes { world, ranks_per_node })?;
    let deadline = Instant::now() + peers.timeout;
    let prepared = Prepared::new(driver, config)?;
    let gathered = prepared.offer().and_then(|offer| {
        let listener = RemoteListener::new(ip, peers.id.secret(), shape.rank(), opposite)?;
        let said = [&offer[..], &listener.address().to_bytes()].concat();
        let all = gather(peers.id, shape.rank(), world, &said, deadline)?;
        let halves = all.iter().map(|said| said.split_at(said.len().saturating_sub(Address::BYTES)));
        let (offers, addresses): (Vec<_>, Vec<_>) =
            halves.map(|(offer, address)| (offer.to_vec(), Address::from_bytes(address))).unzip();
        let problem = || "it did not say where it is".to_owned();
        let address = addresses.get(opposite).copied().flatten();
        let address = address.ok_or_else(|| PacketError::Link { rank: opposite, problem: problem() })?;
        Ok((offers, listener.join(opposite, address, deadline)?))
    });
    let (offers, wire) = gathered?;
    prepared.connect_far(&offers, Box::new(wire))
}
