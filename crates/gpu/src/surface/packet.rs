//! Packet all-reduce (`mscclpp_*`): for the shortest messages; by upstream's names, arguments in the order of the operators'
//! schemas. Between the ranks of one node, or of two.

use std::net::IpAddr;
use std::time::Duration;

use super::{Surface, Tensor, tensor};
use crate::driver::Driver;
use crate::driver::any::Device;
use crate::error::Error;
#[cfg(feature = "remote")]
use crate::packet::init_far;
use crate::packet::{PacketConfig, PacketContext, PacketPeers, Shape, UniqueId, init_near};

/// What a handle of these functions is of, in errors.
const PACKET: &str = "packet context";

/// How long ranks wait for one another when they begin.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The environment variable that says at which of its addresses other machines reach this one.
pub const ADDRESS_VARIABLE: &str = "UNISONO_GPU_ADDRESS";

/// Where ranks of all nodes find this machine.
fn own_address() -> Result<IpAddr, Error> {
    match std::env::var(ADDRESS_VARIABLE).ok().filter(|found| !found.is_empty()) {
        Some(found) => address_of(found),
        #[cfg(feature = "remote")]
        None => Ok(unisono_remote::own_ip()),
        #[cfg(not(feature = "remote"))]
        None => Ok(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
    }
}

/// One that others can connect to.
fn address_of(found: String) -> Result<IpAddr, Error> {
    match found.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Ok(ip),
        _ => Err(Error::Address { found }),
    }
}

impl Surface {
    /// `mscclpp_generate_unique_id() -> Tensor`: 128 bytes by which ranks find one another, drawn by the process that is to be
    /// rank 0. They are a secret. Until the ranks have gathered, a port of this machine is open to other machines: at
    /// [`ADDRESS_VARIABLE`], else at the address from which this machine would send; 127.0.0.1 keeps it here.
    ///
    /// # Errors
    ///
    /// [`Error::Packet`], [`Error::Address`].
    pub fn mscclpp_generate_unique_id(&self) -> Result<Vec<u8>, Error> {
        Ok(UniqueId::generate(own_address()?)?.to_bytes().to_vec())
    }

    /// `mscclpp_init_context(Tensor unique_id, int rank, int world_size, Tensor scratch, Tensor put_buffer, int nranks_per_node,
    /// int[] rank_to_node, int[] rank_to_ib, int context_selection) -> int`: begins one; all ranks call it at once.
    ///
    /// `scratch` is device memory, 8 times the longest message. Selection 1 is one node; nothing is asked of `put_buffer` then.
    /// Selection 2 is two nodes: about twice as many bytes as `put_buffer` has are taken of the host's memory, pinned, half for what goes
    /// to the other one and half for what comes. Between nodes it goes over tcp, from the address that [`ADDRESS_VARIABLE`] says, or that
    /// this machine would send from; nothing is asked of `rank_to_ib`.
    ///
    /// # Errors
    ///
    /// [`Error::Packet`], [`Error::Driver`], [`Error::Address`]; [`Error::NotBuilt`] for two nodes in a build without the feature
    /// `remote`.
    #[allow(clippy::too_many_arguments, reason = "the operator's")]
    pub fn mscclpp_init_context(
        &self,
        device: Device,
        unique_id: &[u8],
        rank: i64,
        world_size: i64,
        scratch: &Tensor,
        put_buffer: &Tensor,
        nranks_per_node: i64,
        rank_to_node: &[i64],
        context_selection: i64,
    ) -> Result<i64, Error> {
        if !(1..=2).contains(&context_selection) {
            let problem = format!("context_selection is {context_selection}; 1 is one node, 2 two nodes");
            return Err(Error::Tensor { problem });
        }
        let number = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        let shape = Shape::new(number(rank), number(world_size), number(nranks_per_node))?;
        scratch.lend(&device)?;
        let rank_to_node: Vec<_> = rank_to_node.iter().map(|node| number(*node)).collect();
        let id = UniqueId::from_bytes(unique_id)?;
        let peers = PacketPeers { id: &id, rank_to_node: &rank_to_node, timeout: TIMEOUT };
        let config = PacketConfig::new(shape, scratch.address, scratch.bytes(), put_buffer.bytes());
        let context = match context_selection {
            1 => init_near(device, config, &peers)?,
            #[cfg(feature = "remote")]
            _ => init_far(device, config, &peers, own_address()?)?,
            #[cfg(not(feature = "remote"))]
            _ => return Err(Error::NotBuilt { what: "packets between two nodes (feature `remote`)" }),
        };
        Ok(self.packets.add(context))
    }

    /// `mscclpp_allreduce(int context, Tensor inp, Tensor! out, int nthreads, int nblocks) -> ()`: puts one on the stream.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], [`Error::Tensor`], and as [`PacketContext::all_reduce`].
    pub fn mscclpp_allreduce(
        &self,
        context: i64,
        inp: &Tensor,
        out: &Tensor,
        nthreads: i64,
        nblocks: i64,
        stream: u64,
    ) -> Result<(), Error> {
        let dtype = tensor::check_pair(inp, out)?;
        let number = |number: i64| usize::try_from(number).unwrap_or(0);
        let launch = Some((number(nthreads), number(nblocks)));
        self.packets.with(PACKET, context, |packet| {
            packet.driver().set_stream(stream);
            let is_lent = inp.lend(packet.driver())? | out.lend(packet.driver())?;
            packet.all_reduce(inp.address, out.address, inp.elements, dtype, launch)?;
            super::settle(packet.driver(), is_lent)
        })
    }

    /// Waits for the stream, then tells whether a kernel waited for a peer in vain.
    ///
    /// # Errors
    ///
    /// [`Error::Overdue`], [`Error::Context`].
    pub fn mscclpp_check(&self, context: i64) -> Result<(), Error> {
        self.packets.with(PACKET, context, PacketContext::check)
    }

    /// From now on kernels wait so long for a peer.
    ///
    /// # Errors
    ///
    /// [`Error::Context`].
    pub fn mscclpp_set_patience(&self, context: i64, patience: Duration) -> Result<(), Error> {
        self.packets.with(PACKET, context, |packet| {
            packet.set_patience(patience);
            Ok(())
        })
    }

    /// Gives back what belongs to a context, which upstream never does. The stream must be empty, on all ranks.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], [`Error::Driver`].
    pub fn mscclpp_dispose(&self, context: i64) -> Result<(), Error> {
        self.packets.remove(PACKET, context)?.map_or(Ok(()), PacketContext::dispose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_nobody_can_connect_to_is_refused() {
        for found in ["0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", "here", "10.0.0.5:80"] {
            assert_eq!(address_of(found.to_owned()), Err(Error::Address { found: found.to_owned() }));
        }
        for found in ["127.0.0.1", "10.0.0.5", "fe80::1"] {
            assert_eq!(address_of(found.to_owned()), Ok(found.parse().unwrap()));
        }
    }
}
