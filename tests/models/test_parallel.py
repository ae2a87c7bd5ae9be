"""Every part of a range is done once, by whichever thread."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from biomistral.models.parallel import share_out


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_makes_threads_of_its_own(threads):
    threads(2)
    share_out(lambda first, last: None, 4)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)
        share_out(lambda first, last: None, 4)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_an_error_in_a_part_is_raised(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        share_out(lambda first, last: 1 / 0, 4)
