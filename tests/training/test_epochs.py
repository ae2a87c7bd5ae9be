"""Every epoch sees every example once, in whole steps."""

from __future__ import annotations

import pytest

from biomistral.training.epochs import NOTHING, line_up, num_steps


@pytest.mark.parametrize(
    ("num_examples", "a_step", "epochs", "steps"),
    [
        (8, 4, 1, 2),
        (9, 4, 1, 3),  # the last step has one example
        (9, 8, 3, 6),
        (10, 1, 1.1, 11),  # more than 11 in binary
        (9, 4, 0.01, 1),
    ],
)
def test_steps_are_passes_over_the_examples(num_examples, a_step, epochs, steps):
    assert num_steps(num_examples, a_step, epochs) == steps
    order = line_up(num_examples, a_step, epochs=epochs, seed=1)
    assert (order.num_steps, len(order.places)) == (steps, steps * a_step)


@pytest.mark.parametrize("repeat", [False, True])
def test_each_pass_has_every_example_in_an_order_of_its_own(repeat):
    order = line_up(10, 4, epochs=3, seed=5, repeat=repeat).places
    passes = [order[start : start + 12] for start in (0, 12, 24)]
    for each in passes:
        assert sorted(each[:10]) == list(range(10))
        assert each[10:] == (each[:2] if repeat else (NOTHING, NOTHING))
    assert len({each[:10] for each in passes}) == 3


def test_fewer_examples_than_a_step_repeat_as_often_as_it_takes():
    order = line_up(3, 8, epochs=1, seed=0, repeat=True)
    assert order.num_steps == 1
    assert sorted(order.places.count(index) for index in range(3)) == [2, 3, 3]
    assert sorted(order.of_step(1)) == [0, 1, 2]


def test_the_seed_and_nothing_else_decides():
    assert line_up(9, 2, epochs=2, seed=3) == line_up(9, 2, epochs=2, seed=3)
    assert line_up(9, 2, epochs=2, seed=3) != line_up(9, 2, epochs=2, seed=4)


def test_totals_grow_by_what_each_step_has():
    order = line_up(5, 2, epochs=1, seed=0)
    sizes = [1, 10, 100, 1000, 10_000]
    by_step = [sum(sizes[index] for index in order.of_step(step)) for step in (1, 2, 3)]
    expected = [0, by_step[0], by_step[0] + by_step[1], 11_111]
    assert order.totals_after(sizes) == expected


def test_what_fills_up_by_repetition_is_counted_too():
    assert line_up(1, 3, epochs=1, seed=0, repeat=True).totals_after([7]) == [0, 21]
