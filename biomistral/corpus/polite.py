"""Plain HTTP GETs that are polite and sure: a steady rate, patience, and whole bodies only.

A connection that drops, a body shorter than announced or with another MD5, and the answers 429 and
5xx are tried again, later each time, and not before ``Retry-After`` says. Redirections are not
followed. Knows nothing about articles or files.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from biomistral import __version__
from biomistral.errors import InputError

MAX_BODY_BYTES = 200_000_000
_LONGEST_WAIT_SECONDS = 300.0
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})


class FetchError(InputError):
    """A body could not be had; the message says what was wrong the last time."""


class Limiter:
    """Lets at most ``per_second`` through, evenly, whatever number of threads ask."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Return when it is this caller's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        time.sleep(max(0.0, turn - now))


@dataclass
class Client:
    """GETs below one address, one connection a thread."""

    base_url: str
    limiter: Limiter
    attempts: int = 6
    backoff_seconds: float = 1.0  # doubled after each failure
    timeout_seconds: float = 60.0
    _local: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        """Check the address."""
        parts = urlsplit(self.base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InputError(
                f"--base-url {self.base_url!r}: is no address; write it like "
                "https://pmc-oa-opendata.s3.amazonaws.com"
            )

    def get(self, path: str, md5: str | None = None) -> bytes | None:
        """Return the body at ``path``, which must have this MD5; None where there is nothing.

        Raises ``FetchError`` after all attempts.
        """
        said = ""
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(min(self.backoff_seconds * 2 ** (attempt - 1), _LONGEST_WAIT_SECONDS))
            self.limiter.wait()
            try:
                with self._connection() as connection:
                    connection.request("GET", path, headers={"User-Agent": _AGENT})
                    status, body, pause, etag = _read(connection.getresponse())
            except (OSError, http.client.HTTPException) as error:
                said = str(error) or type(error).__name__
                continue
            if status == 404:
                return None
            if status == 200:
                said = _fault(body, md5 or etag)
                if not said:
                    return body
            elif status in _AGAIN:
                said = f"the server answers {status}"
                time.sleep(min(pause, _LONGEST_WAIT_SECONDS))
            else:
                raise FetchError(f"{path}: the server answers {status}")
        raise FetchError(f"{path}: {said} ({self.attempts} attempts)")

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        """Yield the connection of this thread; one that failed is not used again."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            parts = urlsplit(self.base_url)
            kind = (
                http.client.HTTPSConnection
                if parts.scheme == "https"
                else http.client.HTTPConnection
            )
            assert parts.hostname, "checked at the start"
            connection = kind(parts.hostname, parts.port, timeout=self.timeout_seconds)
            self._local.connection = connection
        try:
            yield connection
        except BaseException:
            self._local.connection = None
            connection.close()
            raise


_AGENT = f"biomistral/{__version__} (corpus fetch)"


def _read(response: http.client.HTTPResponse) -> tuple[int, bytes, float, str | None]:
    """Status, body, seconds to wait, and the MD5 that the server gives.

    Raises ``http.client.IncompleteRead`` if the body is shorter than it was announced.
    """
    body = response.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise http.client.HTTPException(f"more than {MAX_BODY_BYTES} bytes")
    announced = response.getheader("Content-Length", "")
    if announced.isdigit() and len(body) != int(announced):
        raise http.client.IncompleteRead(body, int(announced) - len(body))
    etag = (response.getheader("ETag") or "").strip('"')
    return response.status, body, _seconds(response.getheader("Retry-After")), md5_of(etag)


def md5_of(etag: str) -> str | None:
    """The MD5 that an ETag is, unless the object was uploaded in parts."""
    is_md5 = len(etag) == 32 and set(etag.lower()) <= set("0123456789abcdef")
    return etag.lower() if is_md5 else None


def _fault(body: bytes, md5: str | None) -> str:
    found = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return f"the MD5 is {found}, not {md5}" if md5 and md5 != found else ""


def _seconds(retry_after: str | None) -> float:
    """Read ``Retry-After``: seconds, or a date."""
    if not retry_after:
        return 0.0
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        then = email.utils.parsedate_to_datetime(retry_after).timestamp()
    except ValueError:
        return 0.0
    return max(0.0, then - time.time())
