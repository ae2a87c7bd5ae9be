"""A document's tokens: begin and end once each, and none of either inside."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from biomistral.corpus.encoding import DocumentEncoder, TokenizerParts
from biomistral.errors import ModelError


def parts(state: str, **changes: object) -> TokenizerParts:
    values = {
        "name": "small", "state": state, "bos_id": 1, "eos_id": 2, "vocabulary_size": 8, "sha256": ""
    }  # fmt: skip
    return TokenizerParts(**{**values, **changes})  # type: ignore[arg-type]


def word_level() -> str:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "fever": 3, "bark": 4, "stop": 5}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer.to_str()


def test_a_tokenizer_that_cannot_be_cut_is_used_as_it_is() -> None:
    encoder = DocumentEncoder(parts(word_level()))
    assert not encoder.is_by_pieces
    assert [ids.tolist() for ids in encoder.encode(["fever bark", ""])] == [[1, 3, 4, 2], [1, 2]]


def test_a_tokenizer_without_a_beginning_begins_with_the_text() -> None:
    encoder = DocumentEncoder(parts(word_level(), bos_id=None))
    assert encoder.encode(["bark"])[0].tolist() == [4, 2]


def test_a_control_token_out_of_text_is_an_error() -> None:
    with pytest.raises(
        ModelError, match=r"makes one of the control tokens .1, 5. out of plain text"
    ):
        DocumentEncoder(parts(word_level(), eos_id=5)).encode(["bark stop bark"])
    # This one knows no special way of treating </s> in a text.
    plain = json.loads(word_level())
    plain["added_tokens"] = []
    with pytest.raises(ModelError, match="control tokens"):
        DocumentEncoder(parts(json.dumps(plain))).encode(["bark </s> bark"])


def test_parts_travel_between_processes() -> None:
    given = parts(word_level())
    assert pickle.loads(pickle.dumps(given)) == given


def test_workers_load_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, biomistral.corpus.shards, biomistral.corpus.layout; "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert run.stdout.strip() == "[]"
