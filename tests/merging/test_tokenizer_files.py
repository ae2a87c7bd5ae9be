"""Tokenizers as files: the ids are those of Transformers, and a union cuts texts as its base did."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from biomistral.errors import ModelError
from biomistral.merging.tokenizer_files import (
    content_digest,
    read_tokenizer,
    rendered_files,
    unite,
)
from biomistral.models.fresh import train_tokenizer

TEXT = "The fever of the river <tool> is treated, la fièvre drugname (A) 河谷<pad>"


@pytest.fixture
def folder_of(tokenizer, tmp_path):
    """Return a function from a label, changes to tokenizer.json and other files to a folder."""

    def make(label, tokens=(), change=None, of=tokenizer, **files):
        folder = tmp_path / label
        of.save_pretrained(folder)
        loaded = AutoTokenizer.from_pretrained(folder)
        loaded.add_tokens(list(tokens))
        loaded.save_pretrained(folder)
        if change:
            path = folder / "tokenizer.json"
            state = json.loads(path.read_text())
            change(state)
            path.write_text(json.dumps(state))
        for name, content in files.items():
            path = folder / f"{name}.json"
            there = json.loads(path.read_text()) if path.is_file() else {}
            path.write_text(json.dumps({**there, **content}))
        return folder

    return make


def written(tokenizer, folder):
    """The folder of ``tokenizer`` with the files that it needs."""
    shutil.copytree(tokenizer.folder, folder)
    for name, text in rendered_files(tokenizer).items():
        (folder / name).write_text(text)
    return AutoTokenizer.from_pretrained(folder)


# --- reading ---


def test_ids_are_those_of_transformers(folder_of):
    folder = folder_of("plain", ["<tool>", "drugname"])
    assert read_tokenizer(folder).ids == AutoTokenizer.from_pretrained(folder).get_vocab()


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"pad_token": "<pad>"}},
        {"tokenizer_config": {"pad_token": "<pad>", "cls_token": "<c>", "sep_token": "<s2>"}},
        {"tokenizer_config": {"pad_token": "<pad>", "extra_special_tokens": ["<x>", "<y>"]}},
        {"special_tokens_map": {"pad_token": {"content": "<pad>"}}, "added_tokens": {"<new>": 559}},
    ],
)
def test_tokens_that_only_other_files_name_follow_as_in_transformers(folder_of, tmp_path, files):
    folder = folder_of("implied", ["<tool>"], **files)
    read = read_tokenizer(folder)
    assert read.ids == AutoTokenizer.from_pretrained(folder).get_vocab()
    assert read.ids["<pad>"] >= 559
    assert written(read, tmp_path / "out").get_vocab() == read.ids


def test_a_list_of_added_tokens_in_the_config_counts(folder_of, tmp_path):
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    decoder = {"558": {"content": "<late>", **flags, "special": True}}
    folder = folder_of("decoder", tokenizer_config={"added_tokens_decoder": decoder})
    read = read_tokenizer(folder)
    assert read.ids == AutoTokenizer.from_pretrained(folder).get_vocab()
    assert "<late>" in read.ids
    assert written(read, tmp_path / "out").get_vocab() == read.ids


def test_a_unigram_vocabulary_is_a_list(tmp_path):
    from tokenizers import Tokenizer, models

    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0)], unk_id=0))
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>").save_pretrained(tmp_path)
    assert read_tokenizer(tmp_path).ids == {"<unk>": 0, "a": 1, "b": 2}


def test_a_folder_without_tokenizer_has_none(tmp_path):
    assert read_tokenizer(tmp_path) is None


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model": {"vocab": [3]}}'])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="tokenizer files are not of a known form"):
        read_tokenizer(tmp_path)


def test_what_transformers_cannot_convert_is_refused_with_a_remedy(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(ModelError, match=r"has no tokenizer\.json.*save_pretrained\(folder\)"):
        read_tokenizer(tmp_path)


def test_the_digest_is_that_of_the_tokenizer_alone(folder_of):
    one, same, other = folder_of("one"), folder_of("same"), folder_of("other", ["<tool>"])
    (one / "config.json").write_text("{}")
    assert content_digest(one) == content_digest(same) != content_digest(other)


# --- uniting ---


def united(*folders):
    base, *others = [read_tokenizer(folder) for folder in folders]
    return unite(base, others)


def test_a_union_keeps_ids_and_adds_in_order(folder_of, tmp_path):
    base = folder_of("base", ["<tool>"])
    one, other = folder_of("one", ["drugname", "<tool>"]), folder_of("other", ["<b>", "drugname"])
    tokenizer, warnings = united(base, one, other)
    ids = read_tokenizer(base).ids
    assert dict(tokenizer.ids) == {**ids, "drugname": len(ids), "<b>": len(ids) + 1}
    assert warnings == []
    assert written(tokenizer, tmp_path / "out").get_vocab() == tokenizer.ids


def test_a_union_cuts_texts_as_the_models_did(folder_of, tmp_path):
    base, other = folder_of("base", ["<tool>"]), folder_of("other", ["drugname"])
    out = written(united(base, other)[0], tmp_path / "out")
    for folder, text in [
        (base, TEXT.replace("drugname", "bark")),
        (other, TEXT.replace("<tool>", "")),
    ]:
        loaded = AutoTokenizer.from_pretrained(folder)
        assert out.tokenize(text) == loaded.tokenize(text)
        assert out.decode(out(text)["input_ids"]) == loaded.decode(loaded(text)["input_ids"])


def test_a_union_with_nothing_new_is_the_base(folder_of):
    base, other = folder_of("base", ["<tool>"]), folder_of("other")
    tokenizer, warnings = united(base, other)
    assert not tokenizer.changed
    assert rendered_files(tokenizer) == {}
    assert warnings == []


def test_old_files_beside_it_are_kept_in_step(folder_of, tmp_path):
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    decoder = {"1": {"content": "<s>", **flags, "special": True}}
    config = {"added_tokens_decoder": decoder, "tokenizer_class": "LlamaTokenizer"}
    base = folder_of("base", tokenizer_config=config, added_tokens={"<s>": 1})
    tokenizer, _ = united(base, folder_of("other", ["<tool>"]))
    files = {name: json.loads(text) for name, text in rendered_files(tokenizer).items()}
    number = tokenizer.ids["<tool>"]
    assert (
        files["tokenizer_config.json"]["added_tokens_decoder"][str(number)]["content"] == "<tool>"
    )
    assert files["added_tokens.json"]["<tool>"] == number
    # This class builds itself from the config, not from tokenizer.json.
    assert written(tokenizer, tmp_path / "out").convert_tokens_to_ids("<tool>") == number


def test_other_properties_of_a_token_are_said_and_the_first_count(folder_of):
    base = folder_of("base", [AddedToken("<tool>", lstrip=True)])
    tokenizer, warnings = united(base, folder_of("other", [AddedToken("<tool>")]))
    assert tokenizer.added["<tool>"]["lstrip"]
    assert "other adds the token '<tool>' with other properties" in warnings[0]


def test_a_piece_of_the_base_that_another_model_adds_keeps_its_id(folder_of, tmp_path):
    base = folder_of("base")
    piece = "▁fever"
    plain = read_tokenizer(base)
    assert piece in plain.ids
    tokenizer, _ = united(base, folder_of("other", [piece]))
    assert tokenizer.ids == plain.ids
    assert piece in tokenizer.added
    assert written(tokenizer, tmp_path / "out").get_vocab() == plain.ids


def test_merges_in_the_old_form_are_the_same(folder_of):
    def join(state):
        state["model"]["merges"] = [" ".join(pair) for pair in state["model"]["merges"]]

    assert united(folder_of("base"), folder_of("other", change=join))[1] == []


def test_other_rules_of_cutting_are_warned_of(folder_of):
    other = folder_of("other", change=lambda state: state.update(normalizer=None))
    (warning,) = united(folder_of("base"), other)[1]
    assert "other has another normalizer than that of base" in warning


def test_tokenizers_of_other_texts_are_refused(folder_of):
    strange = train_tokenizer(["Une autre langue, d'autres mots."] * 9, vocabulary_size=400)
    with pytest.raises(
        ModelError,
        match=r"other: its tokenizer cannot be united.*tokens that are not added ones differ.*tokenizer_source: base",
    ):
        united(folder_of("base"), folder_of("other", of=strange))


def test_other_merges_of_the_same_pieces_are_refused(folder_of):
    other = folder_of("other", change=lambda state: state["model"]["merges"].reverse())
    with pytest.raises(ModelError, match="their merges are not"):
        united(folder_of("base"), other)


def test_another_kind_of_tokenizer_is_refused(folder_of, tmp_path):
    from tokenizers import Tokenizer, models

    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
    unigram = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    with pytest.raises(ModelError, match="one is a Unigram, the other a BPE"):
        united(folder_of("base"), folder_of("other", of=unigram))


def test_ids_with_gaps_take_no_more_tokens(folder_of):
    def move(state):
        vocabulary = state["model"]["vocab"]
        last = max(vocabulary, key=vocabulary.get)
        vocabulary[last] += 5

    base = folder_of("base", change=move)
    with pytest.raises(ModelError, match=r"its tokenizer cannot take more tokens.*gaps"):
        united(base, folder_of("other", ["<tool>"]))
