"""Other servers in place of our own: vLLM on a GPU, llama.cpp for GGUF files.

This process becomes the server (``exec``), so signals and exit status are its own. Keys go through
the environment, where ``ps`` does not show them. Options that a server has no counterpart for are
refused. Neither server knows calibration or the advisory. Both would let any web page that a
browser on this machine shows read their answers, and vLLM would report home; here they do not. A
page that points its own name at this machine is kept out by a key alone.

Tried with llama-server 0.5 (b1-0c1e570) and vLLM 0.32 on a CPU.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

from biomistral.errors import InputError, MissingDependencyError
from biomistral.serving.options import ServeOptions

Arguments = Callable[[str, ServeOptions], list[str]]


@dataclass(frozen=True)
class Server:
    """How another server is started."""

    program: str
    remedy: str  # where it is not installed
    key_variable: str
    environment: Mapping[str, str]  # where it is not set by the user
    takes: frozenset[str]  # of our options
    arguments: Arguments


def command(backend: str, model: str, options: ServeOptions) -> tuple[list[str], dict[str, str]]:
    """Return the command line of a server, and what to add to its environment.

    Raises ``InputError`` for options that it has not, ``MissingDependencyError`` if it is not there.
    """
    server = SERVERS[backend]
    _refuse_others(backend, server, options)
    _refuse_adapters(backend, model)
    arguments = server.arguments(model, options)
    program = shutil.which(server.program)
    if program is None:
        raise MissingDependencyError(
            f"--backend {backend}: needs the program {server.program!r}, which is not installed; "
            f"{server.remedy}"
        )
    environment = {k: v for k, v in server.environment.items() if k not in os.environ}
    if options.api_key:
        environment[server.key_variable] = options.api_key
    return [program, *arguments], environment


def start(backend: str, model: str, options: ServeOptions) -> NoReturn:
    """Become the server."""
    words, environment = command(backend, model, options)
    os.execve(words[0], words, {**os.environ, **environment})  # noqa: S606


def _refuse_others(backend: str, server: Server, options: ServeOptions) -> None:
    defaults = ServeOptions()
    for each in fields(ServeOptions):
        is_set = each.name != "host" and getattr(options, each.name) != getattr(defaults, each.name)
        if is_set and each.name not in server.takes:
            raise InputError(
                f"--backend {backend}: has nothing like {_FLAGS.get(each.name) or _flag(each.name)}; "
                "leave it out, or use --backend own"
            )


def _vllm(model: str, options: ServeOptions) -> list[str]:
    words = ["serve", model, "--host", options.host, "--port", str(options.port)]
    # Left to vLLM unless it is asked for: some kernels for quantized weights want float16.
    dtype = "float32" if options.precision == "float32" else "auto"
    words += ["--max-num-seqs", str(options.max_batch), "--dtype", dtype, "--allowed-origins", "[]"]
    path = Path(model)
    name = options.name or (path.resolve().name if path.is_dir() else model)
    words += ["--served-model-name", name]
    return words + (["--revision", options.revision] if options.revision else [])


def _llama_cpp(model: str, options: ServeOptions) -> list[str]:
    file = gguf_file(Path(model))
    words = ["--model", str(file), "--host", options.host, "--port", str(options.port)]
    words += ["--parallel", str(options.max_batch), "--alias", options.name or file.stem]
    return [*words, "--timeout", str(max(1, round(options.timeout_seconds)))]


def _refuse_adapters(backend: str, model: str) -> None:
    from biomistral.models.adapted import adapted

    if adapted(model):
        raise InputError(
            f"{model}: is a model with an adapter, which --backend {backend} is not given; merge the "
            "two (biomistral merge, see docs/merging.md) and serve the result, or leave --backend out"
        )


def gguf_file(place: Path) -> Path:
    """The GGUF file at a place; raises ``InputError`` unless there is exactly one."""
    found = sorted(place.glob("*.gguf")) if place.is_dir() else [place]
    if len(found) != 1 or found[0].suffix != ".gguf" or not found[0].is_file():
        names = ", ".join(file.name for file in found if file.suffix == ".gguf")
        raise InputError(
            f"{place}: --backend llama.cpp needs one GGUF file, and there "
            f"{f'are {names}' if names and place.is_dir() else 'is none'}; name the file itself, or "
            "quantize the model to gguf first"
        )
    return found[0]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


_FLAGS: Mapping[str, str] = {"timeout_seconds": "--timeout", "max_body_bytes": "--max-body"}
_BOTH = {"host", "port", "api_key", "name", "max_batch"}
SERVERS: Mapping[str, Server] = {
    "vllm": Server(
        "vllm",
        "run: pip install 'biomistral[vllm]'",
        "VLLM_API_KEY",
        {"VLLM_NO_USAGE_STATS": "1"},
        frozenset({*_BOTH, "precision", "revision"}),
        _vllm,
    ),
    "llama.cpp": Server(
        "llama-server",
        "get it from https://github.com/ggml-org/llama.cpp/releases (or build it, or brew install "
        "llama.cpp) and put llama-server on the PATH",
        "LLAMA_API_KEY",
        # One context shared by all answers: a whole one for each of 8 takes 34 GB for Mistral 7B.
        {"LLAMA_ARG_KV_UNIFIED": "1", "LLAMA_ARG_CORS_ORIGINS": "localhost"},
        frozenset({*_BOTH, "timeout_seconds"}),
        _llama_cpp,
    ),
}
