"""From a folder to a running server, and to its end.

The first SIGINT or SIGTERM stops it gracefully: no new connection is taken, running requests get a
while to end, then the rest is cancelled. A second SIGINT ends it at once.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomistral.advisory import ADVISORY
from biomistral.errors import InputError, require
from biomistral.serving.options import ServeOptions

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from biomistral.serving.calibrating import Calibration
    from biomistral.serving.service import Model

Tell = Callable[[str], None]
_BACKLOG = 2048  # connections that are not accepted yet
_KEEP_ALIVE_SECONDS = 65  # longer than that of common proxies, which then never meet a closed one
_LOG = logging.getLogger("biomistral.serving")


def serve(model: str, options: ServeOptions, tell: Tell = lambda _: None) -> None:
    """Serve the model in a folder or on the hub until a signal comes; ``tell`` is given the news.

    Raises ``InputError`` or ``ModelError`` if model, calibration or questions cannot be used or the
    port is taken, ``MissingDependencyError`` without FastAPI and uvicorn.
    """
    for library in ("fastapi", "uvicorn"):
        require(library, extra="serving", purpose="serving")
    import uvicorn

    name = options.name or served_name(model)
    from biomistral.serving.calibrating import open_calibration

    calibration = open_calibration(model, name, options.calibration)
    panel = None
    if options.questions:
        from biomistral.serving.panel import open_panel

        panel = open_panel(options.questions)
    with listening(options) as socket:
        opened = open_model(model, name, options)
        app = Lifespan(opened, options, calibration, panel)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(options.stop_seconds)),
            limit_concurrency=None,
            backlog=_BACKLOG,
        )
        server = uvicorn.Server(config)
        socket.listen(_BACKLOG)  # so that what is said below is true when it is said
        host, port = socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        for line in news(opened, calibration, f"http://{shown}:{port}", options):
            tell(line)
        with signals_are_orders():
            server.run(sockets=[socket])
        tell("stopped")


def served_name(model: str) -> str:
    """By which clients call a model: the name of its folder or its adapter's, or its id on the hub."""
    path = Path(model)
    if not path.exists() and "+" in model:
        path = Path(model.rpartition("+")[2])
    return path.resolve().name if path.is_dir() else str(path)


def open_model(place: str, name: str, options: ServeOptions) -> Model:
    """Load a model and its tokenizer, and make the engine that generates with it."""
    from biomistral.models.generating import Engine
    from biomistral.models.loading import load_model, load_tokenizer, num_weights
    from biomistral.serving.service import Model

    tokenizer = load_tokenizer(place, options.revision)  # the quicker to be refused
    model = load_model(place, revision=options.revision, precision=options.precision)
    return Model(
        name=name,
        tokenizer=tokenizer,
        engine=Engine(model, tokenizer, max_batch=options.max_batch),
        num_embeddings=model.get_input_embeddings().weight.shape[0],
        has_chat_template=bool(tokenizer.chat_template),
        created=int(time.time()),
        facts={
            "precision": options.precision,
            "quantization": model.stored_as,
            "device": model.device.type,
            "parameters": num_weights(model),
            "max_batch": options.max_batch,
        },
    )


def news(
    model: Model, calibration: Calibration | None, address: str, options: ServeOptions
) -> Iterator[str]:
    """What the user is told once the server is ready."""
    facts = model.facts
    kind = f", {facts['quantization']}" if facts["quantization"] else ""
    yield (
        f"{model.name}: {facts['parameters'] / 1e6:,.0f} million parameters, {facts['precision']}"
        f"{kind}, on {facts['device']}; context {model.engine.room(0):,} tokens"
    )
    if calibration:
        yield f"calibration: {calibration.path} ({calibration.words()})"
    if not model.has_chat_template:
        yield "no chat template: /v1/chat/completions is refused, /v1/completions works"
    yield f"listening on {address}/v1" + (" (key needed)" if options.api_key else "")
    if options.ui:
        yield f"chat page: {address}/"
    yield ADVISORY


class Lifespan:
    """The application, made in the event loop when it starts; the engine runs as long as it does."""

    def __init__(
        self, model: Model, options: ServeOptions, calibration: Calibration | None, panel: Any
    ) -> None:
        self._model = model
        self._options = options
        self._calibration = calibration
        self._panel = panel
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Start and stop with the server; hand everything else on."""
        if scope["type"] != "lifespan":
            assert self._app is not None, "requests come after the start"
            await self._app(scope, receive, send)
            return
        await receive()
        async with self._running():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        from biomistral.serving.app import create_app
        from biomistral.serving.metrics import server_metrics
        from biomistral.serving.service import Service

        options = self._options
        service = Service(
            self._model,
            server_metrics(),
            max_batch=options.max_batch,
            queue=options.queue,
            timeout_seconds=options.timeout_seconds,
            calibration=self._calibration,
            panel=self._panel,
        )
        self._app = create_app(service, options)
        self._model.engine.start()
        try:
            yield
        finally:
            await service.in_thread(self._model.engine.stop)
            service.close()


@contextlib.contextmanager
def listening(options: ServeOptions) -> Iterator[Any]:
    """A socket that listens, bound before a model is loaded; raises ``InputError`` if it cannot be."""
    import socket

    try:
        family = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family[0], socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(family[4])
    except OSError as error:
        raise InputError(
            f"--host {options.host} --port {options.port}: cannot be listened on "
            f"({error.strerror or error}); choose another --port (0: any free one)"
        ) from None
    with contextlib.closing(bound):
        yield bound


@contextlib.contextmanager
def signals_are_orders() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the server, and nothing more.

    uvicorn raises them again once it has stopped, for whoever handled them before.
    """
    before = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
