"""The commands, their options and how errors leave the program.

Exit status: 0 done, 2 something the user can mend (one line on standard error), 130 interrupted.
Anything else is a bug of ours and shows its traceback.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from biomistral import __version__
from biomistral.cli import generate_commands
from biomistral.cli.corpus_commands import corpus_app
from biomistral.cli.evaluate_commands import evaluate_app
from biomistral.cli.export_commands import export_app
from biomistral.cli.groups import RunByDefault
from biomistral.cli.reporting import report
from biomistral.cli.serving import serve
from biomistral.cli.translating import app as translate_app
from biomistral.errors import BiomistralError

INTERRUPTED = (
    "interrupted; run the same command again: it goes on from what was finished and saved, if "
    "anything was"
)


class _Commands(typer.core.TyperGroup):
    """The commands, interrupted with a word on how to go on."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo(f"\n{INTERRUPTED}", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="biomistral",
    cls=_Commands,
    help="From a general language model and PubMed Central to a measured suite of medical models.",
    epilog="For research only: nothing made or measured here is fit for the care of patients.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipe_app = typer.Typer(name="recipe", help="Check and explain recipes.", no_args_is_help=True)
app.add_typer(recipe_app)


merge_app = typer.Typer(
    name="merge",
    cls=RunByDefault,
    help="Merge models as a configuration in mergekit's YAML says: biomistral merge CONFIG OUT "
    "(its options: biomistral merge run --help).",
    subcommand_metavar="CONFIG OUT | COMMAND [ARGS]...",
    no_args_is_help=True,
)
app.add_typer(merge_app)
app.add_typer(corpus_app)
app.add_typer(evaluate_app)
app.add_typer(translate_app)
app.add_typer(export_app)
generate_commands.add_to(app)
app.command()(report)
app.command()(serve)

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change one value, for instance pretrain.biomistral.epochs=2. Can be repeated.",
    ),
]


def main() -> None:
    """Run the command line; ``--traceback`` may stand anywhere in it."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # says a line for every layer
    # Idle threads of PyTorch sleep after a short spin: as fast alone, ten times faster beside others.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    arguments = [argument for argument in sys.argv[1:] if argument != "--traceback"]
    try:
        app(arguments)
    except BiomistralError as error:
        if len(arguments) < len(sys.argv[1:]):
            raise
        if os.environ.get("RANK", "0") == "0":  # several processes have one error to tell
            typer.echo(f"error: {error}", err=True)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    traceback: Annotated[  # read in main(), where errors arrive
        bool, typer.Option("--traceback", help="Show the full traceback of an error.")
    ] = False,
) -> None:
    del traceback
    if version:
        typer.echo(f"biomistral {__version__}")
        raise typer.Exit


@app.command()
def run(
    recipe: RecipeFile,
    *,
    out: Annotated[
        Path, typer.Option(help="Folder for results; the run gets one of its own in it.")
    ] = Path("runs"),
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Run only this step (a name, kind/name or kind) and what it needs. Repeatable."
        ),
    ] = None,
    changes: Changes = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run and why; run nothing.")
    ] = False,
    nproc: Annotated[
        int, typer.Option(min=1, help="Processes to train in, one a GPU: here, or on the cluster.")
    ] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Run on a Ray cluster: its address, auto (of this machine), or local (start it here)."
        ),
    ] = None,
    cpus_per_task: Annotated[
        int, typer.Option(min=1, help="Processors for each task of a cluster.")
    ] = 1,
) -> None:
    """Run the steps of a recipe; what is there already is skipped, what was interrupted goes on."""
    from biomistral.cli import running

    where = running.Where(cluster, cpus_per_task, nproc) if cluster else None
    running.run(
        recipe,
        out,
        only=only or [],
        changes=changes or [],
        dry_run=dry_run,
        nproc=nproc,
        where=where,
    )


@app.command()
def miniature(
    out: Annotated[Path, typer.Argument(help="Folder to write it to.")],
    seed: Annotated[int, typer.Option(help="Seed of the invented world.")] = 7,
) -> None:
    """Write a small invented medical world: texts, articles and a benchmark in eight languages."""
    from biomistral.miniature import make_miniature

    make_miniature(out, seed=seed)
    typer.echo(f"{out}: the miniature world of seed {seed}; run it with recipes/miniature.yaml")


@app.command()
def compare(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="A B ...",
            help="Files or folders of predictions (name=PATH to rename), or a run's folder, alone or "
            "followed by names of its models.",
        ),
    ],
    form: Annotated[str, typer.Option("--format", help="markdown, latex or csv.")] = "markdown",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write one file per table to; default: print.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 42,
    resamples: Annotated[int, typer.Option(min=100, help="Of the paired bootstrap.")] = 10_000,
) -> None:
    """Compare models on the same questions: accuracies, paired tests, effect sizes."""
    from biomistral.cli import comparing

    comparing.compare(places, form=form, out=out, seed=seed, resamples=resamples)


ConfigFile = Annotated[Path, typer.Argument(help="A configuration in mergekit's YAML.")]
AllowPickle = Annotated[
    bool,
    typer.Option(help="Read pytorch_model.bin, too: numbers only, no code in it is run."),
]
_MODEL = "Folder of a checkpoint, or owner/name on the hub (@revision)"


@merge_app.command("run")
def merge_run(
    config: ConfigFile,
    out: Annotated[Path, typer.Argument(help="Folder for the merged model.")],
    *,
    seed: Annotated[int, typer.Option(help="Of random dropping (DARE, DELLA).")] = 42,
    shard_size: Annotated[str, typer.Option(help="Largest file of weights.")] = "5GB",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Default: OMP_NUM_THREADS, else all processors."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu or cuda: where methods without compiled loops compute.")
    ] = "cpu",
    allow_pickle: AllowPickle = False,
    allow_non_finite: Annotated[
        bool, typer.Option(help="Take NaN and infinity in the inputs as they are.")
    ] = False,
) -> None:
    """Merge models; the word run may be left out. An interrupted merge goes on where it was."""
    from biomistral.cli import merging
    from biomistral.merging import MergeOptions

    options = MergeOptions(
        seed=seed,
        shard_bytes=merging.shard_bytes(shard_size),
        allow_non_finite=allow_non_finite,
        allow_pickle=allow_pickle,
        threads=threads,
        device=device,
    )
    merging.run(config, out, options)


@merge_app.command("plan")
def merge_plan(config: ConfigFile, allow_pickle: AllowPickle = False) -> None:
    """Show what would be read and written, how long it takes, and what has no effect."""
    from biomistral.cli import merging

    merging.plan(config, allow_pickle=allow_pickle)


@merge_app.command("diff")
def merge_diff(
    a: Annotated[str, typer.Argument(help=f"{_MODEL}.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Another one.", metavar="B")],
    plot: Annotated[Path | None, typer.Option(help="Draw it: a .svg, .png or .pdf file.")] = None,
    numbers: Annotated[Path | None, typer.Option("--json", help="Write all numbers.")] = None,
    tensors: Annotated[bool, typer.Option(help="A line for each tensor, not each layer.")] = False,
    allow_pickle: AllowPickle = False,
) -> None:
    """Show how far two checkpoints are apart, layer by layer: what did training change?"""
    from biomistral.cli import merging

    merging.diff(a, b, plot=plot, numbers=numbers, per_tensor=tensors, allow_pickle=allow_pickle)


@merge_app.command("extract-lora")
def merge_extract_lora(
    model: Annotated[str, typer.Argument(help=f"{_MODEL}: the tuned model.")],
    base: Annotated[str, typer.Argument(help="The model it was tuned from.")],
    out: Annotated[Path, typer.Argument(help="Folder for the adapter.")],
    *,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapter's factors.")] = 16,
    embeddings: Annotated[
        bool, typer.Option(help="Save embeddings and head that differ, whole.")
    ] = False,
    base_name: Annotated[
        str | None, typer.Option(help="Name of the base for PEFT, such as owner/name.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random projection.")] = 42,
    allow_pickle: AllowPickle = False,
) -> None:
    """Write the difference between two models as a LoRA adapter that PEFT loads."""
    from biomistral.cli import merging

    merging.extract_lora(
        *(model, base, out),
        rank=rank,
        embeddings=embeddings,
        base_name=base_name,
        seed=seed,
        allow_pickle=allow_pickle,
    )


@recipe_app.command()
def check(recipe: RecipeFile, changes: Changes = None) -> None:
    """Check a recipe and say what is wrong with it, everything at once."""
    from biomistral.recipe import load_recipe

    loaded = load_recipe(recipe, changes=changes or [])
    typer.echo(f"{recipe}: the recipe {loaded.name} is well formed (its files are not looked at)")


@recipe_app.command()
def explain(recipe: RecipeFile, changes: Changes = None) -> None:
    """Print a recipe with every default and the meaning of each field; * marks what it sets."""
    from biomistral.recipe import load_recipe
    from biomistral.recipe.explain import explain as explain_recipe

    typer.echo(explain_recipe(load_recipe(recipe, changes=changes or [])), nl=False)


@recipe_app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from biomistral.recipe.explain import schema as recipe_schema

    typer.echo(recipe_schema(), nl=False)


@recipe_app.command(hidden=True)
def reference() -> None:
    """Print the reference page of the recipe (docs/recipe.md)."""
    from biomistral.recipe.explain import reference as recipe_reference

    typer.echo(recipe_reference(), nl=False)
