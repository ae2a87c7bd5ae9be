"""Small corpora of random documents, packed into rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from biomistral.artifacts import Origin, create
from biomistral.models.rows import DOCUMENTS, Row, write_rows
from biomistral.records import Request

EOS = 2
VOCABULARY_SIZE = 300  # below that of the tokenizer of all tests


def drawn_rows(
    rng: np.random.Generator, num_rows: int, length: int, vocabulary_size: int
) -> list[Row]:
    """Rows of two or three documents in which each token is the one before plus one or two.

    Such texts can be learned a little in a few steps. Some padding is left in every row.
    """
    rows = []
    for _ in range(num_rows):
        pieces = []
        for _ in range(int(rng.integers(2, 4))):
            steps = rng.integers(1, 3, size=int(rng.integers(4, length // 3)))
            words = 3 + (int(rng.integers(0, 40)) + np.cumsum(steps)) % (vocabulary_size - 3)
            pieces.append(np.concatenate([[1], words[:-2], [EOS]]))
        rows.append(Row(tuple(pieces), tuple(range(len(pieces)))))
    return rows


@pytest.fixture(scope="session")
def make_tokens(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes a small ``tokens`` artefact called ``made-up``."""

    def make(
        num_rows: int = 22,
        num_held_out: int = 0,
        *,
        length: int = 32,
        vocabulary_size: int = VOCABULARY_SIZE,
    ) -> Path:
        rng = np.random.default_rng(5)
        out = tmp_path_factory.mktemp("tokens") / "made-up"
        with create(out, Origin("tokens", "made-up", {"rows": [num_rows, num_held_out]})) as draft:
            rows = drawn_rows(rng, num_rows + num_held_out, length, vocabulary_size)
            write_rows(
                draft.folder,
                rows[:num_rows],
                rows[num_rows:],
                sequence_length=length,
                vocabulary_size=vocabulary_size,
                eos_id=EOS,
            )
            pq.write_table(pa.table({"id": ["a", "b", "c"]}), draft.folder / DOCUMENTS)
            draft.counts["by_licence"] = {"CC-BY": 3}
            draft.counts["by_language"] = {"en": 2, "fr": 1}
        return out

    return make


@pytest.fixture(scope="session")
def asked() -> list[Request]:
    """Twelve invented questions with the letters A and B, of which B is right."""
    return [
        Request(
            question_id=str(number),
            task="fevers",
            language="en",
            shots=0,
            seed=0,
            scoring="letter",
            prompt=f"The fever of valley {number} is treated with (A) bark (B) rest Answer:(",
            continuations=("A", "B"),
            gold=1,
        )
        for number in range(12)
    ]
