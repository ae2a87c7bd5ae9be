from __future__ import annotations

import json

import pytest

from biomistral.errors import ModelError
from biomistral.quantization.gguf_tokens import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    tokenizer_facts,
)

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write(folder, **changes) -> None:
    state = {
        "added_tokens": [{"id": 1, "content": "<s>", "special": True}],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": None,
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": "<unk>",
            "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "a": 3, "b": 4, "ab": 5, "▁": 6, "▁ab": 7},
            "merges": [["a", "b"], "▁ ab"],
        },
    }  # fmt: skip
    model = {**state["model"], **changes.pop("model", {})}
    state = {**state, "model": model, **changes}
    (folder / "tokenizer.json").write_text(json.dumps(state))


def byte_level(pattern: str | None) -> dict:
    parts = [{"type": "ByteLevel", "use_regex": pattern is None}]
    if pattern:
        parts.insert(0, {"type": "Split", "pattern": {"Regex": pattern}})
    return {"type": "Sequence", "pretokenizers": parts}


def test_tokens_their_types_and_scores(tmp_path):
    write(tmp_path)
    facts = tokenizer_facts(tmp_path, 10)
    assert facts.kind == "llama"
    assert facts.tokens[-4:] == ["▁", "▁ab", "[PAD8]", "[PAD9]"]
    assert facts.types == [UNKNOWN, CONTROL, BYTE, *[NORMAL] * 5, UNUSED, UNUSED]
    assert facts.scores[5] > facts.scores[7] > facts.scores[3]  # merged first, second, never
    assert facts.add_space_prefix
    assert facts.merges is None


def test_added_tokens_that_are_not_special_are_the_users(tmp_path):
    write(tmp_path, added_tokens=[{"id": 8, "content": "<think>", "special": False}])
    facts = tokenizer_facts(tmp_path, 9)
    assert (facts.tokens[8], facts.types[8]) == ("<think>", USER_DEFINED)


@pytest.mark.parametrize(
    ("scheme", "prefix"), [("always", True), ("first", True), ("never", False)]
)
def test_metaspace_says_whether_a_blank_goes_in_front(tmp_path, scheme, prefix):
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme}
    write(tmp_path, normalizer=None, pre_tokenizer=metaspace)
    assert tokenizer_facts(tmp_path, 8).add_space_prefix is prefix


@pytest.mark.parametrize(("pattern", "name"), [(None, "gpt-2"), (LLAMA3, "llama-bpe")])
def test_byte_level_tokenizers_keep_merges_and_the_name_of_their_pattern(tmp_path, pattern, name):
    write(tmp_path, normalizer=None, pre_tokenizer=byte_level(pattern))
    facts = tokenizer_facts(tmp_path, 8)
    assert (facts.kind, facts.pattern, facts.scores) == ("gpt2", name, None)
    assert facts.merges == ["a b", "▁ ab"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"type": "Unigram"}}, "its model is Unigram"),
        ({"model": {"byte_fallback": False}}, "neither byte-level nor of the SentencePiece kind"),
        ({"normalizer": None}, "neither byte-level nor"),
        ({"pre_tokenizer": byte_level("x+")}, r"cuts words with the pattern 'x\+'"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(ModelError, match=message):
        tokenizer_facts(tmp_path, 8)


def test_a_missing_tokenizer_json_is_explained(tmp_path):
    with pytest.raises(ModelError, match=r"has no tokenizer\.json, which a GGUF file is made from"):
        tokenizer_facts(tmp_path, 8)
