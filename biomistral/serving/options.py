"""How a server is run. Light: checked before a model is opened."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from biomistral.errors import InputError, did_you_mean

Backend = Literal["own", "vllm", "llama.cpp"]
Precision = Literal["bfloat16", "float32"]
BACKENDS: tuple[str, ...] = get_args(Backend)
LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")
_LEAST_KEY_CHARACTERS = 8


@dataclass(frozen=True)
class ServeOptions:
    """All that a server is told besides its model. Raises ``InputError`` for what cannot be meant."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: a free one
    api_key: str | None = None
    ui: bool = False
    name: str | None = None  # by which clients call the model; default: its folder's
    revision: str | None = None
    precision: Precision = "bfloat16"
    max_batch: int = 8  # sequences that generate at the same time
    queue: int = 256  # sequences that may wait besides
    timeout_seconds: float = 600.0  # for one request, waiting included
    stop_seconds: float = 30.0  # that running requests get when the server is stopped
    max_body_bytes: int = 8_000_000
    calibration: Path | None = None  # a file, or a folder of scores
    questions: Path | None = None  # a questions artefact, for the page's benchmark panel

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"--port {self.port}: is no port; allowed are 0 (any free) to 65535")
        if self.questions and not self.ui:
            raise InputError("--questions: are shown by the page; add --ui, or leave them out")
        if self.precision not in get_args(Precision):
            raise InputError(
                f"--precision {self.precision!r}: is none; allowed are bfloat16 and float32"
            )
        for flag, value, least in (
            ("--max-batch", self.max_batch, 1),
            ("--queue", self.queue, 0),
            ("--timeout", self.timeout_seconds, 0.001),
            ("--max-body", self.max_body_bytes, 1024),
        ):
            if value < least:
                raise InputError(f"{flag} {value:g}: is too small; allowed is {least:g} or more")
        if self.api_key is not None:
            _check_key(self.api_key)
        elif not is_local(self.host):
            raise InputError(
                f"--host {self.host}: is reached from other machines, and there is no key; add "
                "--api-key KEY (or set BIOMISTRAL_API_KEY), or listen on 127.0.0.1"
            )


def is_local(host: str) -> bool:
    """Whether an address is that of this machine for itself (127.0.0.1, ::1, localhost)."""
    name = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in LOCAL_NAMES


def check_backend(name: str) -> None:
    """Raise ``InputError`` for a backend that there is not."""
    if name not in BACKENDS:
        raise InputError(
            f"--backend {name!r}: is no backend{did_you_mean(name, BACKENDS)}; allowed are "
            f"{', '.join(BACKENDS)}"
        )


def _check_key(key: str) -> None:
    if len(key) < _LEAST_KEY_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(
            f"--api-key: has {len(key)} characters; wanted are {_LEAST_KEY_CHARACTERS} or more, "
            "letters, digits and signs of ASCII without blanks; make one with: openssl rand -hex 24"
        )
