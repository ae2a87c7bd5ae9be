from __future__ import annotations

from biomistral.translation.parts import Parts
from biomistral.translation.wanted import Wanted


def test_a_first_attempt_is_from_english_and_has_nothing_to_mend() -> None:
    wanted = Wanted(Parts("Which?", ("Oak", "Ash")), "fr")
    assert (wanted.source_language, wanted.attempt, wanted.faults) == ("en", 0, ())
