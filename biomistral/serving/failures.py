"""Failures as clients of OpenAI's interface expect them: a status and a body with one ``error``.

400 invalid_request_error    404 not_found_error      401 authentication_error
413 invalid_request_error    429 rate_limit_error     503, 504 timeout_error    500 server_error
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Failure(Exception):  # noqa: N818
    """What a client is told instead of an answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The error as JSON values."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


def bad_value(message: str, param: str | None = None, code: str | None = None) -> Failure:
    """A request that says something that cannot be meant."""
    return Failure(400, message, param=param, code=code)


def no_key() -> Failure:
    """A missing or wrong key."""
    return Failure(
        401,
        "the API key is missing or wrong; send the header 'Authorization: Bearer KEY'",
        kind="authentication_error",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def too_busy(waiting: int, limit: int, retry_after_seconds: int) -> Failure:
    """A full queue."""
    return Failure(
        429,
        f"{waiting} requests are waiting, and no more than {limit} may; try again in "
        f"{retry_after_seconds} s",
        kind="rate_limit_error",
        code="queue_full",
        headers={"Retry-After": str(retry_after_seconds)},
    )


def too_slow(seconds: float, *, started: bool) -> Failure:
    """A request that took too long: while it waited (try again) or while it was answered (do not)."""
    if started:
        return Failure(
            504,
            f"the answer was not finished within {seconds:g} s; ask for fewer tokens, or start the "
            "server with a longer --timeout",
            kind="timeout_error",
            code="timeout",
            headers={"x-should-retry": "false"},
        )
    return Failure(
        503,
        f"the request waited {seconds:g} s and its turn did not come; try again later",
        kind="timeout_error",
        code="timeout_in_queue",
        headers={"Retry-After": "10"},
    )


def stopping() -> Failure:
    """A server that is on its way out."""
    return Failure(
        503,
        "the server is being stopped",
        kind="server_error",
        code="stopping",
        headers={"Retry-After": "30"},
    )


def broken() -> Failure:
    """A bug of ours; what it was stands in the server's log and not in the answer."""
    return Failure(500, "the server failed at this request; its log says why", kind="server_error")
