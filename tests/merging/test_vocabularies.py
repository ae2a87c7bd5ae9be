"""Vocabularies: every token of the output has the row that a slow loop over tokens finds for it."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from biomistral.errors import ModelError, RecipeError
from biomistral.merging.vocabularies import (
    MappedRows,
    VocabularySetting,
    plan_vocabulary,
    write_tokenizer,
)
from biomistral.models.checkpoints import Checkpoint

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
NUM_TOKENS = 558  # of the tokenizer of the tests


@pytest.fixture(scope="module")
def model_of(make_model, tmp_path_factory):
    """Return a function that makes a model with added tokens and random rows, each time the same."""
    root = tmp_path_factory.mktemp("vocabularies")

    def make(label, seed=0, tokens=(), *, rows=None, pad_token=None, tied=False):
        folder = root / label
        if folder.exists():
            return folder
        source = make_model(seed)
        tokenizer = AutoTokenizer.from_pretrained(source)
        tokenizer.add_tokens(list(tokens))
        if pad_token:
            tokenizer.add_special_tokens({"pad_token": pad_token})
        model = AutoModelForCausalLM.from_pretrained(source)
        model.config.tie_word_embeddings = tied
        model.resize_token_embeddings(rows or len(tokenizer), mean_resizing=False)
        generator = torch.Generator().manual_seed(seed + 100)
        for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            weight.data.normal_(generator=generator)
        if tied:
            model.tie_weights()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def three(model_of):
    """A plain padded base, and two models with one added token in common."""
    return {
        "base": model_of("base", 0, rows=576),
        "one": model_of("one", 1, ["<tool>", "drugname"]),
        "two": model_of("two", 2, ["drugname", "<end>"], rows=640),
    }


def planned(folders, source="union", pad=None, base="base", **options):
    models = {name: Checkpoint(folder) for name, folder in folders.items()}
    return models, plan_vocabulary(VocabularySetting(source, pad, **options), models, base)


def mapped(models, vocabulary, model, name):
    """The values of one tensor in the rows of the output, as the engine reads them."""
    rows = vocabulary.maps.get((model, name))
    if rows is None:
        return models[model].tensor(name)
    by_folder = {checkpoint.folder: checkpoint for checkpoint in models.values()}
    values = MappedRows(rows, lambda s: by_folder[s.file.parent].tensor(s.name))
    return values[:].view(rows.shape)


def written(models, vocabulary, out, base="base"):
    out.mkdir(parents=True)
    write_tokenizer(vocabulary, out)
    config = {**models[base].config, **vocabulary.config_changes}
    (out / "config.json").write_text(json.dumps(config))
    return AutoTokenizer.from_pretrained(out)


def expected_row(token, model, folders, name, filler):
    """The rules once more: the model's own row, else that of ``filler``, else the mean."""
    found = {}
    for label, folder in folders.items():
        index = AutoTokenizer.from_pretrained(folder).get_vocab().get(token)
        rows = load_file(folder / "model.safetensors")[name]
        if index is not None and index < len(rows):
            found[label] = rows[index]
    if model in found:
        return found[model]
    if filler in found:
        return found[filler]
    return torch.stack(list(found.values())).mean(dim=0)


# --- rows ---


@pytest.mark.parametrize("source", ["union", "base", "one", "two"])
@pytest.mark.parametrize("pad", [None, 64])
def test_every_token_has_the_row_that_the_rules_give_it(three, tmp_path, source, pad):
    models, vocabulary = planned(three, source, pad)
    ids = written(models, vocabulary, tmp_path / "out").get_vocab()
    added = [token for token, index in ids.items() if index >= NUM_TOKENS]
    for name in (EMBEDDING, HEAD):
        for model in three:
            rows = mapped(models, vocabulary, model, name)
            assert len(rows) == vocabulary.size >= len(ids)
            for token in ["▁", "<s>", "▁fever", *added]:
                expected = expected_row(token, model, three, name, "base")
                torch.testing.assert_close(rows[ids[token]], expected, rtol=0, atol=1e-6)


def test_the_union_has_all_added_tokens_and_the_size_of_its_tokens(three, tmp_path):
    models, vocabulary = planned(three)
    ids = written(models, vocabulary, tmp_path / "out").get_vocab()
    new = {"<tool>": NUM_TOKENS, "drugname": NUM_TOKENS + 1, "<end>": NUM_TOKENS + 2}
    assert {token: ids[token] for token in new} == new
    assert vocabulary.size == len(ids) == NUM_TOKENS + 3
    assert vocabulary.config_changes == {"vocab_size": NUM_TOKENS + 3}


def test_padding_is_rounded_up_and_holds_the_mean_of_the_rows(three):
    models, vocabulary = planned(three, pad=64)
    assert vocabulary.size == 576
    rows = mapped(models, vocabulary, "one", HEAD)
    tokens = rows[: NUM_TOKENS + 3]
    torch.testing.assert_close(rows[-1], tokens.mean(dim=0), rtol=0, atol=1e-6)


def test_a_token_of_several_is_averaged_unless_the_base_has_it(model_of):
    folders = {
        "plain": model_of("base", 0, rows=576),
        "one": model_of("one", 1, ["<tool>", "drugname"]),
        "two": model_of("two", 2, ["drugname", "<end>"], rows=640),
    }
    for filler, base_fills in [("one", True), (None, False)]:
        models, vocabulary = planned(folders, base="one", base_fills=base_fills)
        row = mapped(models, vocabulary, "plain", HEAD)[NUM_TOKENS + 1]
        expected = expected_row("drugname", "plain", folders, HEAD, filler)
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-6)


def test_models_of_one_vocabulary_need_no_maps(model_of):
    folders = {"base": model_of("same", 3), "other": model_of("again", 4)}
    _, vocabulary = planned(folders)
    assert vocabulary.maps == {}
    assert vocabulary.config_changes == {}
    assert vocabulary.warnings == ()


def test_padding_of_the_inputs_is_dropped(model_of):
    folders = {"base": model_of("base", 0, rows=576), "other": model_of("again", 4)}
    models, vocabulary = planned(folders, "base")
    assert vocabulary.size == NUM_TOKENS
    rows = mapped(models, vocabulary, "base", EMBEDDING)
    assert torch.equal(rows, models["base"].tensor(EMBEDDING)[:NUM_TOKENS])
    assert ("other", EMBEDDING) not in vocabulary.maps


def test_ids_may_differ_in_every_model(three, tmp_path):
    """A model whose tokenizer has the same pieces in another order."""
    folder = shutil.copytree(three["one"], tmp_path / "shuffled")
    state = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = state["model"]["vocab"]
    ids = list(range(NUM_TOKENS))
    random.Random(0).shuffle(ids)
    state["model"]["vocab"] = {token: ids[index] for token, index in vocabulary.items()}
    for entry in state["added_tokens"]:
        entry["id"] = state["model"]["vocab"].get(entry["content"], entry["id"])
    (folder / "tokenizer.json").write_text(json.dumps(state))
    folders = {"base": three["base"], "shuffled": folder}
    models, planned_vocabulary = planned(folders)
    rows = mapped(models, planned_vocabulary, "shuffled", HEAD)
    own = models["shuffled"].tensor(HEAD)
    for token, index in list(vocabulary.items())[::50]:
        assert torch.equal(rows[index], own[state["model"]["vocab"][token]])


def test_a_bias_of_the_head_follows(three, tmp_path):
    folders = {name: shutil.copytree(three[name], tmp_path / name) for name in ("base", "one")}
    for folder in folders.values():
        file = folder / "model.safetensors"
        tensors = load_file(file)
        save_file({**tensors, "lm_head.bias": tensors[HEAD][:, 0].clone()}, file)
    models, vocabulary = planned(folders)
    bias = mapped(models, vocabulary, "base", "lm_head.bias")
    assert torch.equal(bias, mapped(models, vocabulary, "base", HEAD)[:, 0])


def test_tied_embeddings_are_mapped_once(model_of):
    folders = {
        "base": model_of("tied", 0, tied=True),
        "other": model_of("tied-other", 1, ["<tool>"], tied=True),
    }
    models, vocabulary = planned(folders)
    assert vocabulary.names == (EMBEDDING,)
    assert set(vocabulary.maps) == {("base", EMBEDDING)}
    row = mapped(models, vocabulary, "base", EMBEDDING)[-1]
    assert torch.equal(row, models["other"].tensor(EMBEDDING)[-1])


def test_maps_are_plain(three):
    models, vocabulary = planned(three)
    again = pickle.loads(pickle.dumps(vocabulary))
    assert torch.equal(
        mapped(models, vocabulary, "base", HEAD), mapped(models, again, "base", HEAD)
    )


def test_the_hash_seed_changes_nothing(three):
    code = (
        "import sys, pickle, hashlib; from pathlib import Path;"
        "from biomistral.merging.vocabularies import *;"
        "from biomistral.models.checkpoints import Checkpoint;"
        "models = {Path(p).name: Checkpoint(Path(p)) for p in sys.argv[1:]};"
        "v = plan_vocabulary(VocabularySetting('union'), models, 'base');"
        "print(hashlib.sha256(pickle.dumps(v)).hexdigest(), 'torch' in sys.modules)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, *map(str, three.values())],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert outputs.pop().endswith("False\n")


# --- the model that comes out ---


def test_a_merged_model_answers_as_the_models_do(three, tmp_path):
    """Each model with its rows moved gives the same numbers for the same text."""
    models, vocabulary = planned(three, pad=8)
    tokenizer = written(models, vocabulary, tmp_path / "out")
    text = "The fever of the river <tool> drugname (A)"
    for name in ("one", "two"):
        own = AutoTokenizer.from_pretrained(three[name])
        text_of = text if name == "one" else text.replace("<tool>", "")
        assert own.tokenize(text_of) == tokenizer.tokenize(text_of)
        before = AutoModelForCausalLM.from_pretrained(three[name])
        wanted = before(**own(text_of, return_tensors="pt")).logits
        tensors = load_file(three[name] / "model.safetensors")
        moved = {key: mapped(models, vocabulary, name, key) for key in vocabulary.names}
        folder = tmp_path / f"{name}-moved"
        shutil.copytree(tmp_path / "out", folder)
        save_file({**tensors, **moved}, folder / "model.safetensors", metadata={"format": "pt"})
        after = AutoModelForCausalLM.from_pretrained(folder)
        found = after(**tokenizer(text_of, return_tensors="pt")).logits
        common = own.get_vocab()
        places = tokenizer.convert_tokens_to_ids(list(common))
        torch.testing.assert_close(found[..., places], wanted[..., list(common.values())])


def test_special_ids_follow_the_tokenizer_that_is_taken(model_of, tmp_path):
    folders = {
        "base": shutil.copytree(model_of("same", 3), tmp_path / "base"),
        "other": shutil.copytree(model_of("pad", 5, ["<end>"], pad_token="<pad>"), tmp_path / "o"),
    }
    path = folders["other"] / "config.json"
    config = {**json.loads(path.read_text()), "eos_token_id": 558, "pad_token_id": 559}
    path.write_text(json.dumps(config))
    generation = {"bos_token_id": 1, "eos_token_id": 2, "max_new_tokens": 5}
    (folders["base"] / "generation_config.json").write_text(json.dumps(generation))
    (folders["other"] / "generation_config.json").write_text('{"eos_token_id": [2, 558]}')
    models, vocabulary = planned(folders, "other")
    assert vocabulary.config_changes == {
        "vocab_size": 560,
        "eos_token_id": 558,
        "pad_token_id": 559,
    }
    tokenizer = written(models, vocabulary, tmp_path / "out")
    assert tokenizer.pad_token_id == 559
    written_generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written_generation == {**generation, "eos_token_id": [2, 558]}
    union_models, union = planned(folders)
    assert union.config_changes == {"vocab_size": 560}
    written(union_models, union, tmp_path / "union")
    assert json.loads((tmp_path / "union" / "generation_config.json").read_text()) == generation


# --- the token past the embedding ---


def test_a_token_past_the_embedding_is_taken_from_a_model_that_has_it(model_of):
    folders = {
        "base": model_of("past", 0, pad_token="<pad>", rows=NUM_TOKENS),
        "other": model_of("whole", 1, pad_token="<pad>"),
    }
    models, vocabulary = planned(folders, "base")
    assert vocabulary.size == NUM_TOKENS + 1
    row = mapped(models, vocabulary, "base", EMBEDDING)[-1]
    assert torch.equal(row, models["other"].tensor(EMBEDDING)[-1])


@pytest.mark.parametrize("source", ["union", "base", "past"])
def test_a_token_that_has_no_row_anywhere_is_refused(model_of, source):
    folders = {"past": model_of("past", 0, pad_token="<pad>", rows=NUM_TOKENS)}
    folders["plain"] = model_of("same", 3)
    with pytest.raises(
        ModelError,
        match=r"past: the tokenizer gives the token '<pad>' the id 558, but the embedding has 558 rows, and no other.*resize",
    ) as caught:
        planned(folders, source, base="past")
    assert "1 such tokens in all" in str(caught.value)


# --- refusals and warnings ---


def test_a_source_that_is_no_model_is_refused_with_a_suggestion(three):
    with pytest.raises(
        RecipeError, match=r"tokenizer_source 'unoin' is no model.*did you mean \"union\""
    ):
        planned(three, "unoin")


def test_a_source_without_tokenizer_is_refused(three, tmp_path):
    bare = without_tokenizer(three["base"], tmp_path)
    with pytest.raises(ModelError, match="bare: has no tokenizer to take"):
        planned({"base": bare, "one": three["one"]})


def without_tokenizer(folder, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "bare")
    for path in bare.glob("tokenizer*"):
        path.unlink()
    return bare


def test_a_model_without_tokenizer_is_taken_to_have_the_one_of_equal_rows(model_of, tmp_path):
    bare = without_tokenizer(model_of("again", 4), tmp_path)
    _, vocabulary = planned({"base": model_of("same", 3), "bare": bare})
    assert vocabulary.maps == {}
    assert "bare has no tokenizer; taken for the same as that of same" in vocabulary.warnings[0]
    with pytest.raises(ModelError, match="bare: has no tokenizer, and 558 rows"):
        planned({"base": model_of("base", 0, rows=576), "bare": bare})


def test_a_head_of_another_height_is_refused(three, tmp_path):
    folder = shutil.copytree(three["one"], tmp_path / "odd")
    tensors = load_file(folder / "model.safetensors")
    tensors[HEAD] = tensors[HEAD][:-1].clone()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"lm_head\.weight is \[559, 64\], and the embedding has 560"
    ):
        planned({"base": three["base"], "odd": folder})


def test_an_unknown_tensor_with_a_row_per_token_is_refused(three, tmp_path):
    folder = shutil.copytree(three["one"], tmp_path / "odd")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.hash.table": tensors[HEAD].clone()}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.hash\.table has 560 rows like the embedding"):
        planned({"base": three["base"], "odd": folder})


def test_models_of_other_widths_are_refused(three, make_model, tmp_path):
    narrow = make_model(0, hidden_size=32)
    with pytest.raises(
        ModelError, match=r"weight is \[560, 64\], and .* has \[558, 32\].*one architecture"
    ):
        planned({"base": narrow, "one": three["one"]})


def test_a_model_without_known_embedding_is_refused(three, tmp_path):
    folder = shutil.copytree(three["one"], tmp_path / "odd")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {"x" if k == EMBEDDING else k: v for k, v in tensors.items()}, folder / "model.safetensors"
    )
    with pytest.raises(ModelError, match="no tensor has the name of an input embedding"):
        planned({"base": three["base"], "odd": folder})


# --- the real thing ---


@pytest.fixture(scope="module")
def mistral(tmp_path_factory):
    """Folders of Mistral's own tokenizer, one with chat tokens, over models of width 4."""
    common = pytest.importorskip("mistral_common", reason="has the tokenizer of Mistral 7B v0.1")
    pytest.importorskip("sentencepiece", reason="reads it")
    pytest.importorskip("google.protobuf", reason="reads it")
    from pathlib import Path

    from transformers import LlamaTokenizerFast

    root = tmp_path_factory.mktemp("mistral")
    shutil.copyfile(
        Path(common.__file__).parent / "data" / "tokenizer.model.v1", root / "tokenizer.model"
    )
    tokenizer = LlamaTokenizerFast.from_pretrained(root)
    folders = {}
    for name, tokens in {"base": [], "chat": ["<|im_start|>", "<|im_end|>"]}.items():
        folders[name] = root / name
        tokenizer.add_tokens(tokens)
        tokenizer.save_pretrained(folders[name])
        rows = torch.randn(len(tokenizer), 4, generator=torch.Generator().manual_seed(len(tokens)))
        save_file({EMBEDDING: rows, HEAD: rows.clone()}, folders[name] / "model.safetensors")
        (folders[name] / "config.json").write_text(json.dumps({"vocab_size": len(tokenizer)}))
    return root, folders


def test_a_union_of_mistral_and_a_chat_model_cuts_as_sentencepiece(mistral, tmp_path):
    import sentencepiece

    root, folders = mistral
    models, vocabulary = planned(folders)
    assert vocabulary.size == 32002
    write_tokenizer(vocabulary, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    reference = sentencepiece.SentencePieceProcessor(str(root / "tokenizer.model"))
    for text in ("The fever of the river.", "Fièvre: 河谷 (A) \n **Answer:**(", "ليلى 42"):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == reference.encode(text)
    assert tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [32000, 32001]
    rows = mapped(models, vocabulary, "base", HEAD)
    assert torch.equal(rows[:32000], models["base"].tensor(HEAD))
    assert torch.equal(rows[32000:], models["chat"].tensor(HEAD)[32000:])


def test_a_bare_sentencepiece_model_gives_ids_but_takes_no_tokens(mistral, tmp_path):
    root, folders = mistral
    bare = shutil.copytree(folders["base"], tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    shutil.copyfile(root / "tokenizer.model", bare / "tokenizer.model")
    (bare / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    _, vocabulary = planned({"base": bare, "chat": folders["chat"]}, "base")
    assert vocabulary.size == 32000
    assert set(vocabulary.files) == {"tokenizer.model", "tokenizer_config.json"}
    with pytest.raises(
        ModelError, match=r"bare: has no tokenizer\.json that tokens could be added"
    ):
        planned({"base": bare, "chat": folders["chat"]})
