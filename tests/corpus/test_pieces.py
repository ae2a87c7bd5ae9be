"""Piece by piece gives what the whole text gives, or is not done at all."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from biomistral.corpus import pieces
from biomistral.corpus.pieces import exact_pieces

TEXTS = [
    "",
    " ",
    "a",
    "The fever of the valley, with bark (n = 12).",
    "  two blanks  before and   after  ",
    "lines\n\nand lines \n with blanks\tand tabs\r\n",
    "2.5 mg/kg; TNF-α, naïve T-Zellen über 37°C",
    "病人在早上接受了治疗。 Больной получал лечение",
    "▁literal▁marks ▁ here",
    "</s> <s> <unk> <0x0A> [INST]",
    "emoji 🩺 and \u0301combining, \u200bzero\ufeff",
    "²³ ½ ٣ ५ _under_score_",
]


def trained(split: bool = True, **changes: Any) -> dict[str, Any]:
    """A small tokenizer of the sentencepiece kind, as the JSON of its file."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(TEXTS)] * 3, trainer)
    state: dict[str, Any] = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if not t["content"].startswith("<0x")]
    state["pre_tokenizer"] = None
    return {**state, **changes}


def ids_of(state: dict[str, Any], texts: list[str]) -> list[list[int]]:
    """The whole texts, encoded by the library."""
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.encode_special_tokens = True
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


METASPACE = {
    "normalizer": None,
    "pre_tokenizer": {
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False
    },
}  # fmt: skip
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
KINDS = {
    "prepended": {},
    "metaspace": METASPACE,
    "without a blank before": {"normalizer": {"type": "Sequence", "normalizers": [REPLACE]}},
    "replaced only": {"normalizer": REPLACE},
    "with cuts of its own": {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": False},
                {"type": "Split", "pattern": {"String": "▁"}, "behavior": "MergedWithNext", "invert": False},
                {"type": "Punctuation", "behavior": "Isolated"},
            ],
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_give_the_ids_of_the_whole(kind: str) -> None:
    state = trained(**KINDS[kind])
    encoder = exact_pieces(json.dumps(state))
    assert encoder is not None
    assert [ids.tolist() for ids in encoder.encode(TEXTS)] == ids_of(state, TEXTS)
    rng = random.Random(7)
    alphabet = "".join(TEXTS) + " " * 40 + "aet" * 10
    fuzz = ["".join(rng.choices(alphabet, k=rng.randint(1, 40))) for _ in range(2000)]
    assert [ids.tolist() for ids in encoder.encode(fuzz)] == ids_of(state, fuzz)


def test_a_vocabulary_with_tokens_across_blanks_is_not_cut_at_blanks() -> None:
    state = trained()
    first, second = "e", "▁"
    state["model"]["vocab"][first + second] = len(state["model"]["vocab"])
    state["model"]["merges"].append([first, second])
    assert exact_pieces(json.dumps(state)) is None


def test_a_vocabulary_with_tokens_across_punctuation_is_cut_at_blanks_only() -> None:
    state = trained()
    state["model"]["vocab"]["e,"] = len(state["model"]["vocab"])
    state["model"]["merges"].append(["e", ","])
    encoder = exact_pieces(json.dumps(state))
    assert encoder is not None
    texts = ["fever, valley", "e,e,e , e,\n"]
    assert [ids.tolist() for ids in encoder.encode(texts)] == ids_of(state, texts)


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "Digits", "individual_digits": True}},
    ],
)  # fmt: skip
def test_what_is_not_known_to_be_exact_is_not_done(changes: dict[str, Any]) -> None:
    assert exact_pieces(json.dumps(trained(**changes))) is None


def test_other_kinds_of_model_are_not_cut() -> None:
    state = trained()
    for key, value in (("dropout", 0.1), ("byte_fallback", False), ("ignore_merges", True)):
        assert exact_pieces(json.dumps({**state, "model": {**state["model"], key: value}})) is None
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0)).to_str()
    assert exact_pieces(unigram) is None


def test_words_added_by_a_user_are_found_in_texts_so_nothing_is_cut() -> None:
    state = trained()
    added = {"id": 699, "content": "fever", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}  # fmt: skip
    assert exact_pieces(json.dumps({**state, "added_tokens": [added]})) is None


def test_forgetting_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    state = trained()
    encoder = exact_pieces(json.dumps(state))
    assert encoder is not None
    monkeypatch.setattr(pieces, "_MOST_PIECES", 3)
    for text, expected in zip(TEXTS, ids_of(state, TEXTS), strict=True):
        assert encoder.encode([text])[0].tolist() == expected


def test_a_long_text_is_joined_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    state = trained()
    encoder = exact_pieces(json.dumps(state))
    assert encoder is not None
    monkeypatch.setattr(pieces, "_BLOCK_PIECES", 3)
    assert [ids.tolist() for ids in encoder.encode(TEXTS)] == ids_of(state, TEXTS)


def test_every_text_is_the_sum_of_its_pieces() -> None:
    for cut in pieces._CUTS:
        for text in TEXTS:
            assert "".join(cut.findall(text)) == text


@pytest.mark.slow
def test_the_tokenizer_of_mistral_7b_is_cut_exactly(real_data) -> None:
    """The published one, rebuilt from its sentencepiece file, on real articles."""
    data = pytest.importorskip("mistral_common").__path__[0] + "/data/tokenizer.model.v1"
    spm = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_file=data)
    vocabulary = {spm.id_to_piece(i): i for i in range(spm.vocab_size())}
    merges = [
        (-spm.get_score(i), vocabulary[token[:k]], vocabulary[token[k:]], [token[:k], token[k:]])
        for token, i in vocabulary.items()
        for k in range(1, len(token))
        if token[:k] in vocabulary and token[k:] in vocabulary
    ]
    state = trained()
    state["model"] |= {"vocab": vocabulary, "merges": [m for *_, m in sorted(merges)]}
    state["added_tokens"] = []
    encoder = exact_pieces(json.dumps(state))
    assert encoder is not None
    paths = sorted((real_data / "jats").glob("*.xml"))[::40]
    texts = [path.read_text("utf-8", errors="replace")[:20_000] for path in paths] + TEXTS
    for text, ids in zip(texts, encoder.encode(texts), strict=True):
        assert ids.tolist() == spm.encode(text.replace("▁", " ")) or "\u200b" in text
