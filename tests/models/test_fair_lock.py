"""Whoever asks first is let in first."""

from __future__ import annotations

import threading
import time

import pytest

from biomistral.models.fair_lock import FairLock


def wait_until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it never came")


def test_threads_are_let_in_in_the_order_in_which_they_came():
    lock, order, threads = FairLock(), [], []

    def enter(index):
        with lock:
            order.append(index)

    with lock:
        for index in range(5):
            threads.append(threading.Thread(target=enter, args=(index,)))
            threads[-1].start()
            wait_until(lambda expected=index + 2: lock._next_ticket == expected)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_a_loop_that_takes_it_again_and_again_lets_others_in():
    lock, is_done = FairLock(), threading.Event()

    def loop():
        while not is_done.is_set():
            with lock:
                time.sleep(0.001)

    thread = threading.Thread(target=loop)
    thread.start()
    with lock:
        is_done.set()
    thread.join()


def test_a_thread_that_is_interrupted_while_it_waits_holds_nobody_up(monkeypatch):
    lock = FairLock()

    def interrupted(*_):
        raise KeyboardInterrupt

    with lock, monkeypatch.context() as patch:
        patch.setattr(lock._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lock.__enter__()
    with lock:
        pass


def test_an_error_inside_gives_it_back():
    lock = FairLock()
    with pytest.raises(ZeroDivisionError), lock:
        _ = 1 / 0
    with lock:
        pass
