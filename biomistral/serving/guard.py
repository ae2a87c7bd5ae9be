"""What every request goes through, before and after it is answered: limits, key, headers, numbers.

Plain ASGI, so that streams pass through untouched. A server that asks for no key listens on this
machine only, and then takes requests for names of this machine only: a web page that points its own
name at 127.0.0.1 gets nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Callable, Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from biomistral.advisory import ADVISORY
from biomistral.serving.failures import Failure, no_key
from biomistral.serving.metrics import Metrics
from biomistral.serving.options import is_local

_SECONDS_FOR_A_PART = 30  # of a body
_HEADERS = {
    "X-Advisory": ADVISORY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Only what this server sends itself: no other host, no inline code, no frame around it.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; object-src 'none'",
}


class Guard:
    """Wraps an application; see the module."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_key: str | None,
        host: str,
        open_paths: Callable[[str], bool],
        known_paths: Collection[str],
        max_body_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._key = api_key.encode() if api_key else None
        self._host = host
        self._is_open = open_paths
        self._known = frozenset(known_paths)
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse in its place."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        status = 499  # as long as nothing is sent: the client went away
        path = scope["path"]

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            body = await self._checked(scope, receive)
            await self._app(scope, body, sending)
        except Failure as failure:
            await _refuse(failure, sending)
        finally:
            label = path if path in self._known else "other"
            self._metrics.add("requests_total", path=label, status=str(status))
            self._metrics.observe("request_seconds", time.monotonic() - begun, path=label)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """Check headers, read the body, and return what hands it on; raises ``Failure``."""
        headers = Headers(scope=scope)
        if self._key is None:
            self._check_host(headers.get("host", ""))
        elif not self._is_open(scope["path"]) and not self._has_key(headers):
            raise no_key()
        said = headers.get("content-length", "0")
        if said.isdigit() and int(said) > self._max_body_bytes:
            raise self._too_large()
        if scope["method"] not in {"POST", "PUT", "PATCH"}:
            return receive
        return await self._read(receive)

    async def _read(self, receive: Receive) -> Receive:
        """The whole body, which may be in parts and may not say how long it is."""
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            try:
                async with asyncio.timeout(_SECONDS_FOR_A_PART):
                    message = await receive()
            except TimeoutError:
                raise Failure(
                    408,
                    f"no more of the body came for {_SECONDS_FOR_A_PART} s",
                    code="body_too_slow",
                ) from None
            if message["type"] == "http.disconnect":
                break
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > self._max_body_bytes:
                raise self._too_large()
        whole: Message | None = {
            "type": "http.request",
            "body": b"".join(parts),
            "more_body": False,
        }

        async def hand_on() -> Message:
            nonlocal whole
            if whole is None:
                return await receive()
            message, whole = whole, None
            return message

        return hand_on

    def _has_key(self, headers: Headers) -> bool:
        assert self._key is not None, "asked only where there is a key"
        kind, _, key = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), self._key)

    def _check_host(self, host: str) -> None:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name and not is_local(name) and name != self._host:
            raise Failure(
                403,
                f"this server answers requests for this machine, not for {name[:100]!r}; to be "
                "reached under other names it needs --api-key",
                kind="permission_error",
                code="wrong_host",
            )

    def _too_large(self) -> Failure:
        return Failure(
            413,
            f"the body is larger than {self._max_body_bytes:,} bytes; send less at a time, or start "
            "the server with a larger --max-body",
            code="body_too_large",
            headers={"Connection": "close"},
        )


async def _refuse(failure: Failure, send: Send) -> None:
    body = json.dumps(failure.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    headers |= {name.lower(): value for name, value in failure.headers.items()}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": failure.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
