"""What ``biomistral translate`` and its commands do and show."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from biomistral.cli import stopping
from biomistral.cli.groups import RunByDefault
from biomistral.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from biomistral.progress import Progress
    from biomistral.recipe.translating import TranslateSettings

app = typer.Typer(
    name="translate",
    cls=RunByDefault,
    subcommand_metavar="DATA | COMMAND [ARGS]...",
    no_args_is_help=True,
    help="Translate the questions of a benchmark, measure and review the translations.",
)

Endpoint = Annotated[
    str | None, typer.Option(help="Address of an OpenAI-compatible API, with /v1.")
]
ModelName = Annotated[str | None, typer.Option("--model", help="Name of the model there.")]
Local = Annotated[
    str | None,
    typer.Option(help="Folder or hub id of a model of Transformers: NLLB, MADLAD, Opus-MT ..."),
]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Read pytorch_model.bin; no code in it runs.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Further settings, such as translator.concurrency=32."),
]


@app.command("run")
def translate_run(
    data: Annotated[str, typer.Argument(help="Folder with the question files.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the translations.")],
    to: Annotated[str, typer.Option(help="Languages, with commas.")] = "fr,es,pt,de,ru,zh,ar",
    endpoint: Endpoint = None,
    model: ModelName = None,
    local: Local = None,
    allow_pickle: AllowPickle = False,
    tasks: Annotated[str, typer.Option(help="all, or names with commas.")] = "all",
    limit: Annotated[int | None, typer.Option(min=1, help="Test questions a task.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Training questions a task.")] = 0,
    attempts: Annotated[int, typer.Option(min=1, help="Until no fault is found.")] = 3,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask after the estimate.")] = False,
    changes: Changes = None,
) -> None:
    """Translate; the word run may be left out. What was answered is kept and never paid for twice."""
    stopping.interrupt_on_termination()
    from biomistral.artifacts import read_manifest
    from biomistral.pipeline.translating import english_questions
    from biomistral.recipe.settings import BenchmarkSettings
    from biomistral.translation import translate_questions

    numbers = {"limit": limit, "examples": examples, "attempts": attempts}
    who = _translator(endpoint, model, local, allow_pickle=allow_pickle)
    settings = _settings(who, changes, tasks=tasks, languages=to, **numbers)
    asked = english_questions(BenchmarkSettings(data=data), settings)
    with ExitStack() as stack:
        listen = _progress(stack)
        translate_questions(settings, asked, out, progress=listen, tell=partial(_agree, yes=yes))
    counts: dict[str, Any] = (read_manifest(out) or {}).get("counts", {}).get("translations", {})
    for task, languages in counts.items():
        for language, states in languages.items():
            failed = states.get("failed", 0)
            good = sum(states.values()) - failed
            typer.echo(f"{task} {language}: {good} translated, {failed} failed")
    typer.echo(
        f"{out}: use it with benchmark.translations: [{out}]; what failed is on the sheet that "
        f"biomistral translate sheet {out} makes"
    )


@app.command("quality")
def translate_quality(
    translations: Annotated[Path, typer.Argument(help="A folder that translate made.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the numbers and the page.")],
    endpoint: Endpoint = None,
    model: ModelName = None,
    local: Local = None,
    allow_pickle: AllowPickle = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask after the estimate.")] = False,
    changes: Changes = None,
) -> None:
    """Measure translations, with a way back into English if a model is named; draw a page."""
    stopping.interrupt_on_termination()
    from biomistral.reporting.translations import write_page
    from biomistral.translation import measure_quality
    from biomistral.translation.step import load_translator

    back = None
    if endpoint or local:
        who = _translator(endpoint, model, local, allow_pickle=allow_pickle)
        settings = _settings(who, changes)
        answers = out.with_name(f"{out.name}.answers")
        back = load_translator(settings, answers)
    with ExitStack() as stack:
        agree = partial(_agree, yes=yes)
        measure_quality(translations, out, back=back, progress=_progress(stack), tell=agree)
    page = out.with_suffix(".html")
    write_page(translations, out, page)
    typer.echo(f"{page}: drawn")


@app.command("sheet")
def translate_sheet(
    translations: Annotated[Path, typer.Argument(help="A folder that translate made.")],
    sheet: Annotated[Path, typer.Argument(help="CSV file to write.")],
    *,
    which: Annotated[
        Literal["all", "failed"], typer.Option(help="all questions, or those that failed.")
    ] = "all",
) -> None:
    """Write a sheet on which people accept, edit or reject."""
    from biomistral.translation import write_review

    num = write_review(translations, sheet, which=which)
    typer.echo(f"{sheet}: {num} questions; fill in decision (accept, edit, reject) and corrected")


@app.command("apply")
def translate_apply(
    translations: Annotated[Path, typer.Argument(help="A folder that translate made.")],
    sheet: Annotated[Path, typer.Argument(help="The sheet with decisions.")],
    out: Annotated[Path, typer.Argument(help="Folder for the reviewed translations.")],
) -> None:
    """Make reviewed translations of a sheet that people filled in."""
    from biomistral.translation import apply_review

    apply_review(translations, sheet, out)
    typer.echo(f"{out}: made")


def _translator(
    endpoint: str | None, model: str | None, local: str | None, *, allow_pickle: bool
) -> dict[str, Any]:
    """Return the settings of who translates. Raises ``InputError`` for what cannot be meant."""
    if (endpoint is None) == (local is None):
        raise InputError(
            "translate: name who translates, with --endpoint URL --model NAME (a served model) or "
            "with --local MODEL (one of Transformers)"
        )
    if local is not None:
        if model is not None:
            raise InputError(f"translate: --model {model} is for --endpoint; leave it out")
        return {"path": local, "allow_pickle": allow_pickle}
    if model is None:
        raise InputError("translate: --endpoint needs --model, the name of the model there")
    if allow_pickle:
        raise InputError("translate: --allow-pickle is for --local; leave it out")
    return {"endpoint": endpoint, "model": model}


def _settings(
    translator: dict[str, Any], changes: Sequence[str] | None, **values: Any
) -> TranslateSettings:
    """Put the settings together. Raises ``InputError`` for what cannot be meant."""
    from pydantic import ValidationError

    from biomistral.recipe.translating import TranslateSettings

    given: dict[str, Any] = {"translator": translator}
    for key, value in values.items():
        given[key] = value.split(",") if isinstance(value, str) and value != "all" else value
    for change in changes or ():
        _change(given, change)
    try:
        return TranslateSettings.model_validate(given)
    except ValidationError as error:
        wrong = "; ".join(_problem(item) for item in error.errors())
        raise InputError(f"translate: {wrong}") from None


def _problem(error: Any) -> str:
    """Say one of pydantic's errors: where, what is wrong, what is allowed."""
    from pydantic import BaseModel

    from biomistral.recipe.endpoints import EndpointModel
    from biomistral.recipe.translating import SequenceModel, TranslateSettings

    arms: dict[str, type[BaseModel]] = {"served": EndpointModel, "local": SequenceModel}
    where = ".".join(str(step) for step in error["loc"] if step not in arms)
    if error["type"] == "extra_forbidden":
        steps = [step for step in error["loc"] if step in arms]
        model = arms[steps[0]] if steps else TranslateSettings
        allowed = sorted(model.model_fields)
        hint = did_you_mean(str(error["loc"][-1]), allowed)
        return f"{where}: unknown key{hint or '; allowed are ' + ', '.join(allowed)}"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    given = error["input"]
    if isinstance(given, dict) or repr(given) in message:
        return f"{where}: {message}".removeprefix(": ")
    return f"{where}: {message}, not {given!r}"


def _change(given: dict[str, Any], change: str) -> None:
    import yaml

    found = re.fullmatch(r"([a-z_]+)(?:\.([a-z_]+))?=(.*)", change)
    if found is None:
        raise InputError(f"--set {change}: must be of the form key=value or translator.key=value")
    value = yaml.safe_load(found[3])
    if found[2]:
        given.setdefault(found[1], {})[found[2]] = value
    else:
        given[found[1]] = value


def _agree(estimate: str, *, yes: bool) -> None:
    """Show what it will cost; on a terminal, wait for a yes."""
    typer.echo(f"estimate: {estimate}", err=True)
    if not yes and sys.stdin.isatty():
        typer.confirm("go on?", abort=True, err=True)


def _progress(stack: ExitStack) -> Progress:
    from biomistral.progress import ignore

    if not sys.stderr.isatty():
        return ignore
    from rich.console import Console

    from biomistral.cli import terminal

    shown = terminal.bar(Console(stderr=True, highlight=False, markup=False))
    return terminal.listener(stack.enter_context(shown), "translate")
