"""A tokenizer that gives every text back, and random weights that fit it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biomistral.errors import InputError
from biomistral.models.fresh import (
    BYTE_TOKENS,
    SPECIAL_TOKENS,
    fresh_model,
    save_fresh_model,
    train_tokenizer,
)
from biomistral.models.loading import load_model, load_tokenizer
from biomistral.recipe.settings import Architecture

TEXTS = [
    "the bark (A) of the willow",
    "die Rinde (A) der Weide; l'écorce",
    "柳树皮治热\n第二行",
] * 30
SMALL = Architecture(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=32,
)


@pytest.fixture(scope="module")
def small():
    return train_tokenizer(TEXTS, vocabulary_size=360)


def tokens(tokenizer, text: str, **options: object) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(tokenizer(text, **options)["input_ids"]))


def state(tokenizer) -> str:
    return str(tokenizer.backend_tokenizer.to_str())


# --- the tokenizer --------------------------------------------------------------------------------


def test_the_same_texts_give_the_same_tokenizer_in_any_process(small):
    program = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1]);"
        "from biomistral.models.fresh import train_tokenizer;"
        "texts = sys.stdin.read().split('\\0');"
        "print(hashlib.sha256(train_tokenizer(texts, 360).backend_tokenizer.to_str().encode())"
        ".hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parents[2])],
        input="\0".join(TEXTS),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1", "PYTHONUTF8": "1"},
    )
    assert other.stdout.strip() == hashlib.sha256(state(small).encode()).hexdigest()


def test_control_tokens_come_first_and_then_the_bytes(small):
    first = small.convert_ids_to_tokens(range(259))
    assert first == [*SPECIAL_TOKENS, *BYTE_TOKENS]
    assert (small.unk_token_id, small.bos_token_id, small.eos_token_id) == (0, 1, 2)


@settings(max_examples=300, deadline=None)
@given(text=st.text())
def test_every_text_comes_back(small, text):
    text = text.replace("▁", " ")  # the one character that cannot, as in SentencePiece
    ids = small(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert small.decode(ids) == text
    assert small.unk_token_id not in ids


@pytest.mark.parametrize("text", [" leads", "trails ", "two  blanks", "\n", "a\n\n b", "\t", "é́"])
def test_blanks_and_marks_come_back(small, text):
    assert small.decode(small(text)["input_ids"], skip_special_tokens=True) == text


def test_characters_never_seen_become_bytes(small):
    assert tokens(small, "ß", add_special_tokens=False) == ["▁", "<0xC3>", "<0x9F>"]


@given(
    text=st.lists(st.sampled_from(["<s>", "</s>", "<unk>", "a", " ", "\n", "(", "s>"])).map("".join)
)
@settings(max_examples=100, deadline=None)
def test_no_text_becomes_a_control_token_when_these_are_split(small, text):
    ids = small(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert min(ids, default=3) > 2
    assert small.decode(ids) == text


def test_control_tokens_in_text_count_in_the_plain_path(small):
    assert "</s>" in tokens(small, "bark</s>")  # as with every tokenizer of this family


def test_a_text_that_spells_a_byte_token_stays_text(small):
    assert small.decode(small("<0x41>", add_special_tokens=False)["input_ids"]) == "<0x41>"
    assert "<0x41>" not in tokens(small, "<0x41>")


@pytest.mark.parametrize("vocabulary_size", [330, 400, 1000])
def test_letters_after_a_bracket_are_cut_alike(vocabulary_size):
    # Only (A) is in the texts, often: a merge over the bracket would treat it otherwise.
    tokenizer = train_tokenizer(["Answer:(A) bark", *TEXTS] * 10, vocabulary_size)
    assert "(A" not in tokenizer.get_vocab()
    for letter in "ABCDEFGHIJ":
        cut = tokens(tokenizer, f"Answer:({letter})")
        assert cut[-4:-2] == [":", "("]
        assert len(cut) == len(tokens(tokenizer, "Answer:(A)"))


def test_no_token_spans_words_lines_or_punctuation(small):
    learned = list(small.get_vocab().keys() - {*SPECIAL_TOKENS, *BYTE_TOKENS})
    assert all("▁" not in token[1:] for token in learned)
    assert all(len(token) == 1 for token in learned if {"\n", "(", ")", ";", "'"} & set(token))


@pytest.mark.parametrize("vocabulary_size", [310, 320, 330])
def test_the_vocabulary_has_the_size_asked_for_where_the_texts_fill_it(vocabulary_size):
    assert len(train_tokenizer(TEXTS, vocabulary_size)) == vocabulary_size


def test_too_small_a_vocabulary_is_refused_with_the_size_that_works():
    texts = ["".join(chr(code) for code in range(0x4E00, 0x4E00 + 100))]
    with pytest.raises(InputError, match=r"100 different characters.* set it to 360 or more"):
        train_tokenizer(texts, vocabulary_size=300)
    assert len(train_tokenizer(texts, vocabulary_size=360)) <= 360


@pytest.mark.parametrize("texts", [[], [""], iter([])])
def test_no_text_at_all_is_refused(texts):
    with pytest.raises(InputError, match="no text to train it on"):
        train_tokenizer(texts, vocabulary_size=300)


# --- the weights ----------------------------------------------------------------------------------


def test_weights_are_a_function_of_the_seed(small):
    one, same, other = (fresh_model(SMALL, small, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_the_model_fits_its_tokenizer_and_its_architecture(small):
    model = fresh_model(SMALL, small, seed=0)
    assert model.get_input_embeddings().weight.shape == (len(small), 16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    config = model.config
    assert (config.bos_token_id, config.eos_token_id) == (1, 2)
    for name, value in SMALL.model_dump(exclude={"rope_theta"}).items():
        assert getattr(config, name) == value
    assert config.rope_parameters["rope_theta"] == SMALL.rope_theta


def test_tied_embeddings_are_one_tensor(small):
    tied = SMALL.model_copy(update={"tie_word_embeddings": True})
    model = fresh_model(tied, small, seed=0)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_making_a_model_leaves_the_global_generator_alone(small):
    before = torch.random.get_rng_state()
    fresh_model(SMALL, small, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_saved_model_is_opened_as_it_was(tmp_path):
    save_fresh_model(SMALL, iter(TEXTS), 360, tmp_path, seed=4)
    tokenizer, trained = load_tokenizer(tmp_path), train_tokenizer(TEXTS, 360)
    assert state(tokenizer) == state(trained)
    assert tokenizer("(A) 柳 x")["input_ids"] == trained("(A) 柳 x")["input_ids"]
    saved = load_model(tmp_path, precision="float32", device=torch.device("cpu")).state_dict()
    made = fresh_model(SMALL, trained, seed=4).state_dict()
    assert all(torch.equal(saved[name], made[name]) for name in made)


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        save_fresh_model(SMALL, TEXTS, 360, tmp_path / name, seed=4)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two


def test_saving_says_nothing(tmp_path, capfd):
    save_fresh_model(SMALL, TEXTS, 360, tmp_path, seed=4)
    assert capfd.readouterr() == ("", "")
