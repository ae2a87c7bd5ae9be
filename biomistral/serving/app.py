"""The addresses of the server, and which function answers at each. Nothing else.

GET  /health                    is it there                         no key needed
GET  /metrics                   numbers for Prometheus
GET  /v1/models[/NAME]          the one model, and what is known of it
POST /v1/completions            OpenAI's, with log-probabilities and echo
POST /v1/chat/completions       OpenAI's
POST /v1/choices                how likely each option is, calibrated
GET  /                          the chat page, with --ui            no key needed
GET  /page/...                  its files                           no key needed
GET  /panel/...                 what the page's benchmark panel shows
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from biomistral import __version__
from biomistral.advisory import ADVISORY
from biomistral.serving import answering, choices, metrics
from biomistral.serving.connections import Gone, Stream, while_connected
from biomistral.serving.failures import Failure, bad_value, broken
from biomistral.serving.guard import Guard
from biomistral.serving.options import ServeOptions
from biomistral.serving.panel import MOST_SHOTS
from biomistral.serving.requests import ChatBody, ChoicesBody, CompletionBody
from biomistral.serving.service import Service

LOG = logging.getLogger("biomistral.serving")
_SECONDS_TO_READ = 60  # that a client has for the rest of an answer that was ended
PAGE = Path(__file__).parent / "page"
_PAGE_FILES = {path.name for path in PAGE.iterdir()} - {"index.html"}


def create_app(service: Service, options: ServeOptions) -> ASGIApp:
    """Return the application for one service, wrapped in its guard."""
    app = FastAPI(
        title="biomistral", version=__version__, description=ADVISORY, docs_url=None, redoc_url=None
    )
    _add_failures(app)
    _add_model(app, service)
    _add_answers(app, service)
    if options.ui:
        _add_page(app)
    if service.panel:
        _add_panel(app, service)
    return Guard(
        app,
        api_key=options.api_key,
        host=options.host,
        open_paths=lambda path: path in {"/", "/health"} or path.startswith("/page/"),
        known_paths=[path for route in app.routes if "{" not in (path := _path_of(route))],
        max_body_bytes=options.max_body_bytes,
        metrics=service.metrics,
    )


def _path_of(route: Any) -> str:
    return str(getattr(route, "path", ""))


def _add_model(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> JSONResponse:
        facts = service.health()
        return JSONResponse(facts, 200 if facts["status"] == "ok" else 503)

    @app.get("/metrics")
    async def numbers() -> Response:
        return PlainTextResponse(service.metrics_text(), media_type=metrics.CONTENT_TYPE)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [service.model_card()], "advisory": ADVISORY}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        service.check_model(name)
        return service.model_card()


def _add_answers(app: FastAPI, service: Service) -> None:
    async def stream(request: Request, events: AsyncGenerator[bytes]) -> Response:
        """Wait for the first event, so that what goes wrong before it has a status of its own."""
        first = await while_connected(request, _next(events))
        return Stream(first, events, service.timeout_seconds + _SECONDS_TO_READ)

    @app.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Any:
        if not body.stream:
            return await while_connected(request, answering.complete(service, body))
        asked = await answering.ask_completion(service, body)
        return await stream(request, answering.stream_completion(service, body, asked))

    @app.post("/v1/chat/completions")
    async def chats(body: ChatBody, request: Request) -> Any:
        if not body.stream:
            return await while_connected(request, answering.chat(service, body))
        asked = await answering.ask_chat(service, body)
        return await stream(request, answering.stream_chat(service, body, asked))

    @app.post("/v1/choices")
    async def weigh(body: ChoicesBody, request: Request) -> Any:
        return await while_connected(request, choices.weigh(service, body))


async def _next(events: AsyncGenerator[bytes]) -> bytes:
    return await anext(events)


def _add_page(app: FastAPI) -> None:
    # The advisory is in the page itself: it is there whatever a script or a key is missing.
    html = (PAGE / "index.html").read_text("utf-8").replace("{advisory}", escape(ADVISORY))

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(html, headers={"Cache-Control": "no-cache"})

    @app.api_route("/page/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in _PAGE_FILES:
            raise HTTPException(404)
        return FileResponse(PAGE / name, headers={"Cache-Control": "no-cache"})


def _add_panel(app: FastAPI, service: Service) -> None:
    panel = service.panel
    assert panel is not None, "there is one, or nothing is added"

    @app.get("/panel/tasks")
    async def tasks() -> dict[str, Any]:
        calibration = service.calibration
        scoring, shots = calibration.usual() if calibration else ("letter", 0)
        return panel.listing() | {"scoring": scoring, "shots": shots}

    @app.get("/panel/questions")
    async def questions(
        task: str, language: str, start: int = 0, count: int = 50
    ) -> dict[str, Any]:
        return panel.previews(task, language, max(0, start), min(max(1, count), 500))

    @app.get("/panel/question")
    async def question(
        task: str,
        language: str,
        number: int,
        shots: int = Query(0, ge=0, le=MOST_SHOTS),
        scoring: Literal["letter", "cloze"] = "letter",
    ) -> dict[str, Any]:
        found = partial(panel.question, task, language, number, shots, scoring)
        return await service.in_thread(found)


def _add_failures(app: FastAPI) -> None:
    """Every failure has the form of OpenAI's, whoever found it."""

    def handle(
        kind: type[Exception], turn: Callable[[Any], Failure]
    ) -> Callable[[Request, Exception], Awaitable[Response]]:
        async def answer(request: Request, error: Exception) -> Response:
            del request
            failure = turn(error)
            return JSONResponse(failure.body(), failure.status, headers=failure.headers)

        app.add_exception_handler(kind, answer)
        return answer

    def unforeseen(error: Exception) -> Failure:
        LOG.error("a request failed", exc_info=error)
        return broken()

    handle(Failure, lambda failure: failure)
    handle(RequestValidationError, _of_validation)
    handle(HTTPException, _of_http)
    handle(Gone, lambda _: Failure(499, "the client has disconnected"))
    handle(Exception, unforeseen)


def _of_http(error: HTTPException) -> Failure:
    if error.status_code == 404:
        message = "there is nothing at this address; see /v1/models, /v1/chat/completions, /health"
        return Failure(404, message, kind="not_found_error", code="unknown_address")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another")
        message = f"this method is not taken at this address; allowed is {allowed}"
        return Failure(405, message, code="wrong_method", headers=error.headers)
    if error.status_code == 400:  # FastAPI gives no reason where Python's reader gave up
        return bad_value(
            "the body cannot be read as JSON: it is nested too deeply, or has a number with too many "
            "digits",
            code="malformed_json",
        )
    return Failure(error.status_code, str(error.detail), headers=error.headers)


def _of_validation(error: RequestValidationError) -> Failure:
    """The first thing that is wrong with a request, in words."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in {"body", "query"}]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return bad_value(
            f"the body is no JSON: {reason} (character {place[-1] if place else 0})",
            code="malformed_json",
        )
    if first["type"] in {"model_attributes_type", "dict_type"} and not place:
        return bad_value(
            "the body is no JSON object; send one with the header Content-Type: application/json"
        )
    # Of a value that may have several forms, the form itself is part of the place: leave it out.
    name = ".".join(part for part in place if part.isidentifier() or part.isdigit())
    if first["type"] == "extra_forbidden":
        return bad_value(f"{name}: is not known here; leave it out", name, "unknown_parameter")
    if first["type"] == "missing":
        return bad_value(f"{name}: is missing", name, "missing_parameter")
    said = first["msg"].removeprefix("Value error, ")
    words = f"{name}: {said}" if name else said
    shown = first.get("input")
    if isinstance(shown, int | float | str) and name:
        words += f" (it is {str(shown)[:80]!r})"
    return bad_value(words, name or None)
