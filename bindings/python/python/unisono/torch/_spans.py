"""The collectives of a group that spans nodes, each made of calls on the node and of exchanges between nodes.

`Spans` is one call of one rank. What is written as a list over nodes is in their order, which is the same for all ranks.
"""

from __future__ import annotations

import torch

from .. import Communicator, InvalidArgument, _core
from ._between import Between, Message
from ._places import Map, cuts, lengths, offsets, shared

# From this size on, and with more than two nodes, a slice is reduced in parts, each on one node, which sends it to the others.
_PARTED = 64 * 1024


class Spans:
    def __init__(
        self,
        node: Communicator,
        afterwards: Communicator,
        between: Between,
        where: Map,
        call: str,
        about: str,
        deadline: float,
    ) -> None:
        """`afterwards`: the node's communicator once there has been an exchange. `about`: what all ranks pass alike."""
        self._comm = node
        self._afterwards = afterwards
        # Whether anything was said to another node.
        self.has_begun = False
        self._between = between
        self._call = call
        self._about = about
        self._deadline = deadline
        self._rank = between.rank
        self._where = where
        self._here = where.node_of[self._rank]
        self._nodes = where.nodes
        self._node = where.nodes[self._here]
        self._local = self._node.index(self._rank)
        self._others = [number for number in range(len(self._nodes)) if number != self._here]

    def barrier(self) -> None:
        self._comm.barrier()
        if self._local == 0:
            word = torch.zeros(1, dtype=torch.uint8)
            first = [self._nodes[number][0] for number in self._others]
            self._exchange([(word, rank) for rank in first], [(torch.empty_like(word), rank) for rank in first])
        self._comm.barrier()

    def all_reduce(self, tensor: torch.Tensor, op: str, out: torch.Tensor) -> None:
        mine, bounds = self._reduced_on_node(tensor, op)
        start = bounds[self._local]
        end = start + mine.numel()
        if len(self._nodes) > 2 and mine.nbytes >= _PARTED:
            self._fold_in_parts(mine, start, end, tensor.numel(), op)
        else:
            places = {number: self._held(number, start, end, tensor.numel()) for number in self._others}
            self._fold_with(mine, start, places, op)
        self._average(mine, op)
        self._comm.all_gather_v(mine, lengths(bounds), out=out.view(-1))

    def reduce(self, tensor: torch.Tensor, root: int, op: str, out: torch.Tensor) -> None:
        mine, bounds = self._reduced_on_node(tensor, op)
        start = bounds[self._local]
        target = self._where.node_of[root]
        if self._here != target:
            held = self._held(target, start, start + mine.numel(), tensor.numel())
            self._exchange([(mine[first - start : last - start], rank) for rank, first, last in held], [])
            return
        places = {number: self._held(number, start, start + mine.numel(), tensor.numel()) for number in self._others}
        parts, recvs = self._rooms(mine, start, places)
        self._exchange([], recvs)
        self._fold(parts, mine, op)
        self._average(mine, op)
        whole = out.view(-1) if self._rank == root else None
        self._comm.gather_v(mine, self._node.index(root), lengths(bounds), out=whole)

    def broadcast(self, tensor: torch.Tensor, root: int) -> None:
        flat, target = tensor.view(-1), self._where.node_of[root]
        if self._here == target:
            self._comm.broadcast(flat, self._node.index(root))
        sizes = [flat.numel() if number == target else 0 for number in range(len(self._nodes))]
        whole = self._carry(flat if self._here == target else flat[:0], sizes)[target]
        if self._here != target:
            flat.copy_(whole)

    def all_gather(self, tensor: torch.Tensor, counts: list[int], out: torch.Tensor) -> None:
        self._expect("the tensor", tensor, counts[self._rank])
        self._expect("out", out, sum(counts))
        sizes = [sum(counts[rank] for rank in node) for node in self._nodes]
        gathered = tensor.new_empty(sizes[self._here])
        self._comm.all_gather_v(tensor.view(-1), [counts[rank] for rank in self._node], out=gathered)
        flat, bounds = out.view(-1), offsets(counts)
        for node, blocks in zip(self._nodes, self._carry(gathered, sizes)):
            at = 0
            for rank in node:
                flat[bounds[rank] : bounds[rank + 1]] = blocks[at : at + counts[rank]]
                at += counts[rank]

    def reduce_scatter(self, tensor: torch.Tensor, counts: list[int], op: str, out: torch.Tensor) -> None:
        """Each node reduces all blocks: a rank its own, and its share of those for each other node, which it sends there."""
        self._expect("the tensor", tensor, sum(counts))
        self._expect("out", out, counts[self._rank])
        flat, bounds = tensor.view(-1), offsets(counts)
        blocks = [[flat[bounds[rank] : bounds[rank + 1]] for rank in node] for node in self._nodes]
        foreign = {number: torch.cat(blocks[number]) for number in self._others}
        shares = {number: cuts(foreign[number].numel(), len(self._node)) for number in self._others}
        arranged, each = [], []
        for local in range(len(self._node)):
            pieces = [blocks[self._here][local]]
            pieces += [foreign[number][shares[number][local] : shares[number][local + 1]] for number in self._others]
            arranged += pieces
            each.append(sum(piece.numel() for piece in pieces))
        mine = flat.new_empty(each[self._local])
        self._comm.reduce_scatter_v(torch.cat(arranged), each, _summed(op), out=mine)

        own, at, sends = counts[self._rank], counts[self._rank], []
        for number in self._others:
            start, end = shares[number][self._local], shares[number][self._local + 1]
            ends = offsets([counts[rank] for rank in self._nodes[number]])
            for part, first, last in shared(start, end, ends):
                sends.append((mine[at + first - start : at + last - start], self._nodes[number][part]))
            at += end - start
        ends = offsets([counts[rank] for rank in self._node])
        start, end = ends[self._local], ends[self._local + 1]
        places = {number: self._held(number, start, end, ends[-1]) for number in self._others}
        parts, recvs = self._rooms(mine[:own], start, places)
        self._exchange(sends, recvs)
        result = out.view(-1)
        self._fold(parts, result, op)
        self._average(result, op)

    def all_to_all(self, tensor: torch.Tensor, sent: list[int], received: list[int], out: torch.Tensor) -> None:
        self._expect("the tensor", tensor, sum(sent))
        self._expect("out", out, sum(received))
        source, target = tensor.view(-1), out.view(-1)
        from_, to = offsets(sent), offsets(received)
        outgoing = [source[from_[rank] : from_[rank + 1]] for rank in range(len(sent))]
        incoming = [target[to[rank] : to[rank + 1]] for rank in range(len(received))]
        near = torch.cat([outgoing[rank] for rank in self._node])
        come = target.new_empty(sum(received[rank] for rank in self._node))
        self._comm.all_to_all_v(
            near, [sent[rank] for rank in self._node], [received[rank] for rank in self._node], out=come
        )
        at = 0
        for rank in self._node:
            incoming[rank].copy_(come[at : at + received[rank]])
            at += received[rank]
        far = [rank for number in self._others for rank in self._nodes[number]]
        self._exchange([(outgoing[rank], rank) for rank in far], [(incoming[rank], rank) for rank in far])

    def gather(self, tensor: torch.Tensor, root: int, counts: list[int] | None, out: torch.Tensor | None) -> None:
        flat = tensor.view(-1)
        if self._here != self._where.node_of[root]:
            self._exchange([(flat, root)], [])
            return
        local_root = self._node.index(root)
        if self._rank != root:
            self._comm.gather_v(flat, local_root)
            return
        assert counts is not None and out is not None, "the root passes both"
        self._expect("the tensor", tensor, counts[root])
        self._expect("out", out, sum(counts))
        near = [counts[rank] for rank in self._node]
        come = self._comm.gather_v(flat, local_root, near, out=flat.new_empty(sum(near)))
        assert come is not None, "this is the root"
        target, bounds = out.view(-1), offsets(counts)
        for rank, block in zip(self._node, torch.split(come, near)):
            target[bounds[rank] : bounds[rank + 1]] = block
        far = [rank for number in self._others for rank in self._nodes[number]]
        self._exchange([], [(target[bounds[rank] : bounds[rank + 1]], rank) for rank in far])

    def scatter(self, tensor: torch.Tensor | None, root: int, counts: list[int] | None, out: torch.Tensor) -> None:
        target = out.view(-1)
        if self._here != self._where.node_of[root]:
            self._exchange([], [(target, root)])
            return
        local_root = self._node.index(root)
        if self._rank != root:
            self._comm.scatter_v(None, local_root, out=target)
            return
        assert counts is not None and tensor is not None, "the root passes both"
        self._expect("the tensor", tensor, sum(counts))
        self._expect("out", out, counts[root])
        flat, bounds = tensor.view(-1), offsets(counts)
        near = torch.cat([flat[bounds[rank] : bounds[rank + 1]] for rank in self._node])
        self._comm.scatter_v(near, local_root, [counts[rank] for rank in self._node], out=target)
        far = [rank for number in self._others for rank in self._nodes[number]]
        self._exchange([(flat[bounds[rank] : bounds[rank + 1]], rank) for rank in far], [])

    # What they are made of.

    def _expect(self, what: str, tensor: torch.Tensor, count: int) -> None:
        if tensor.numel() != count:
            problem = f"{self._call}: {what} has {tensor.numel()} elements, and the counts say {count}"
            raise InvalidArgument(problem, operation=self._call)

    def _exchange(self, sends: list[Message], recvs: list[Message]) -> None:
        self.has_begun = True
        self._between.exchange(sends, recvs, self._call, self._about, self._deadline)
        self._comm = self._afterwards

    def _reduced_on_node(self, tensor: torch.Tensor, op: str) -> tuple[torch.Tensor, list[int]]:
        """This rank's slice of its node's sum, and where the node's slices are cut."""
        flat, bounds = tensor.view(-1), cuts(tensor.numel(), len(self._node))
        mine = flat.new_empty(bounds[self._local + 1] - bounds[self._local])
        self._comm.reduce_scatter_v(flat, lengths(bounds), _summed(op), out=mine)
        return mine, bounds

    def _held(self, number: int, start: int, end: int, count: int) -> list[tuple[int, int, int]]:
        """Which ranks of a node hold what from `start` to `end` of the `count` elements that the node has cut among them."""
        node = self._nodes[number]
        return [(node[part], first, last) for part, first, last in shared(start, end, cuts(count, len(node)))]

    def _rooms(
        self, mine: torch.Tensor, start: int, places: dict[int, list[tuple[int, int, int]]]
    ) -> tuple[list[torch.Tensor], list[Message]]:
        """The values of all nodes, in their order, and what is to be received into those of the others."""
        parts = [mine if number == self._here else torch.empty_like(mine) for number in range(len(self._nodes))]
        recvs = [
            (parts[number][first - start : last - start], rank)
            for number, held in places.items()
            for rank, first, last in held
        ]
        return parts, recvs

    def _fold_with(
        self, mine: torch.Tensor, start: int, places: dict[int, list[tuple[int, int, int]]], op: str
    ) -> None:
        """Exchange slices with all nodes, and fold them in the order of the nodes: the same everywhere."""
        parts, recvs = self._rooms(mine, start, places)
        sends = [
            (mine[first - start : last - start], rank)
            for held in places.values()
            for rank, first, last in held
        ]
        self._exchange(sends, recvs)
        self._fold(parts, mine, op)

    def _fold_in_parts(self, mine: torch.Tensor, start: int, end: int, count: int, op: str) -> None:
        """The same with less to carry: of what one rank of each node holds, each reduces a part and sends it to the others."""
        ends = {bound for node in self._nodes for bound in cuts(count, len(node)) if start < bound < end}
        bounds = sorted(ends | {start, end})
        jobs = []
        for first, last in zip(bounds, bounds[1:]):
            owners = [self._held(number, first, last, count)[0][0] for number in range(len(self._nodes))]
            parts = [first + cut - start for cut in cuts(last - first, len(self._nodes))]
            jobs.append((owners, [mine[a:b] for a, b in zip(parts, parts[1:])]))
        rooms = [[torch.empty_like(parts[self._here]) for _ in self._nodes] for _, parts in jobs]
        sends = [(parts[number], owners[number]) for owners, parts in jobs for number in self._others]
        recvs = [(room[number], owners[number]) for (owners, _), room in zip(jobs, rooms) for number in self._others]
        self._exchange(sends, recvs)
        for (_, own), room in zip(jobs, rooms):
            room[self._here] = own[self._here]
            self._fold(room, own[self._here], op)
        sends = [(parts[self._here], owners[number]) for owners, parts in jobs for number in self._others]
        recvs = [(parts[number], owners[number]) for owners, parts in jobs for number in self._others]
        self._exchange(sends, recvs)

    def _fold(self, parts: list[torch.Tensor], out: torch.Tensor, op: str) -> None:
        if out.numel():
            _core.fold(parts, _summed(op), out)

    def _average(self, total: torch.Tensor, op: str) -> None:
        if op == "average":
            ranks = sum(len(node) for node in self._nodes)
            exact = total.is_floating_point() or total.is_complex()
            total.copy_(torch.div(total, ranks) if exact else torch.div(total, ranks, rounding_mode="trunc"))

    def _carry(self, mine: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
        """All nodes' data, where each rank has that of its own node: every rank carries a slice, and the node puts them together."""
        start, end = (cuts(sizes[self._here], len(self._node))[self._local + more] for more in (0, 1))
        sends = [
            (mine[first:last], rank)
            for number in self._others
            for rank, first, last in self._held(number, start, end, sizes[self._here])
        ]
        shares = {number: cuts(sizes[number], len(self._node)) for number in self._others}
        each = [
            sum(share[local + 1] - share[local] for share in shares.values()) for local in range(len(self._node))
        ]
        come, at, recvs = mine.new_empty(each[self._local]), 0, []
        for number, share in shares.items():
            start, end = share[self._local], share[self._local + 1]
            for rank, first, last in self._held(number, start, end, sizes[number]):
                recvs.append((come[at + first - start : at + last - start], rank))
            at += end - start
        self._exchange(sends, recvs)
        everything = mine.new_empty(sum(each))
        self._comm.all_gather_v(come, each, out=everything)
        return self._put_together(mine, everything, shares)

    def _put_together(
        self, mine: torch.Tensor, everything: torch.Tensor, shares: dict[int, list[int]]
    ) -> list[torch.Tensor]:
        """From what the ranks of this node received of each other node, in the order of the ranks, to a tensor per node."""
        pieces: dict[int, list[torch.Tensor]] = {number: [] for number in shares}
        at = 0
        for local in range(len(self._node)):
            for number, share in shares.items():
                length = share[local + 1] - share[local]
                pieces[number].append(everything[at : at + length])
                at += length
        return [
            mine if number == self._here else torch.cat(pieces[number]) for number in range(len(self._nodes))
        ]


def _summed(op: str) -> str:
    """An average is divided once, at the end."""
    return "sum" if op == "average" else op


__all__ = ["Spans"]
