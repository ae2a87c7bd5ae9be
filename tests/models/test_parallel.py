"""Every part of a range is done once, by whichever thread."""

from __future__ import annotations

import threading

import pytest
import torch

from biomistral.models.parallel import share_out


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("number", [1, 2, 3, 10])
def test_the_parts_make_up_the_whole(threads, num_threads, number):
    threads(num_threads)
    done, lock = [], threading.Lock()

    def work(first, last):
        with lock:
            done.extend(range(first, last))

    share_out(work, number)
    assert sorted(done) == list(range(number))


def test_an_error_in_a_part_is_raised(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        share_out(lambda first, last: 1 / 0, 4)
