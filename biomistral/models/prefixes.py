"""What prompts begin with alike, found in their token ids: a tree of shared beginnings.

Prompts of a task share an instruction, many share the worked examples behind it, some the question
behind those. Nobody has to say so: sorted prompts that share a beginning are neighbours. Knows
nothing about models or texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from biomistral.models.continuations import common_length


@dataclass(slots=True)
class Node:
    """Tokens that several sequences share, from ``start`` to ``stop`` in each of them."""

    start: int
    stop: int
    member: int  # one of the sequences that has them
    leaves: list[int] = field(default_factory=list)  # sequences that share no more than this
    children: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def num_sequences(self) -> int:
        """How many sequences begin with these tokens."""
        return sum(len(node.leaves) for node in self.walk())


def shared_beginnings(sequences: Sequence[list[int]], least_saved: int = 1) -> Node:
    """Return the root (which shares nothing) of the tree of shared beginnings.

    A beginning becomes a node if running it once instead of once for each of its sequences saves at
    least ``least_saved`` tokens. At least one token of each sequence is left to its own.
    """
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    lengths = [
        min(common_length(one, other), len(one) - 1, len(other) - 1)
        for one, other in itertools.pairwise(sequences[index] for index in order)
    ]
    root = Node(0, 0, order[0])
    _branch(root, order, lengths)
    _prune(root, max(least_saved, 1))
    return root


def _branch(node: Node, order: Sequence[int], lengths: Sequence[int]) -> None:
    """Put sorted sequences below a node; ``lengths[i]`` is what the i-th and the next share."""
    for first, last in _runs(lengths, node.stop):
        if first == last:
            node.leaves.append(order[first])
            continue
        child = Node(node.stop, min(lengths[first:last]), order[first])
        _branch(child, order[first : last + 1], lengths[first:last])
        node.children.append(child)


def _runs(lengths: Sequence[int], length: int) -> Iterator[tuple[int, int]]:
    """Cut sorted sequences where neighbours share no more than ``length``: first and last of each."""
    first = 0
    for index, shared in enumerate(lengths):
        if shared <= length:
            yield first, index
            first = index + 1
    yield first, len(lengths)


def _prune(node: Node, least_saved: int) -> None:
    """Give what hangs on children that save too little to their parent."""
    candidates, node.children = node.children, []
    while candidates:
        child = candidates.pop(0)
        if (child.stop - node.stop) * (child.num_sequences() - 1) >= least_saved:
            child.start = node.stop
            _prune(child, least_saved)
            node.children.append(child)
        else:
            node.leaves += child.leaves
            candidates += child.children
