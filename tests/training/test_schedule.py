"""The learning rate rises to its peak and falls to its floor."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from biomistral.training.schedule import Course


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 7])
def test_without_a_floor_it_is_the_librarys(shape, warmup):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    name = "constant_with_warmup" if shape == "constant" else shape
    library = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=40)
    course = Course(40, warmup, shape)
    for step in range(40):
        assert course(step) == pytest.approx(library.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        library.step()


def test_it_ends_at_the_floor_and_a_new_warm_up_starts_where_it_ended():
    first = Course(100, 10, "cosine", floor_fraction=0.1)
    second = Course(100, 10, "cosine", floor_fraction=0.1, start_fraction=0.1)
    assert first(0) == 0
    assert first(100) == pytest.approx(second(0)) == pytest.approx(0.1)
    assert second(5) == pytest.approx(0.55)
    assert second(10) == 1


@given(
    steps=st.integers(1, 200),
    warmup=st.integers(0, 200),
    shape=st.sampled_from(["cosine", "linear", "constant"]),
    floor=st.floats(0, 1),
    start=st.floats(0, 1),
)
def test_it_rises_then_never_rises_again_and_stays_in_its_bounds(
    steps, warmup, shape, floor, start
):
    course = Course(steps, min(warmup, steps), shape, floor, start)
    rates = [course(step) for step in range(steps + 1)]
    top = course.warmup_steps
    assert all(-1e-9 <= rate <= 1 + 1e-9 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates[top:]) >= floor - 1e-9
