"""Ids of a corpus must stand for the same tokens as the model's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from biomistral.errors import ModelError
from biomistral.models.fresh import train_tokenizer
from biomistral.models.rows import PackedRows, Row, write_rows
from biomistral.models.vocabulary import check_rows_fit, vocabulary_digest


def rows(folder: Path, digest: str, vocabulary_size: int = 400) -> PackedRows:
    row = Row((np.array([5, 6, 2]),), (0,))
    write_rows(
        folder,
        [row],
        [],
        sequence_length=4,
        vocabulary_size=vocabulary_size,
        eos_id=2,
        tokenizer_sha256=digest,
    )
    return PackedRows(folder)


def test_the_digest_is_that_of_the_vocabulary(tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert vocabulary_digest(again) == vocabulary_digest(tokenizer)


def test_equal_sizes_with_other_tokens_are_told_apart(tokenizer, tmp_path: Path) -> None:
    other = train_tokenizer(["zebra quagga okapi gnu"] * 50, 350)
    packed = rows(tmp_path, vocabulary_digest(other))
    with pytest.raises(ModelError, match=r"another tokenizer.*corpus\.tokenizer"):
        check_rows_fit(packed, tokenizer, 10_000)


def test_the_same_vocabulary_fits(tokenizer, tmp_path: Path) -> None:
    check_rows_fit(rows(tmp_path, vocabulary_digest(tokenizer)), tokenizer, 10_000)


def test_more_tokens_than_the_embedding_has_are_refused(tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="400 tokens, the model has 300"):
        check_rows_fit(rows(tmp_path, ""), tokenizer, 300)
