"""Shared beginnings: every token is run once where that saves something, and none is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from biomistral.models.prefixes import Node, shared_beginnings

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


def paths(node: Node, above: tuple[Node, ...] = ()):
    """Each sequence with the nodes on its way."""
    here = (*above, node)
    for leaf in node.leaves:
        yield leaf, here
    for child in node.children:
        yield from paths(child, here)


@given(SEQUENCES, st.integers(1, 8))
def test_the_tree_holds_every_sequence_once_and_says_what_is_true(sequences, least_saved):
    root = shared_beginnings(sequences, least_saved)
    found = dict(paths(root))
    assert sorted(leaf for leaf, _ in paths(root)) == list(range(len(sequences)))
    for leaf, way in found.items():
        for node in way:
            member = sequences[node.member]
            assert member[: node.stop] == sequences[leaf][: node.stop]
            assert node.stop < len(sequences[leaf])
        assert [node.start for node in way[1:]] == [node.stop for node in way[:-1]]


@given(SEQUENCES, st.integers(1, 8))
def test_every_node_saves_what_it_must(sequences, least_saved):
    root = shared_beginnings(sequences, least_saved)
    for node in root.walk():
        if node is not root:
            assert (node.stop - node.start) * (node.num_sequences() - 1) >= least_saved


def test_instruction_examples_and_question_are_levels_of_their_own():
    instruction, one, other, question = [1] * 9, [2] * 9, [3] * 9, [4] * 9
    sequences = [
        instruction + one + question + [5],
        instruction + one + question + [6],
        instruction + one + [7, 8],
        instruction + other + [9, 9],
        instruction + other + [9, 8],
    ]
    root = shared_beginnings(sequences, least_saved=5)
    (top,) = root.children
    assert (top.start, top.stop) == (0, 9)
    assert sorted((child.start, child.stop) for child in top.children) == [(9, 18), (9, 19)]
    (examples,) = [child for child in top.children if child.stop == 18]
    assert examples.leaves == [2]
    assert [(child.start, child.stop) for child in examples.children] == [(18, 27)]


def test_what_saves_too_little_is_given_to_the_parent():
    sequences = [[1, 2, 3], [1, 2, 4], [5, 6, 7]]
    assert sorted(shared_beginnings(sequences, least_saved=3).leaves) == [0, 1, 2]
    assert shared_beginnings(sequences, least_saved=2).num_sequences() == 3
    assert len(shared_beginnings(sequences, least_saved=2).children) == 1
