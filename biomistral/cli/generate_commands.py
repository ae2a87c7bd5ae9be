"""``biomistral generate`` and ``biomistral chat``: options only, so that help is there at once."""

from __future__ import annotations

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


def add_to(app: typer.Typer) -> None:
    """Make these commands of the program."""
    app.command()(generate)
    app.command()(chat)
