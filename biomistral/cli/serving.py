"""``biomistral serve``: options only, so that help is there at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from biomistral.serving.options import Precision, ServeOptions, check_backend


def serve(
    model: Annotated[str, typer.Argument(help="Folder of a model, or owner/name on the hub.")],
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than this machine's own wants a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="BIOMISTRAL_API_KEY",
            show_envvar=True,
            help="Clients must send it. In the variable other users of the machine cannot see it.",
        ),
    ] = None,
    ui: Annotated[bool, typer.Option("--ui", help="A chat page at the server's address.")] = False,
    questions: Annotated[
        Path | None,
        typer.Option(help="Questions of a run (runs/NAME/questions/benchmark), for the page."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A calibration file, or a folder of scores. Default: that of the model's own run."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="By which clients call the model; default: its folder's.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of a model on the hub.")] = None,
    precision: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    max_batch: Annotated[int, typer.Option(help="Answers that are generated together.")] = 8,
    queue: Annotated[
        int, typer.Option(help="Answers that may wait; more are sent away (429).")
    ] = 256,
    timeout: Annotated[
        float, typer.Option(help="Seconds for one request, waiting included.")
    ] = 600,
    stop_seconds: Annotated[
        float, typer.Option(help="That running requests get when the server is stopped.")
    ] = 30,
    max_body: Annotated[int, typer.Option(help="Largest request, in bytes.")] = 8_000_000,
    backend: Annotated[
        str, typer.Option(help="own, or the server of vllm or llama.cpp, if it is installed.")
    ] = "own",
) -> None:
    """Serve a model to OpenAI's clients and, with --ui, to a browser. Ctrl-C stops it."""
    check_backend(backend)
    options = ServeOptions(
        host=host,
        port=port,
        api_key=api_key,
        ui=ui,
        name=name,
        revision=revision,
        precision=cast("Precision", precision),
        max_batch=max_batch,
        queue=queue,
        timeout_seconds=timeout,
        stop_seconds=stop_seconds,
        max_body_bytes=max_body,
        calibration=calibration,
        questions=questions,
    )
    if backend != "own":
        from biomistral.serving.backends import start

        start(backend, model, options)
    from biomistral.serving.running import serve as serve_model

    serve_model(model, options, typer.echo)
