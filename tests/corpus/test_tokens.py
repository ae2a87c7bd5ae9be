"""No text ever becomes a control token, and batches give what single texts give."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from biomistral.corpus.tokens import load_tokenizer
from biomistral.errors import ModelError

SPECIAL = ("<unk>", "<s>", "</s>")
TEXTS = [
    "The fever.",
    "Before </s> after",
    "<s>[INST] x [/INST]</s>",
    "</s>",
    "a</s>b <unk> <s>",
    "é 河 <0x0A>\n\n x",
]


def mistral_style() -> PreTrainedTokenizerFast:
    """As Mistral 7B v0.1 exports it: no pre-tokenizer, ▁ put in by the normalizer."""
    letters = "▁abcdefghijklmnopqrstuvwxyzTB.<>/[]"
    vocabulary = {token: i for i, token in enumerate(SPECIAL)}
    vocabulary |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    vocabulary |= {letter: 259 + i for i, letter in enumerate(letters)}
    pairs = [("▁", "a"), ("t", "h"), ("<", "/"), ("</", "s"), ("</s", "x"), ("▁", "f")]
    vocabulary |= {a + b: 300 + i for i, (a, b) in enumerate(pairs)}
    backend = Tokenizer(
        models.BPE(vocabulary, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.fixture(scope="module", params=["trained", "mistral"])
def folder(request, tokenizer, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    (tokenizer if request.param == "trained" else mistral_style()).save_pretrained(path)
    return path


def test_special_strings_would_be_control_tokens_without_care(folder: Path) -> None:
    plain = load_tokenizer(folder).plain
    assert plain.eos_token_id in plain("Before </s> after", add_special_tokens=False)["input_ids"]


def test_a_document_begins_and_ends_with_control_tokens_and_has_none_inside(folder: Path) -> None:
    ready = load_tokenizer(folder)
    for text, ids in zip(TEXTS, ready.encode(TEXTS), strict=True):
        assert (ids[0], ids[-1]) == (1, 2)
        assert not set(ids[1:-1].tolist()) & {0, 1, 2}
        assert ready.plain.decode(ids[1:-1].tolist()).strip() == text.strip()


def test_batches_give_what_single_texts_give(folder: Path) -> None:
    ready = load_tokenizer(folder)
    for text in TEXTS:
        ready.check(text)
    ordinary = "The fever of the valley"
    plain = ready.plain(ordinary)["input_ids"]
    assert ready.encode([ordinary])[0].tolist() == [*plain, 2]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    parts=st.lists(
        st.sampled_from([*SPECIAL, "<", "/", "s", ">", " ", "\n", "a", "é", "病", "<0x02>"]),
        min_size=1,
    )
)
def test_no_string_makes_a_control_token(folder: Path, parts: list[str]) -> None:
    ready = load_cached(folder)
    (ids,) = ready.encode(["".join(parts)])
    assert not set(ids[1:-1].tolist()) & {1, 2}
    ready.check("".join(parts))


_loaded: dict[Path, object] = {}


def load_cached(folder: Path):
    if folder not in _loaded:
        _loaded[folder] = load_tokenizer(folder)
    return _loaded[folder]


def test_the_digest_is_that_of_the_tokenizer(folder: Path, tokenizer, tmp_path: Path) -> None:
    assert load_tokenizer(folder).parts.sha256 == load_tokenizer(folder).parts.sha256
    assert load_tokenizer(folder).parts.vocabulary_size == len(load_tokenizer(folder).plain)


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tokenizer can be loaded"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    tokenizer = mistral_style()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no end-of-text token"):
        load_tokenizer(tmp_path)
