from __future__ import annotations

import pytest

from biomistral.serving import failures


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (failures.bad_value("x", "n", "c"), 400, "invalid_request_error"),
        (failures.no_key(), 401, "authentication_error"),
        (failures.too_busy(3, 2, 5), 429, "rate_limit_error"),
        (failures.too_slow(1, started=True), 504, "timeout_error"),
        (failures.too_slow(1, started=False), 503, "timeout_error"),
        (failures.broken(), 500, "server_error"),
    ],
)
def test_every_failure_has_openais_form(failure, status, kind) -> None:
    assert failure.status == status
    assert set(failure.body()) == {"error"}
    error = failure.body()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == kind


def test_who_was_sent_away_is_told_when_to_come_back() -> None:
    assert failures.too_busy(3, 2, 5).headers["Retry-After"] == "5"
    assert "Retry-After" in failures.too_slow(1, started=False).headers


def test_an_answer_that_took_too_long_is_not_asked_for_again_by_itself() -> None:
    assert failures.too_slow(1, started=True).headers["x-should-retry"] == "false"
