"""The vocabulary of a merged model, and which rows of each model's embeddings its rows are.

Tokens are matched by their text. A token that a model lacks gets there the row that the base has
for it, else the mean of the rows of the models that have it; so a task vector has nothing to add
there, and a token that one model has comes out as that model has it. Knows nothing about methods.

The rules are those of mergekit 0.1.5 but for three things: a union of tokenizers with different
merges is refused (there the second one's tokens become added tokens, which cut texts as neither
did); a token without a row in any model is refused (there it becomes zeros or is lost); and ids of
special tokens in the configs follow the tokenizer.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biomistral.errors import ModelError, RecipeError, did_you_mean
from biomistral.merging.row_maps import LACKING, UNUSED, MappedRows, RowMap
from biomistral.merging.special_ids import id_changes, vocabulary_changes
from biomistral.merging.tokenizer_files import (
    Tokenizer,
    content_digest,
    read_tokenizer,
    rendered_files,
    unite,
)
from biomistral.models.checkpoints import COMPANIONS, EMBEDDINGS, HEADS, Checkpoint, read_json
from biomistral.models.safetensors_files import StoredTensor

__all__ = [
    "MappedRows",
    "RowMap",
    "Vocabulary",
    "VocabularySetting",
    "plan_vocabulary",
    "write_tokenizer",
]

GENERATION_CONFIG = "generation_config.json"

# Tensors that have no row per token, however many rows they have: those in layers, and positions.
_NO_TOKENS = re.compile(r"\.\d+\.|position|wpe")


@dataclass(frozen=True)
class VocabularySetting:
    """What a configuration says about the tokenizer of the output."""

    source: str  # "union", "base" (words first, even if a model is called so), or a model
    pad_to_multiple_of: int | None = None  # 1 or more
    # A row that a model lacks is the base's if the base has it, even if others have it, too
    # (mergekit: where the configuration names a base_model).
    base_fills: bool = True


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The vocabulary of the output, and what it takes to get there."""

    size: int  # rows of the embeddings
    names: tuple[str, ...]  # of the tensors with a row per token, in any model
    # By model and tensor; where there is none, the rows of the model are already those wanted.
    maps: Mapping[tuple[str, str], RowMap]
    files: Mapping[str, Path | str]  # name -> the file to copy, or its text
    config_changes: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


def plan_vocabulary(
    setting: VocabularySetting, models: Mapping[str, Checkpoint], base: str
) -> Vocabulary:
    """Settle the vocabulary of a merge of ``models``; ``base`` gives config and missing rows.

    The rows are the ids of the output's tokenizer, rounded up to ``pad_to_multiple_of``; rows that
    pad the inputs are dropped. Raises ``RecipeError`` if the source is no model of the merge,
    ``ModelError`` if the tokenizers cannot be united or a token has no row in any model.
    """
    assert setting.pad_to_multiple_of is None or setting.pad_to_multiple_of > 0, setting
    main = _main_model(setting, models, base)
    names = _vocabulary_names(models)
    num_rows = {name: _num_rows(checkpoint, names) for name, checkpoint in models.items()}
    tokenizers, warnings = _tokenizers(models, num_rows, main)
    output = tokenizers[main]
    if setting.source == "union":
        output, doubts = unite(output, [tokenizers[name] for name in models if name != main])
        warnings += doubts
    size = _rounded_up(max(output.ids.values()) + 1, setting.pad_to_multiple_of)
    rows = {name: _rows(output, tokenizers[name], num_rows[name], size) for name in models}
    _check_held(output, rows, tokenizers, num_rows)
    maps = _maps(models, names, rows, base if setting.base_fills else None)
    for name in models if maps else []:
        _check_known(models[name], names, num_rows[name])
    moved = _mover(tokenizers[base], output)
    ours, theirs = models[base], models[main]
    return Vocabulary(
        size=size,
        names=names,
        maps=maps,
        files={**_tokenizer_files(output), **_generation_file(ours, theirs, moved, size)},
        config_changes=vocabulary_changes(ours.config, theirs.config, moved, size),
        warnings=tuple(warnings),
    )


def write_tokenizer(vocabulary: Vocabulary, out: Path) -> None:
    """Write tokenizer and generation settings; takes the place of ``copy_companions``."""
    for name, content in vocabulary.files.items():
        if isinstance(content, Path):
            shutil.copyfile(content, out / name)
        else:
            (out / name).write_text(content, encoding="utf-8")


# --- which tokenizer ------------------------------------------------------------------------------


def _main_model(setting: VocabularySetting, models: Mapping[str, Checkpoint], base: str) -> str:
    """Return the model whose tokenizer is taken, or added to."""
    if setting.source in {"union", "base"}:
        return base
    if setting.source not in models:
        allowed = ["union", "base", *models]
        problem = (
            f"tokenizer_source {setting.source!r} is no model of this merge; allowed are "
            f"{', '.join(map(repr, allowed))}{did_you_mean(setting.source, allowed)}"
        )
        raise RecipeError("merge", [problem])
    return setting.source


def _tokenizers(
    models: Mapping[str, Checkpoint], num_rows: Mapping[str, int], main: str
) -> tuple[dict[str, Tokenizer], list[str]]:
    """Read the tokenizers of all models, and say which models were taken to have the main one."""
    read: dict[str, Tokenizer] = {}
    found = {name: _read_once(checkpoint.folder, read) for name, checkpoint in models.items()}
    whole = found[main]
    if whole is None or not whole.ids:
        raise ModelError(
            f"{models[main].folder}: has no tokenizer to take; put its tokenizer.json there, or "
            "name another tokenizer_source"
        )
    warnings = []
    for name, tokenizer in found.items():
        if tokenizer is not None:
            continue
        if num_rows[name] != num_rows[main]:
            raise ModelError(
                f"{models[name].folder}: has no tokenizer, and {num_rows[name]} rows in its "
                f"embedding where {models[main].folder} has {num_rows[main]}, so nothing says "
                "which row is which token; put its tokenizer.json there"
            )
        warnings.append(
            f"{models[name].folder.name} has no tokenizer; taken for the same as that of "
            f"{models[main].folder.name}, which has as many rows"
        )
    return {name: tokenizer or whole for name, tokenizer in found.items()}, warnings


def _read_once(folder: Path, read: dict[str, Tokenizer]) -> Tokenizer | None:
    """Read a tokenizer, or return one that was read from the same bytes: most models share one."""
    digest = content_digest(folder)
    if digest not in read:
        tokenizer = read_tokenizer(folder)
        if tokenizer is None:
            return None
        read[digest] = tokenizer
    return replace(read[digest], folder=folder)


def _tokenizer_files(output: Tokenizer) -> dict[str, Path | str]:
    there = {name: output.folder / name for name in COMPANIONS if name != GENERATION_CONFIG}
    copied = {name: path for name, path in there.items() if path.is_file()}
    return {**copied, **rendered_files(output)}


def _generation_file(
    base: Checkpoint, main: Checkpoint, moved: Callable[[int], int | None], size: int
) -> dict[str, Path | str]:
    """Return the base's generation settings with the ids that the tokenizer has."""
    path = base.folder / GENERATION_CONFIG
    if not path.is_file():
        return {}
    settings = read_json(path)
    theirs = main.folder / GENERATION_CONFIG
    source = {**main.config, **(read_json(theirs) if theirs.is_file() else {})}
    known = {key: value for key, value in source.items() if key in settings}
    changes = id_changes(settings, known, moved, size)
    if not changes:
        return {GENERATION_CONFIG: path}
    return {GENERATION_CONFIG: json.dumps({**settings, **changes}, indent=2)}


def _mover(base: Tokenizer, output: Tokenizer) -> Callable[[int], int | None]:
    """Return the function from an id of the base to the id of the same token in the output."""
    tokens = {index: token for token, index in base.ids.items()}
    return lambda index: output.ids.get(tokens.get(index, ""))


# --- which rows -----------------------------------------------------------------------------------


def _vocabulary_names(models: Mapping[str, Checkpoint]) -> tuple[str, ...]:
    """Return the names of all tensors that have a row per token."""
    names = dict.fromkeys(name for checkpoint in models.values() for name in checkpoint.tensors)
    return tuple(name for name in names if name.endswith((*EMBEDDINGS, *HEADS)))


def _num_rows(checkpoint: Checkpoint, names: Sequence[str]) -> int:
    """Return the rows of the embedding, having checked that the head has as many."""
    num_rows = checkpoint.embedding_rows()
    if num_rows is None:
        raise ModelError(
            f"{checkpoint.folder}: no tensor has the name of an input embedding "
            f"({', '.join(EMBEDDINGS)}), so its rows cannot follow a tokenizer; merge without "
            "tokenizer_source"
        )
    for name in names:
        tensor = checkpoint.tensors.get(name)
        if tensor is not None and tensor.shape[:1] != (num_rows,):
            raise ModelError(
                f"{tensor.file}: {name} is {list(tensor.shape)}, and the embedding has {num_rows} "
                "rows; resize both to the tokenizer "
                "(model.resize_token_embeddings(len(tokenizer)), then save_pretrained)"
            )
    return num_rows


def _check_known(checkpoint: Checkpoint, names: Sequence[str], num_rows: int) -> None:
    """Raise ``ModelError`` if a tensor of unknown name may have a row per token."""
    for tensor in checkpoint.tensors.values():
        alike = len(tensor.shape) == 2 and tensor.shape[0] == num_rows
        known = tensor.name in names or _NO_TOKENS.search(tensor.name)
        if alike and not known:
            raise ModelError(
                f"{tensor.file}: {tensor.name} has {num_rows} rows like the embedding, and it is "
                "not known whether they are tokens; merge models of one vocabulary, without "
                "tokenizer_source"
            )


def _rows(output: Tokenizer, held: Tokenizer, num_rows: int, size: int) -> NDArray[np.int64]:
    """Return for each row of the output (size,) the row of a model, or what there is instead."""
    rows = np.full(size, UNUSED, np.int64)
    for token, index in output.ids.items():
        row = held.ids.get(token, LACKING)
        rows[index] = row if row < num_rows else LACKING  # a token past the embedding
    return rows


def _check_held(
    output: Tokenizer,
    rows: Mapping[str, NDArray[np.int64]],
    tokenizers: Mapping[str, Tokenizer],
    num_rows: Mapping[str, int],
) -> None:
    """Raise ``ModelError`` if a token of the output has no row in any model."""
    lost = np.flatnonzero(np.stack([each == LACKING for each in rows.values()]).all(axis=0))
    if lost.size == 0:
        return
    token = next(token for token, index in output.ids.items() if index == lost[0])
    name = next(name for name in tokenizers if token in tokenizers[name].ids)
    raise ModelError(
        f"{tokenizers[name].folder}: the tokenizer gives the token {token!r} the id "
        f"{tokenizers[name].ids[token]}, but the embedding has {num_rows[name]} rows, and no other "
        f"model has a row for it ({lost.size} such tokens in all); resize the embedding "
        "(model.resize_token_embeddings(len(tokenizer)), then save_pretrained), or take the token "
        "out of the tokenizer"
    )


def _maps(
    models: Mapping[str, Checkpoint],
    names: Sequence[str],
    rows: Mapping[str, NDArray[np.int64]],
    filler: str | None,
) -> dict[tuple[str, str], RowMap]:
    """Return the row maps by model and tensor; none where the rows stay as they are."""
    maps = {}
    for model, checkpoint in models.items():
        donor_rows, donors = _donors(model, rows, filler)
        stay = np.array_equal(rows[model], np.arange(len(rows[model])))
        for name in names:
            own = checkpoint.tensors.get(name)
            if own is None or (stay and own.shape[0] == len(rows[model])):
                continue
            tensors = tuple(_donated(models[donor], name, own) for donor in donors)
            maps[model, name] = RowMap(own, rows[model], tensors, donor_rows)
    return maps


def _donors(
    model: str, rows: Mapping[str, NDArray[np.int64]], filler: str | None
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the rows that fill those ``model`` lacks (lacking, donors), and whose they are."""
    lacking = np.flatnonzero(rows[model] == LACKING)
    columns = {name: each[lacking] for name, each in rows.items()}
    if filler is not None:
        for name, column in columns.items():
            if name != filler:
                column[columns[filler] >= 0] = LACKING
    donors = [name for name, column in columns.items() if (column >= 0).any()]
    empty = np.empty((len(lacking), 0), np.int64)
    return np.stack([columns[name] for name in donors], axis=1) if donors else empty, donors


def _donated(donor: Checkpoint, name: str, own: StoredTensor) -> StoredTensor:
    """Return the tensor of that name in another model; a head that is not stored is tied."""
    found = donor.tensors.get(name)
    if found is None and name.endswith(HEADS) and len(own.shape) == 2:
        found = next(t for t in donor.tensors.values() if t.name.endswith(EMBEDDINGS))
    if found is None or found.shape[1:] != own.shape[1:]:
        there = "missing" if found is None else list(found.shape)
        raise ModelError(
            f"{donor.folder}: {name} is {there}, and {own.file.parent} has {list(own.shape)}; "
            "merging needs models of one architecture and width"
        )
    return found


def _rounded_up(number: int, multiple: int | None) -> int:
    return -(-number // multiple) * multiple if multiple else number
