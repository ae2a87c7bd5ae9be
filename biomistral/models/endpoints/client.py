"""Requests over HTTP that are repeated until they are answered, or certain not to be.

What may go away is tried again: too many requests (429), errors of the server (5xx), timeouts, broken
connections, and replies that are no JSON of the right shape. The wait doubles each time, is drawn at
random so that clients do not come back together, and is as long as the server says if it does
(``Retry-After``). Everything else is final at once.

The key is sent in a header and nowhere else: redirections, which would take it to another host, are
not followed, and it is struck out of what servers say. Knows nothing about questions.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from biomistral.errors import ModelError
from biomistral.models.endpoints.pace import Pace
from biomistral.recipe.endpoints import EndpointModel

Found = TypeVar("Found")

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
_PASSING = {408, 409, 425, 429}  # and every 5xx but the two that mean "never"
_NEVER = {501, 505}
_MOST_BYTES = 50_000_000  # of a reply; a completion with echo is a few hundred thousand


class Refused(ModelError):  # noqa: N818
    """The server will not answer this request, however often it is asked."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


_BY_CONTENT = re.compile(r"content.?(?:filter|policy|management)|moderation", re.IGNORECASE)


def is_about_content(refused: Refused) -> bool:
    """Whether a server's rules forbid this request, which says nothing about others."""
    return refused.status in {400, 403, 422} and _BY_CONTENT.search(str(refused)) is not None


class _Passing(Exception):  # noqa: N818
    """What went wrong may go well the next time."""

    def __init__(self, reason: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow none: the answer is then an error with the status of the redirection."""


class Client:
    """One endpoint. Threads may share it."""

    def __init__(
        self, settings: EndpointModel, pace: Pace, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._settings = settings
        self._pace = pace
        self._key = environment.get(settings.key_variable, "").strip()
        self._opener = urllib.request.build_opener(_NoRedirect)

    def post(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], Found], num_tokens: int
    ) -> Found:
        """Send ``body`` to ``path`` and return what ``read`` makes of the reply.

        ``read`` raises ``ValueError``, ``LookupError`` or ``TypeError`` for replies of a wrong shape;
        ``num_tokens`` is what the request counts for the bound per minute.

        Raises ``Refused`` if it is final, ``ModelError`` if all attempts failed.
        """
        url = f"{self._settings.endpoint}{path}"
        data = json.dumps(body).encode()
        attempts = self._settings.retries + 1
        for attempt in range(attempts):
            self._pace.wait(num_tokens)
            try:
                return self._once(url, data, read)
            except _Passing as error:
                reason = str(error)
                if error.retry_after_seconds is not None:
                    self._pace.hold(error.retry_after_seconds)
                elif attempt + 1 < attempts:
                    self._pace.sleep(backoff_seconds(attempt))
        raise ModelError(
            f"{url}: no answer in {attempts} attempts, the last one failed with: {reason}; see "
            "whether the server is up, or lower concurrency and requests_per_minute (what is "
            "answered is kept, start again to go on)"
        )

    def _once(self, url: str, data: bytes, read: Callable[[Any], Found]) -> Found:
        try:
            text = self._send(url, data)
        except urllib.error.HTTPError as error:
            raise self._failure(url, error) from None
        except TimeoutError:
            raise _Passing(f"timeout after {self._settings.timeout_seconds:g} seconds") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                reason = f"timeout after {self._settings.timeout_seconds:g} seconds"
            raise _Passing(self._clean(str(reason) or type(error).__name__)) from None
        try:
            return read(json.loads(text))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            shown = self._clean(text.decode("utf-8", "replace"))
            raise _Passing(f"the reply is not what the API says ({error}): {shown}") from None

    def _send(self, url: str, data: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(url, data, headers)  # noqa: S310 - the settings checked it
        seconds = self._settings.timeout_seconds
        deadline = time.monotonic() + seconds
        parts: list[bytes] = []
        with self._opener.open(request, timeout=seconds) as response:
            while part := response.read1(65536):
                parts.append(part)
                # The timeout of a socket starts anew with each byte; this one does not.
                if time.monotonic() > deadline or sum(map(len, parts)) > _MOST_BYTES:
                    raise TimeoutError
        return b"".join(parts)

    def _failure(self, url: str, error: urllib.error.HTTPError) -> Exception:
        try:
            text = error.read(20_000).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            text = ""
        status, said = error.code, self._clean(text)
        passing = status in _PASSING or (status >= 500 and status not in _NEVER)
        if passing and "insufficient_quota" not in text:
            return _Passing(f"status {status}: {said}", retry_after(error.headers["Retry-After"]))
        advice = "see the address, the model's name and parameters"
        if status in {401, 403}:
            state = "is refused" if self._key else "is not set"
            advice = f"the key in the environment variable {self._settings.key_variable} {state}"
        elif 300 <= status < 400:
            advice = "the server redirects; name the address it points to"
        return Refused(f"{url}: status {status}: {said}; {advice}", status)

    def _clean(self, text: str) -> str:
        """One short line without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        text = " ".join(text.split())
        return text if len(text) <= 300 else f"{text[:300]}..."


def backoff_seconds(attempt: int) -> float:
    """Return how long to wait after the failed attempt 0, 1, ...: half to all of 0.5 x 2^attempt."""
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0**attempt)
    return float(np.random.default_rng().uniform(longest / 2, longest))


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for; None if there is none to read."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(value).timestamp()
        except ValueError:
            return None
        seconds = moment - (time.time() if now is None else now)
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else None
