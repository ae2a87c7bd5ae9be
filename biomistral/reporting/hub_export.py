"""Lay out models for the Hugging Face hub, one folder each, ready to be looked at and uploaded.

A folder has the model's own files, a config that older and newer readers understand, and a card with
base models under their names on the hub, results, data, licence and limits. Weights are hard links
where the disk allows, so that nothing is doubled. Nothing leaves the machine but in ``upload``.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from biomistral import artifacts
from biomistral.errors import InputError, ModelError, did_you_mean
from biomistral.models.cards import CARD, README, Card, read_card, render_card
from biomistral.models.checkpoints import CONFIG, read_json
from biomistral.progress import Progress, ignore
from biomistral.records import Score, Task, read_records
from biomistral.reporting.hub_results import eval_results, model_index
from biomistral.reporting.results import Results, index_results
from biomistral.reporting.run_report import card_results

EVAL_RESULTS = Path(".eval_results/biomistral.yaml")
_WEIGHTS = (".safetensors", ".gguf")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_OWNER = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Exported:
    """One model laid out: its folder, and what its owner should know before uploading."""

    name: str
    folder: Path
    notes: tuple[str, ...]


@dataclass(frozen=True)
class HubNames:
    """What models are called on the hub: those given, and those of the run under its owner."""

    owner: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)  # name in the run -> owner/name

    def check(self) -> None:
        """Raise ``InputError`` for a name the hub would refuse."""
        if self.owner is not None and not _OWNER.fullmatch(self.owner):
            raise InputError(
                f"--owner {self.owner}: is no name of the hub; use letters, digits, - _ ."
            )
        for name, repository in self.given.items():
            if not _REPOSITORY.fullmatch(repository):
                raise InputError(
                    f"--base {name}={repository}: is no repository of the hub; write OWNER/NAME"
                )

    def of(self, name: str, exported: Sequence[str]) -> str | None:
        """Repository of a model, or None if nobody said."""
        if name in self.given:
            return self.given[name]
        if _REPOSITORY.fullmatch(name):
            return name
        return f"{self.owner}/{name}" if self.owner and name in exported else None


def export_hub(
    source: Path,
    out: Path,
    *,
    names: HubNames | None = None,
    only: Sequence[str] = (),
    progress: Progress = ignore,
) -> list[Exported]:
    """Lay out the models of a run folder, or the one model in a folder, below ``out``.

    ``only`` names models of the run. Raises ``InputError`` for a folder without models, an unknown
    name, or a place in ``out`` that is taken; ``ModelError`` for a model without a config.
    """
    names = names or HubNames()
    names.check()
    models, results, date = _found(source)
    if unknown := [name for name in only if name not in models]:
        raise InputError(
            f"{source}: has no model {unknown[0]!r}{did_you_mean(unknown[0], models)} "
            f"(it has: {', '.join(models)})"
        )
    wanted = {name: folder for name, folder in models.items() if not only or name in only}
    artifacts.check_apart(out, {str(source): source})
    for name in wanted:
        if (out / name).exists():
            raise InputError(
                f"{out / name}: already exists; remove it, or name another folder with --out"
            )
    exported = []
    for index, (name, folder) in enumerate(wanted.items()):
        progress(index, len(wanted), f"laying out {name}")
        partial = out / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        notes = _lay_out(name, folder, partial, names, list(models), results, date)
        partial.rename(out / name)
        exported.append(Exported(name, out / name, tuple(notes)))
    progress(len(wanted), len(wanted), "models laid out")
    return exported


def upload(exported: Exported, repository: str, *, private: bool = True, api: Any = None) -> str:
    """Upload one laid out model; return its address. Makes the repository if there is none.

    ``api`` is an ``HfApi``. Raises ``InputError`` if the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = api or HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=exported.folder,
            commit_message=f"Upload {exported.name}",
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{repository}: the hub did not take it ({reason}); log in with 'hf auth login' using a "
            f"token that may write there, and try again: {exported.folder} stays as it is"
        ) from error
    return str(address)


# --- reading --------------------------------------------------------------------------------------


def _found(source: Path) -> tuple[dict[str, Path], Results | None, str | None]:
    """Models by name, results of the run if it measured any, and the day it did."""
    if (source / CONFIG).is_file():
        return {source.name: source}, None, None
    folders = sorted(path for path in (source / "model").glob("[!.]*") if path.is_dir())
    if not folders:
        raise InputError(
            f"{source}: holds no model; name the folder of a run (runs/NAME) or of one model"
        )
    models = {folder.name: folder for folder in folders}
    scores, tasks = source / "scores/scores", source / "questions/benchmark/tasks.parquet"
    manifest = artifacts.read_manifest(scores)
    if manifest is None or not tasks.is_file():
        return models, None, None
    results = index_results(
        read_records(scores / "scores.parquet", Score),
        list(read_records(tasks, Task)),
        list(models),
    )
    return models, results, str(manifest.get("made_at", ""))[:10] or None


# --- one model ------------------------------------------------------------------------------------


def _lay_out(
    name: str,
    folder: Path,
    out: Path,
    names: HubNames,
    of_run: Sequence[str],
    results: Results | None,
    date: str | None,
) -> list[str]:
    """Fill ``out`` and return what is missing."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and _travels(relative):
            (out / relative).parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(path, out / relative)
    if not (out / CONFIG).is_file():
        raise ModelError(f"{folder}: has no {CONFIG}; make the model again, or leave it out")
    if manifest := artifacts.read_manifest(folder):
        artifacts.write_json(out / artifacts.MANIFEST, _without_places(manifest))
    config = read_json(folder / CONFIG)
    (out / CONFIG).unlink()  # a link: written anew, or the model of the run would change
    artifacts.write_json(out / CONFIG, for_all_readers(config))
    card, notes = _card(name, read_card(folder), names, of_run)
    more = _front_matter(config, list(out.glob("*.gguf")), card)
    measured = card_results(name, results) if results else ""
    if results and (index := model_index(results, name)):
        more["model-index"] = index
    if results and (entries := eval_results(results, name, date)):
        (out / EVAL_RESULTS).parent.mkdir()
        (out / EVAL_RESULTS).write_text(
            yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
        )
    if not measured:
        notes.append("no results: it was not evaluated in this run")
    (out / README).write_text(render_card(card, measured, more), encoding="utf-8")
    return notes


def _travels(relative: Path) -> bool:
    """Whether a file goes to the hub: no card, which is written anew, no timings, no work files."""
    name = relative.name
    hidden = any(part.startswith(".") for part in relative.parts)
    return not (hidden or name in {CARD, README} or name.endswith(artifacts.VOLATILE_SUFFIX))


def _without_places(value: Any) -> Any:
    """Keep the last part only of every absolute path in JSON values: nobody else's business."""
    if isinstance(value, dict):
        return {key: _without_places(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_places(each) for each in value]
    if isinstance(value, str) and (Path(value).is_absolute() or value.startswith("~")):
        return Path(value).name
    return value


def _link_or_copy(source: Path, target: Path) -> None:
    if source.suffix in _WEIGHTS:
        try:
            os.link(source.resolve(), target)
        except OSError:  # another disk, or one without links
            pass
        else:
            return
    shutil.copyfile(source, target)


def for_all_readers(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the keys of Transformers 5 and those that older readers look for."""
    older: dict[str, Any] = {}
    if dtype := config.get("dtype") or config.get("torch_dtype"):
        older = {"dtype": dtype, "torch_dtype": dtype}
    if theta := (config.get("rope_parameters") or {}).get("rope_theta"):
        older["rope_theta"] = theta
    return {**config, **older}


def _card(
    name: str, card: Card | None, names: HubNames, of_run: Sequence[str]
) -> tuple[Card, list[str]]:
    """Return the card with base models by their names on the hub, and what it lacks."""
    notes = []
    if card is None:
        notes.append("no card.json: licence, base model and data are not known here")
        card = Card(name, (), None, "A model without a card of its own.", languages=(), topics=())
    known = {base: names.of(base, of_run) for base in card.base_models}
    notes += [
        f"its base {base!r} has no name on the hub: say --base {base}=OWNER/NAME"
        for base, repository in known.items()
        if repository is None
    ]
    if card.licence == "other":
        notes.append("no licence is stated: the hub shows it as 'other'")
    shown = ", ".join(repository or Path(base).name for base, repository in known.items())
    return dataclasses.replace(
        card,
        base_models=tuple(repository for repository in known.values() if repository),
        details={"Base": shown, **card.details},
    ), notes


def _front_matter(
    config: Mapping[str, Any], gguf_files: Sequence[Path], card: Card
) -> dict[str, Any]:
    """Keys that say how the weights are stored."""
    method = (config.get("quantization_config") or {}).get("quant_method")
    kind = "gguf" if gguf_files else method
    more: dict[str, Any] = {"library_name": "gguf"} if gguf_files else {}
    # A name alone would be taken for a data set of that name on the hub.
    more["datasets"] = [name for name in card.datasets if _REPOSITORY.fullmatch(name)] or None
    if kind:
        more["tags"] = [
            *card.topics,
            "biomistral",
            *([card.relation] if card.relation else []),
            kind,
        ]
    return more
