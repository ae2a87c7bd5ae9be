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
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biomistral.errors import ModelError, RecipeError, did_you_mean
from biomistral.merging.tokenizer_files import Tokenizer, read_tokenizer, rendered_files, unite
from biomistral.models.checkpoints import COMPANIONS, Checkpoint
from biomistral.models.safetensors_files import StoredTensor

if TYPE_CHECKING:
    from torch import Tensor

# Values of ``RowMap.rows`` that are no rows.
LACKING = -1  # the model lacks the token
UNUSED = -2  # no token has this id


@dataclass(frozen=True)
class VocabularySetting:
    """What a configuration says about the tokenizer of the output."""

    source: str  # "union", "base" or the name of a model
    pad_to_multiple_of: int | None = None
    # A row that a model lacks is the base's if the base has it, even if others have it, too
    # (mergekit: where the configuration names a base_model).
    base_fills: bool = True


@dataclass(frozen=True, eq=False)
class RowMap:
    """How the rows of the output are made of rows of one model's tensor, and of others' tensors."""

    own: StoredTensor
    rows: NDArray[np.int64]  # (size,): a row of ``own``, LACKING or UNUSED
    donors: tuple[StoredTensor, ...]
    # (number of lacking rows, number of donors): for each lacking row in order, a row of each donor
    # or -1; the row is the mean of those. Unused rows are the mean of all others.
    donor_rows: NDArray[np.int64]


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

    Raises ``RecipeError`` if the source is no model of the merge, ``ModelError`` if the tokenizers
    cannot be united or a token has no row in any model.
    """
    raise NotImplementedError


def write_tokenizer(vocabulary: Vocabulary, out: Path) -> None:
    """Write tokenizer and generation settings; takes the place of ``copy_companions``."""
    for name, content in vocabulary.files.items():
        if isinstance(content, Path):
            shutil.copyfile(content, out / name)
        else:
            (out / name).write_text(content, encoding="utf-8")


class MappedRows:
    """The values of a mapped tensor as one float32 vector of which a block at a time is made."""

    def __init__(self, rows: RowMap, read: Callable[[StoredTensor], Tensor]) -> None:
        self._map = rows
        self._read = read

    def numel(self) -> int:
        """Number of elements."""
        raise NotImplementedError

    def __getitem__(self, place: slice) -> Tensor:
        """Return the elements of a slice (b,)."""
        raise NotImplementedError
