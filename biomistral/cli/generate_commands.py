"""``biomistral generate``, ``chat`` and ``bench``: options only, so that help is there at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        help="Folder of a model in any form made here, or owner/name on the hub.", metavar="MODEL"
    ),
]
System = Annotated[str | None, typer.Option(help="What the model is told before all else.")]
MaxTokens = Annotated[
    int | None, typer.Option(min=1, help="Longest answer. Default: 512, or what the context holds.")
]
Temperature = Annotated[float, typer.Option(help="0: always the most probable token.")]
TopP = Annotated[float, typer.Option(help="Draw from tokens that together have this probability.")]
TopK = Annotated[int, typer.Option(help="Draw from so many tokens; 0: all.")]
MinP = Annotated[float, typer.Option(help="Least probability, as a fraction of the largest one.")]
Penalty = Annotated[float, typer.Option(help="Above 1: fewer repetitions.")]
Seed = Annotated[int | None, typer.Option(help="Draws the same answer again.")]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends the answer. Repeatable.")]
Precision = Annotated[str, typer.Option(help="bfloat16 or float32.")]
Revision = Annotated[str | None, typer.Option(help="Commit of a model on the hub.")]


def generate(
    model: Model,
    prompt: Annotated[
        str, typer.Argument(help="The text to continue; - or nothing: standard input.")
    ] = "-",
    *,
    chat: Annotated[
        bool, typer.Option("--chat", help="Give it as a message in the model's chat template.")
    ] = False,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = None,
    stop: Stop = None,
    precision: Precision = "bfloat16",
    revision: Revision = None,
) -> None:
    """Continue a text with a model; only the answer goes to standard output."""
    from biomistral.cli import generating

    settings = generating.Settings(
        max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed, tuple(stop or ())
    )
    source = generating.Source(model, revision, precision)
    generating.generate(source, prompt, settings, chat=chat, system=system)


def chat(
    model: Model,
    *,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = None,
    stop: Stop = None,
    precision: Precision = "bfloat16",
    revision: Revision = None,
) -> None:
    """Talk with a model in its chat template; /help in the conversation lists what it understands."""
    from biomistral.cli import chatting, generating

    settings = generating.Settings(
        max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed, tuple(stop or ())
    )
    source = generating.Source(model, revision, precision)
    chatting.chat(source, settings, system=system)


def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Folders or hub ids (owner/name), each also as NAME=FOLDER.", metavar="MODEL..."
        ),
    ],
    *,
    prompt_tokens: Annotated[int, typer.Option(help="Length of the prompt that is read.")] = 512,
    new_tokens: Annotated[int, typer.Option(help="Length of the answers written.")] = 32,
    batch: Annotated[int, typer.Option(help="Answers written at once, besides one alone.")] = 8,
    repeats: Annotated[int, typer.Option(help="The fastest of so many counts.")] = 3,
    precision: Precision = "bfloat16",
    threads: Annotated[int | None, typer.Option(help="Default: as PyTorch chooses.")] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of a run of a recipe; its models may be called by their names."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--json", help="File to write all numbers to.")
    ] = None,
) -> None:
    """Measure what models cost: memory, time to load, tokens read and written in a second."""
    from biomistral.cli import benching
    from biomistral.models.costs import CostSettings

    settings = CostSettings(prompt_tokens, new_tokens, batch, repeats, precision, threads)
    benching.bench(models, settings, run=run, out=out)


def add_to(app: typer.Typer) -> None:
    """Make these commands of the program."""
    app.command()(generate)
    app.command()(chat)
    app.command()(bench)
