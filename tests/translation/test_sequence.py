"""With a true sequence-to-sequence model, trained here to know a few sentences by heart."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from biomistral.errors import InputError, ModelError
from biomistral.recipe.translating import SequenceModel
from biomistral.translation.parts import Parts
from biomistral.translation.sequence import SequenceTranslator
from biomistral.translation.wanted import Wanted

PAIRS = {
    "Which tea?": "Quel thé ?",
    "Bark": "Écorce",
    "Water": "Eau",
    "Rest": "Repos",
}
SOURCE = Parts("Which tea?", ("Bark", "Water"))


@pytest.fixture(scope="module")
def madlad(tmp_path_factory):
    """A folder with a T5 that is told the language as MADLAD is, and knows PAIRS."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>", "<unk>", "<2fr>", "<2de>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*PAIRS, *PAIRS.values()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(fast),
        d_model=48,
        d_kv=12,
        d_ff=96,
        num_layers=1,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
    )
    model = T5ForConditionalGeneration(config).train()
    texts = fast([f"<2fr> {text}" for text in PAIRS], padding=True, return_tensors="pt")
    labels = fast(list(PAIRS.values()), padding=True, return_tensors="pt")["input_ids"]
    labels[labels == 0] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = model(
            input_ids=texts["input_ids"], attention_mask=texts["attention_mask"], labels=labels
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.05
    folder = tmp_path_factory.mktemp("madlad")
    model.eval().save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def settings(path, **changes) -> SequenceModel:
    return SequenceModel(path=str(path), **{"beams": 2, "max_tokens": 32, **changes})


def test_parts_that_do_not_come_back_line_by_line_are_translated_one_by_one(madlad, tmp_path):
    translator = SequenceTranslator(settings(madlad), tmp_path / "answers.jsonl")
    (candidate,) = translator.translate([Wanted(SOURCE, "fr")])
    assert candidate.parts == Parts("Quel thé ?", ("Écorce", "Eau"))


def test_what_was_translated_is_kept(madlad, tmp_path, monkeypatch):
    wanted = [Wanted(SOURCE, "fr")]
    kept = tmp_path / "answers.jsonl"
    first = list(SequenceTranslator(settings(madlad), kept).translate(wanted))
    again = SequenceTranslator(settings(madlad, batch_texts=1), kept)
    monkeypatch.setattr(again, "_model", lambda *_: pytest.fail("loaded for nothing"))
    assert list(again.translate(wanted)) == first


def test_a_further_attempt_takes_another_beam(madlad, tmp_path):
    translator = SequenceTranslator(settings(madlad), tmp_path / "answers.jsonl")
    first, second = (next(translator.translate([Wanted(SOURCE, "fr", attempt=n)])) for n in (0, 1))
    assert first.raw != second.raw


def test_a_text_that_is_too_long_fails_and_is_not_cut(madlad, tmp_path):
    translator = SequenceTranslator(settings(madlad, max_tokens=16), tmp_path / "answers.jsonl")
    long = Parts("Which tea " * 20, ("Bark", "Water"))
    (candidate,) = translator.translate([Wanted(long, "fr")])
    assert candidate.parts is None
    assert "too long" in candidate.faults[0]


def test_a_language_that_the_model_cannot_be_told_is_refused(madlad, tmp_path):
    translator = SequenceTranslator(settings(madlad), tmp_path / "answers.jsonl")
    with pytest.raises(ModelError, match="has no token for ru"):
        list(translator.translate([Wanted(SOURCE, "ru")]))


def test_a_model_for_one_pair_is_found_by_its_path(madlad, tmp_path):
    (tmp_path / "pair-en-fr").symlink_to(madlad)
    path = tmp_path / "pair-{source}-{language}"
    translator = SequenceTranslator(settings(path), tmp_path / "answers.jsonl")
    (candidate,) = translator.translate([Wanted(SOURCE, "fr")])
    assert candidate.parts == Parts("Quel thé ?", ("Écorce", "Eau"))
    with pytest.raises(InputError, match="pair-en-de"):
        list(translator.translate([Wanted(SOURCE, "de")]))


def test_a_model_that_does_not_translate_is_refused(tiny_model, tmp_path):
    translator = SequenceTranslator(settings(tiny_model), tmp_path / "answers.jsonl")
    with pytest.raises(ModelError, match="is no sequence-to-sequence model"):
        list(translator.translate([Wanted(SOURCE, "fr")]))


def test_a_part_is_translated_sentence_by_sentence(madlad, tmp_path):
    source = Parts("Which tea? Rest\nBark", ("Water", "Rest"))
    translator = SequenceTranslator(settings(madlad), tmp_path / "answers.jsonl")
    (candidate,) = translator.translate([Wanted(source, "fr")])
    assert candidate.parts == Parts("Quel thé ? Repos\nÉcorce", ("Eau", "Repos"))


def test_each_text_is_translated_once(madlad, tmp_path, monkeypatch):
    translator = SequenceTranslator(settings(madlad), tmp_path / "answers.jsonl")
    model, asked = translator._model("en", "fr"), []
    true = model.translate
    monkeypatch.setattr(model, "translate", lambda texts, n: asked.extend(texts) or true(texts, n))
    monkeypatch.setattr(model, "keeps_lines", lambda: False)
    twice = [Wanted(SOURCE, "fr"), Wanted(Parts("Which tea?", ("Water", "Bark")), "fr")]
    first, second = translator.translate(twice)
    assert first.parts == Parts("Quel thé ?", ("Écorce", "Eau"))
    assert second.parts == Parts("Quel thé ?", ("Eau", "Écorce"))
    assert sorted(asked) == ["Bark", "Water", "Which tea?"]


def test_pickled_weights_are_read_only_where_that_is_allowed(madlad, tmp_path):
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    folder.mkdir()
    for file in madlad.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(madlad / "model.safetensors"), folder / "pytorch_model.bin")
    kept = tmp_path / "answers.jsonl"
    with pytest.raises(ModelError, match=r"has only pickled weights.*--allow-pickle"):
        list(SequenceTranslator(settings(folder), kept).translate([Wanted(SOURCE, "fr")]))
    allowed = settings(folder, allow_pickle=True)
    (candidate,) = SequenceTranslator(allowed, kept).translate([Wanted(SOURCE, "fr")])
    assert candidate.parts == Parts("Quel thé ?", ("Écorce", "Eau"))


class _Harm:
    def __reduce__(self):
        return (print, ("this ran",))


def test_code_in_pickled_weights_does_not_run(madlad, tmp_path, capsys):
    folder = tmp_path / "harmful"
    folder.mkdir()
    for file in madlad.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    torch.save({"shared.weight": _Harm()}, folder / "pytorch_model.bin")
    translator = SequenceTranslator(settings(folder, allow_pickle=True), tmp_path / "a.jsonl")
    with pytest.raises(ModelError, match="is no sequence-to-sequence model"):
        list(translator.translate([Wanted(SOURCE, "fr")]))
    assert "this ran" not in capsys.readouterr().out


def test_m2m_100_is_told_the_language_and_its_code_is_no_word(tmp_path):
    """Its tokenizer needs sentencepiece, and does not list the languages in its vocabulary."""
    sentencepiece = pytest.importorskip("sentencepiece")
    import json

    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

    text = tmp_path / "text.txt"
    text.write_text("\n".join([*PAIRS, *PAIRS.values()] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "s"), vocab_size=40, hard_vocab_limit=False, minloglevel=2,
        bos_id=0, pad_id=1, eos_id=2, unk_id=3,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(str(tmp_path / "s.model"))
    vocabulary = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    (tmp_path / "v.json").write_text(json.dumps(vocabulary))
    tokenizer = M2M100Tokenizer(str(tmp_path / "v.json"), str(tmp_path / "s.model"))
    size = max(tokenizer.lang_token_to_id.values()) + 1
    config = M2M100Config(
        vocab_size=size, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
        pad_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    M2M100ForConditionalGeneration(config).save_pretrained(tmp_path / "m2m")
    tokenizer.save_pretrained(tmp_path / "m2m")
    translator = SequenceTranslator(settings(tmp_path / "m2m"), tmp_path / "answers.jsonl")
    (candidate,) = translator.translate([Wanted(SOURCE, "fr")])
    assert "__fr__" not in candidate.raw
    assert translator._model("en", "fr")._steering.first_token == "__fr__"
