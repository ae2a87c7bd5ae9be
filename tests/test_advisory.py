from __future__ import annotations

from biomistral.advisory import ADVISORY


def test_the_advisory_is_one_paragraph_that_rules_out_the_care_of_patients() -> None:
    assert "\n" not in ADVISORY
    assert "Research use only" in ADVISORY
    assert "care of patients" in ADVISORY
