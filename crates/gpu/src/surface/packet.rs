//! Packet all-reduce (`mscclpp_*`): for the shortest messages; by upstream's names, arguments in the order of the operators'
//! schemas. Between the ranks of one node; two nodes need a carrier, for which see [`crate::packet`].

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{Surface, Tensor, tensor};
use crate::driver::Driver;
use crate::driver::any::Device;
use crate::error::Error;
use crate::packet::{PacketConfig, PacketContext, PacketPeers, Shape, UniqueId, init_near};

/// What a handle of these functions is of, in errors.
const PACKET: &str = "packet context";

/// How long ranks wait for one another when they begin.
const TIMEOUT: Duration = Duration::from_secs(300);

impl Surface {
    /// `mscclpp_generate_unique_id() -> Tensor`: 128 bytes by which ranks find one another, drawn by the process that is to be
    /// rank 0. They are a secret.
    ///
    /// # Errors
    ///
    /// [`Error::Packet`].
    pub fn mscclpp_generate_unique_id(&self) -> Result<Vec<u8>, Error> {
        Ok(UniqueId::generate(IpAddr::V4(Ipv4Addr::LOCALHOST))?.to_bytes().to_vec())
    }

    /// `mscclpp_init_context(Tensor unique_id, int rank, int world_size, Tensor scratch, Tensor put_buffer, int nranks_per_node,
    /// int[] rank_to_node, int[] rank_to_ib, int context_selection) -> int`: begins one; all ranks call it at once.
    ///
    /// `scratch` is zeroed device memory that is an allocation of its own, 8 times the longest message; selection 1 is one node.
    /// Nothing is asked of `put_buffer` and `rank_to_ib` then.
    ///
    /// # Errors
    ///
    /// [`Error::Packet`], [`Error::Driver`]; [`Error::NotBuilt`] for selection 2, two nodes.
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
        match context_selection {
            1 => {}
            2 => {
                return Err(Error::NotBuilt { what: "a packet context between two nodes, by this function" });
            }
            _ => {
                let problem = format!("context_selection is {context_selection}; 1 is one node, 2 two nodes");
                return Err(Error::Tensor { problem });
            }
        }
        let number = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        let shape = Shape::new(number(rank), number(world_size), number(nranks_per_node))?;
        scratch.lend(&device)?;
        let rank_to_node: Vec<_> = rank_to_node.iter().map(|node| number(*node)).collect();
        let id = UniqueId::from_bytes(unique_id)?;
        let peers = PacketPeers { id: &id, rank_to_node: &rank_to_node, timeout: TIMEOUT };
        let config = PacketConfig::new(shape, scratch.address, scratch.bytes(), put_buffer.bytes());
        Ok(self.packets.add(init_near(device, config, &peers)?))
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
