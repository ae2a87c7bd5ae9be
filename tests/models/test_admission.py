"""Room that is given out as sequences grow."""

from __future__ import annotations

import pytest

from biomistral.errors import InputError
from biomistral.models.admission import GROWTH, Claim, check_length, may_begin


def test_a_claim_grows_by_a_piece_and_never_past_its_most():
    assert Claim(10, 5000).grown() == 10 + GROWTH
    assert Claim(10, 20).grown() == 20
    assert Claim(20, 20).grown() == 20


def test_one_begins_beside_others_if_each_of_them_can_go_on_by_a_piece():
    running = [Claim(100, 5000), Claim(50, 60)]
    needed = 100 + GROWTH + 60
    assert may_begin(needed + 30, 30, running)
    assert not may_begin(needed + 29, 30, running)


def test_whoever_is_alone_begins_if_it_fits():
    assert may_begin(30, 30, [])
    assert not may_begin(29, 30, [])


def test_what_can_never_fit_is_refused():
    check_length(5, 5, context_tokens=10, max_tokens=10)
    message = r"6 tokens and an answer of up to 5 are 11, .* context is 10"
    with pytest.raises(InputError, match=message):
        check_length(6, 5, context_tokens=10, max_tokens=20)
    with pytest.raises(InputError, match="come to 11 tokens, the memory set aside holds 10"):
        check_length(6, 5, context_tokens=20, max_tokens=10)
