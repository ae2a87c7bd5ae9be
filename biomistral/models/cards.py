"""Model cards: the README.md beside a checkpoint, with the front matter the Hugging Face hub reads.

A card is facts first (``card.json``) and text second (``README.md``), so that a report can print
the same card again with the results it has. Knows nothing about how models are made or measured.
Front matter: https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from biomistral.advisory import ADVISORY
from biomistral.artifacts import write_json
from biomistral.errors import InputError

CARD = "card.json"
README = "README.md"

NOT_STATED = "other"  # the hub's id of a licence that is none of its list

# What the hub accepts as the id of a model: a name, or owner/name.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)

# A card stays as it was written when the model is measured later: the report prints it again.
_NO_RESULTS = (
    "Not in this file: if the model was evaluated, its report has this card with results "
    "(`report/cards/`)."
)
_LIMITS = """\
- Scores come from multiple-choice questions. They say little about free text, and nothing about
  usefulness or safety at a bedside.
- The model can state what is false with confidence, and it carries the biases of the texts it and
  the models before it were trained on.
- Languages other than English are weaker wherever the results show it, and untested where there
  are no results."""


@dataclass(frozen=True)
class Card:
    """What a model card says."""

    name: str
    base_models: tuple[str, ...]  # hub ids where there are, else names; empty if made from nothing
    relation: Literal["finetune", "merge", "quantized", "adapter"] | None  # to the base models
    description: str  # Markdown, a few sentences
    details: dict[str, str] = field(default_factory=dict)  # how it was made: label -> value
    # Of the weights: an id of the hub's list, in lower case. Nobody gives one here by default, for
    # it is not ours to give.
    licence: str = NOT_STATED
    languages: tuple[str, ...] = ("en",)  # ISO 639-1; empty if nobody said
    topics: tuple[str, ...] = ("medical",)  # tags of the hub
    datasets: tuple[str, ...] = ()  # names or hub ids of what it was trained on


def render_card(card: Card, results: str = "", more: Mapping[str, Any] | None = None) -> str:
    """Return the card as Markdown; ``results`` is Markdown for its section on results.

    ``more`` are further keys of the front matter; they go before the card's own, and None removes.
    """
    details = {"Base": ", ".join(_shown(name) for name in card.base_models), **card.details}
    matter = {**_front_matter(card), **(more or {})}
    matter = {key: value for key, value in matter.items() if value is not None}
    sections = [
        f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---",
        f"# {escape_markdown(card.name)}",
        f"> **{ADVISORY}**",
        card.description.strip(),
        "## How it was made",
        _details_table({label: value for label, value in details.items() if value}),
        "## Results",
        results.strip() or _NO_RESULTS,
        "## Training data and licences",
        _data_and_licence(card),
        "## Limits",
        _LIMITS,
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def write_card(folder: Path, card: Card) -> None:
    """Write ``README.md`` and ``card.json`` into the folder of a checkpoint."""
    (folder / README).write_text(render_card(card), encoding="utf-8")
    write_json(folder / CARD, asdict(card))


def read_card(folder: Path) -> Card | None:
    """Return the card that ``write_card`` left in ``folder``, or None if there is none.

    Raises ``InputError`` if a ``card.json`` is there but is not one of ours.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in fields(Card)}
        card = {key: _frozen(value) for key, value in values.items() if key in known}
        return Card(**card)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is no model card of biomistral ({error}); make the model again, "
            "or remove the file"
        ) from None


def read_front_matter(folder: Path) -> Card | None:
    """Return what the front matter of a README.md says of languages and data sets, if it is there.

    That is what a repository of the hub has. A front matter that cannot be read says nothing: it is
    a description by somebody else, and no reason to refuse the weights beside it.
    """
    path = folder / README
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        matter = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return None
    if not isinstance(matter, dict):
        return None
    return Card(
        name=folder.name,
        base_models=(),
        relation=None,
        description="",
        languages=_texts(matter.get("language")),
        topics=(),
        datasets=_texts(matter.get("datasets")),
    )


def escape_markdown(text: str) -> str:
    """Make ``text`` plain inside Markdown, a table cell included: nothing in it is markup."""
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", " ".join(text.split()))


def _front_matter(card: Card) -> dict[str, Any]:
    """Keys the hub reads. A local path as base model would make the hub refuse the card."""
    matter: dict[str, Any] = {"license": card.licence}
    if card.languages:
        matter["language"] = list(card.languages)
    if bases := [name for name in card.base_models if _HUB_ID.fullmatch(name)]:
        matter["base_model"] = bases
        if card.relation:
            matter["base_model_relation"] = card.relation
    if datasets := [name for name in card.datasets if _HUB_ID.fullmatch(name)]:
        matter["datasets"] = datasets
    relation_tag = [card.relation] if card.relation else []
    return matter | {
        "library_name": "peft" if card.relation == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": [*card.topics, "biomistral", *relation_tag],
    }


def _shown(name: str) -> str:
    """A hub id as it is; of a local path only the last part, for paths are nobody's business."""
    return name if _HUB_ID.fullmatch(name) else Path(name).name


def _details_table(details: dict[str, str]) -> str:
    rows = [f"| {escape_markdown(k)} | {escape_markdown(v)} |" for k, v in details.items()]
    return "\n".join(["| | |", "|---|---|", *rows]) if rows else ""


def _data_and_licence(card: Card) -> str:
    licence = _licence(card)
    if not card.datasets:
        return f"No data set was named for this step; what the base models saw applies. {licence}"
    return "\n".join([*(f"- {escape_markdown(_shown(d))}" for d in card.datasets), "", licence])


def _licence(card: Card) -> str:
    if card.licence == NOT_STATED:
        return (
            "Licence of the weights: not stated; those of the base models and of the training data "
            "apply."
        )
    bases = " Its base models come under their own licences." if card.base_models else ""
    return f"The weights are under {escape_markdown(card.licence)}.{bases}"


def _texts(value: Any) -> tuple[str, ...]:
    """Return a text or the texts of a list; YAML takes the language ``no`` for false."""
    values = value if isinstance(value, list) else [value]
    return tuple(
        "no" if each is False else each for each in values if each is False or isinstance(each, str)
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
