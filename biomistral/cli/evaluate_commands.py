"""``biomistral evaluate`` and its commands: options only, so that help is there at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomistral.cli.groups import RunByDefault

evaluate_app = typer.Typer(
    name="evaluate",
    cls=RunByDefault,
    help="Measure models on the benchmark: biomistral evaluate MODEL... --data FOLDER --out DIR.",
    no_args_is_help=True,
)
export_app = typer.Typer(name="export", help="Write for other programs.", no_args_is_help=True)
import_app = typer.Typer(name="import", help="Read from other programs.", no_args_is_help=True)
evaluate_app.add_typer(export_app)
evaluate_app.add_typer(import_app)

Data = Annotated[str, typer.Option(help="Folder with the question files; see docs/benchmark.md.")]
Tasks = Annotated[str, typer.Option(help="all, or names with commas between them.")]
Languages = Annotated[str, typer.Option(help="all, or codes with commas, such as en,fr.")]
Shots = Annotated[int, typer.Option(min=0, help="Worked examples before each question.")]
Seeds = Annotated[str, typer.Option(help="One evaluation each: they draw the worked examples.")]
Scoring = Annotated[str, typer.Option(help="letter, cloze, published, or several with commas.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Most questions per task and language.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any other field of a recipe's evaluate section, such as long_prompts=skip.",
    ),
]
Template = Annotated[
    str | None, typer.Option(help="Form of the prompts: biomistral, meditron or chat.")
]
Translations = Annotated[
    list[str] | None,
    typer.Option(help="Folder that biomistral translate made, with further languages. Repeatable."),
]
Model = Annotated[
    str | None, typer.Option(help="Folder of the model whose chat template --template chat means.")
]
_DATA = "data/benchmark"


@evaluate_app.command("run")
def evaluate_run(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Folders, hub ids (owner/name) or served models (https://host/v1#MODEL), each also "
            "as NAME=....",
            metavar="MODEL...",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for answers, scores and the report.")],
    *,
    data: Data = _DATA,
    tasks: Tasks = "all",
    languages: Languages = "en",
    shots: Shots = 3,
    seeds: Seeds = "1,2,3",
    scoring: Scoring = "letter",
    limit: Limit = None,
    precision: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    engine: Annotated[str, typer.Option(help="own, or vllm (on a GPU).")] = "own",
    template: Template = None,
    translations: Translations = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of a run of a recipe; its models may be called by their names."),
    ] = None,
    api: Annotated[
        list[str] | None,
        typer.Option(
            "--api",
            metavar="FIELD=VALUE",
            help="Any field of a served model in a recipe, such as input_price=0.5.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask served models without a question about the cost.")
    ] = False,
    report: Annotated[bool, typer.Option(help="Write the report, too.")] = False,
    changes: Changes = None,
) -> None:
    """Evaluate models; the word run may be left out. What was answered before is not asked again."""
    from biomistral.cli import evaluating

    further = translations or ()
    asked = evaluating.Asked(
        data, tasks, languages, shots, seeds, scoring, limit, template, further
    )
    way = evaluating.Way(precision, engine, run, api or [], report, yes)
    evaluating.run(models, out, asked, way, changes=changes or [])


@evaluate_app.command("show")
def evaluate_show(
    task: Annotated[str, typer.Argument(help="Name of a task.")],
    *,
    data: Data = _DATA,
    language: Annotated[str, typer.Option(help="Code of the language.")] = "en",
    shots: Shots = 3,
    seed: Annotated[int, typer.Option(help="Draws the worked examples.")] = 1,
    number: Annotated[int, typer.Option(min=1, help="Which question, from 1.")] = 1,
    scoring: Annotated[str, typer.Option(help="letter, cloze or published.")] = "letter",
    template: Template = None,
    translations: Translations = None,
    model: Model = None,
    changes: Changes = None,
) -> None:
    """Print what a model is given for one question, to the letter."""
    from biomistral.cli import evaluating

    further = translations or ()
    asked = evaluating.Asked(
        data, task, language, shots, str(seed), scoring, None, template, further
    )
    evaluating.show(asked, number=number, changes=changes or [], model=model)


@evaluate_app.command("contamination")
def evaluate_contamination(
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXTS...",
            help="Files, folders or patterns: articles (.xml, .nxml, .tar.gz) or texts (.txt, .jsonl, "
            ".parquet).",
        ),
    ],
    *,
    data: Data = _DATA,
    tasks: Tasks = "all",
    languages: Languages = "en",
    limit: Limit = None,
    numbers: Annotated[Path | None, typer.Option("--json", help="Write all numbers.")] = None,
) -> None:
    """Look for test questions in texts: which share 13 words in a row with a document?"""
    from biomistral.cli import contamination, evaluating

    asked = evaluating.Asked(data, tasks, languages, 0, "1", "letter", limit, None)
    contamination.show(texts, evaluating.recipe_of(asked, {}, [], name="texts"), numbers=numbers)


@export_app.command("lm-eval")
def export_lm_eval(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.", metavar="DIR")],
    *,
    data: Data = _DATA,
    tasks: Tasks = "all",
    languages: Languages = "en",
    shots: Shots = 3,
    seeds: Annotated[str, typer.Option("--seed", "--seeds", help="One or more.")] = "1,2,3",
    scoring: Scoring = "letter",
    limit: Limit = None,
    template: Template = None,
    model: Model = None,
    changes: Changes = None,
) -> None:
    """Write tasks that lm-evaluation-harness runs with the same prompts (lm_eval --include_path)."""
    from biomistral.cli import evaluating

    asked = evaluating.Asked(data, tasks, languages, shots, seeds, scoring, limit, template)
    evaluating.export_lm_eval(folder, asked, changes=changes or [], model=model)


@import_app.command("lm-eval")
def import_lm_eval(
    files: Annotated[
        list[Path], typer.Argument(help="Its samples_*.jsonl files.", metavar="FILE...")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the predictions.")],
    name: Annotated[str, typer.Option(help="Name of the model in tables.")],
    task: Annotated[
        str | None, typer.Option(help="Task of the questions, for files not of our own export.")
    ] = None,
    language: Annotated[str, typer.Option(help="Language of such questions.")] = "en",
    shots: Annotated[int, typer.Option(min=0, help="Worked examples of such prompts.")] = 0,
) -> None:
    """Read the answers that lm-evaluation-harness wrote with --log_samples as predictions."""
    from biomistral.cli import evaluating

    evaluating.import_lm_eval(files, out, name=name, task=task, language=language, shots=shots)
