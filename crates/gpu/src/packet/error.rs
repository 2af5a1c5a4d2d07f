//! What can go wrong between ranks that reduce by packets.

use std::time::Duration;

use crate::layout::MAX_RANKS;

/// Why packets cannot go between these ranks, or do not any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// How ranks are divided among nodes.
    #[error(
        "{world} ranks, {ranks_per_node} of them on each node: packets go between 2 to {MAX_RANKS} ranks of one node, or between \
         two nodes of 1 to {MAX_RANKS} ranks each, ranks of a node one after the other"
    )]
    Nodes {
        /// How many ranks there are.
        world: usize,
        /// How many of them each node is said to have.
        ranks_per_node: usize,
    },
    /// A number of blocks or threads that no launch can have.
    #[error(
        "{blocks} blocks of {threads} threads cannot be launched: at least 1 of each, 1024 threads and 65535 blocks at most"
    )]
    Launch {
        /// Threads of a block.
        threads: usize,
        /// Blocks.
        blocks: usize,
    },
    /// A message longer than the memory that was given allows.
    #[error(
        "a message of {bytes} bytes; {what}, {found} bytes on the rank with the least, allows {most}: give {needed}"
    )]
    TooLong {
        /// The message.
        bytes: usize,
        /// Which memory.
        what: &'static str,
        /// What it has.
        found: usize,
        /// The longest message with it.
        most: usize,
        /// What this message needs.
        needed: usize,
    },
    /// Ranks that say different things of what all must say alike.
    #[error("rank {rank} has {theirs} as its {what}, this rank {ours}: all must say the same")]
    Differs {
        /// Of what.
        what: &'static str,
        /// The other rank.
        rank: usize,
        /// What this rank said.
        ours: u64,
        /// What the other said.
        theirs: u64,
    },
    /// Bytes that are no unique id, or that of a process that is gone.
    #[error("the unique id cannot be used: {problem}")]
    UniqueId {
        /// Why not.
        problem: String,
    },
    /// The ranks did not find one another.
    #[error("gathering the ranks: {problem}")]
    Gathering {
        /// Who is missing, or what went wrong.
        problem: String,
    },
    /// The link to the other node's rank.
    #[error("the link to rank {rank} on the other node: {problem}")]
    Link {
        /// The rank there.
        rank: usize,
        /// What became of it.
        problem: String,
    },
    /// Words that the kernel was to write did not come.
    #[error(
        "call {number} announced {words} words for the other node and did not write word {missing} within {patience:?}"
    )]
    NotWritten {
        /// The number of the call.
        number: u32,
        /// How many it announced.
        words: u32,
        /// The first that is missing.
        missing: u32,
        /// How long they were waited for.
        patience: Duration,
    },
}
