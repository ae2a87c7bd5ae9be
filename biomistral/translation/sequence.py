"""Translation with a sequence-to-sequence model of Transformers, on this machine.

These models translate sentences, not objects, and have no room for instructions. So the parts of a
question go in one text, a line each, which most of them give back line by line; where the lines
that come back are not as many, the parts are translated one by one. A further attempt takes the
next of the best beams. What a model is told about languages differs by its family and is found in its
vocabulary: NLLB (fra_Latn), mBART (fr_XX), M2M-100 (__fr__), MADLAD (<2fr>), Opus-MT (>>fra<<).

Knows nothing about which faults there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral import artifacts
from biomistral.errors import InputError, ModelError
from biomistral.models.endpoints.answers import Answers
from biomistral.models.hub import local_folder
from biomistral.recipe.translating import SequenceModel
from biomistral.translation.parts import Parts
from biomistral.translation.wanted import Candidate, Wanted

# Codes of languages in NLLB (FLORES-200), mBART-50 and the multilingual models of Opus-MT (ISO 639-3).
_FLORES = {
    "en": "eng_Latn",
    "fr": "fra_Latn",
    "es": "spa_Latn",
    "pt": "por_Latn",
    "de": "deu_Latn",
    "ru": "rus_Cyrl",
    "zh": "zho_Hans",
    "ar": "arb_Arab",
}
_MBART = {
    "en": "en_XX",
    "fr": "fr_XX",
    "es": "es_XX",
    "pt": "pt_XX",
    "de": "de_DE",
    "ru": "ru_RU",
    "zh": "zh_CN",
    "ar": "ar_AR",
}
_OPUS = {
    "en": ">>eng<<",
    "fr": ">>fra<<",
    "es": ">>spa<<",
    "pt": ">>por<<",
    "de": ">>deu<<",
    "ru": ">>rus<<",
    "zh": ">>cmn_Hans<<",
    "ar": ">>ara<<",
}


@dataclass(frozen=True)
class Steering:
    """How a model is told the languages."""

    prefix: str = ""  # before each text
    source_code: str = ""  # for the tokenizer
    first_token: str = ""  # that the translation must begin with


class SequenceTranslator:
    """Translates with a model of this machine; what it gave is kept in a file of JSON lines."""

    def __init__(self, settings: SequenceModel, answers: Path) -> None:
        self.name = Path(settings.path).name.replace("{source}", "S").replace("{language}", "L")
        self._settings = settings
        self._answers = Answers(answers)
        self._loaded: tuple[str, _Loaded] | None = None

    def estimate(self, _wanted: Sequence[Wanted]) -> str:
        """Say nothing: only time is spent here."""
        return ""

    def translate(
        self, wanted: Sequence[Wanted], done: Callable[[int], None] = lambda _: None
    ) -> Iterator[Candidate]:
        """Yield a candidate for each, in order, a batch at a time; the languages need a model each."""
        size = self._settings.batch_texts
        for start in range(0, len(wanted), size):
            batch = wanted[start : start + size]
            yield from self._batch(batch)
            done(start + len(batch))

    def _batch(self, wanted: Sequence[Wanted]) -> Iterator[Candidate]:
        together = self._texts([(each.source.joined(), each) for each in wanted])
        for each, text in zip(wanted, together, strict=True):
            parts = _split(text, each.source)
            if parts is None:
                given = [(source, each) for _, source in each.source.texts()]
                parts = _of_texts(self._texts(given), each.source)
            yield parts

    def _texts(self, given: Sequence[tuple[str, Wanted]]) -> list[str]:
        """Translate texts, each as far as it is not kept."""
        keys = [self._key(text, item) for text, item in given]
        missing = [index for index, key in enumerate(keys) if key not in self._answers]
        by_pair: dict[tuple[str, str], list[int]] = {}
        for index in missing:
            item = given[index][1]
            by_pair.setdefault((item.source_language, item.language), []).append(index)
        for pair, indices in by_pair.items():
            model = self._model(*pair)
            attempts = [given[index][1].attempt for index in indices]
            found = model.translate([given[index][0] for index in indices], attempts)
            for index, text in zip(indices, found, strict=True):
                self._answers.add(keys[index], text)
        return [self._answers[key] for key in keys]

    def _key(self, text: str, wanted: Wanted) -> str:
        settings = self._settings.model_dump(mode="json", exclude={"batch_texts"})
        pair = [wanted.source_language, wanted.language]
        return artifacts.digest_of([settings, text, *pair, wanted.attempt])

    def _model(self, source: str, language: str) -> _Loaded:
        path = self._settings.path.replace("{source}", source).replace("{language}", language)
        if self._loaded is None or self._loaded[0] != path:
            self._loaded = None  # the memory of one model at a time
            self._loaded = (path, _Loaded(path, self._settings))
        self._loaded[1].steer(source, language, named_in_path=path != self._settings.path)
        return self._loaded[1]


class _Loaded:
    """One model and its tokenizer, told into which language to translate."""

    def __init__(self, path: str, settings: SequenceModel) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        from biomistral.models.loading import pick_device, quiet_transformers

        folder = local_folder(path, settings.revision)
        if not folder.is_dir():
            raise InputError(f"{path}: there is no such model folder")
        self._settings = settings
        self._device = pick_device()
        with quiet_transformers():
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
                self._model = AutoModelForSeq2SeqLM.from_pretrained(
                    folder,
                    dtype=getattr(torch, settings.precision),
                    trust_remote_code=False,
                    use_safetensors=True,
                )
            except (OSError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise ModelError(
                    f"{path}: is no sequence-to-sequence model that Transformers can load "
                    f"({reason:.200}); name one such as facebook/nllb-200-distilled-600M"
                ) from None
        self._path = path
        self._model.to(self._device).eval()
        self._steering = Steering()

    def steer(self, source: str, language: str, *, named_in_path: bool) -> None:
        """Prepare for a language. Raises ``ModelError`` if the model cannot be told it."""
        found = steering(self._tokenizer.get_vocab(), source, language)
        if found is None and not named_in_path:
            raise ModelError(
                f"{self._path}: has no token for {language}, so it cannot be told to translate into "
                "it; name a model that has, or with {language} in path a model for each language"
            )
        self._steering = found or Steering()
        if self._steering.source_code:
            self._tokenizer.src_lang = self._steering.source_code

    def translate(self, texts: Sequence[str], attempts: Sequence[int]) -> list[str]:
        """Translate texts; of each the beam that its attempt takes. Too long a text gives ''."""
        import torch

        prefixed = [self._steering.prefix + text for text in texts]
        lengths = [len(ids) for ids in self._tokenizer(prefixed)["input_ids"]]
        fits = [i for i, length in enumerate(lengths) if length <= self._settings.max_tokens]
        results = [""] * len(texts)
        if not fits:
            return results
        inputs = self._tokenizer([prefixed[i] for i in fits], padding=True, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        num_kept = min(max(attempts) + 1, self._settings.beams)
        first = self._steering.first_token
        with torch.inference_mode():
            generated = self._model.generate(
                **inputs.to(self._device),
                num_beams=self._settings.beams,
                num_return_sequences=num_kept,
                max_new_tokens=self._settings.max_tokens,
                do_sample=False,
                **({"forced_bos_token_id": self._id(first)} if first else {}),
            )
        found = self._tokenizer.batch_decode(generated, skip_special_tokens=True)
        for place, index in enumerate(fits):
            beam = min(attempts[index], num_kept - 1)
            results[index] = found[place * num_kept + beam].strip()
        return results

    def _id(self, token: str) -> int:
        found: Any = self._tokenizer.convert_tokens_to_ids(token)
        return int(found)


def steering(vocabulary: dict[str, Any], source: str, language: str) -> Steering | None:
    """Return how a model with this vocabulary is told the language; None if it cannot be."""
    if _FLORES[language] in vocabulary:
        return Steering("", _FLORES[source], _FLORES[language])
    if _MBART[language] in vocabulary:
        return Steering("", _MBART[source], _MBART[language])
    if f"__{language}__" in vocabulary:
        return Steering("", source, f"__{language}__")
    if f"<2{language}>" in vocabulary:
        return Steering(f"<2{language}> ")
    for token in (_OPUS[language], f">>{language}<<"):
        if token in vocabulary:
            return Steering(f"{token} ")
    return None


def _split(text: str, source: Parts) -> Candidate | None:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    due = source.joined().split("\n")
    # A part may have lines of its own; then there is no telling where it ends.
    if len(lines) != len(due) or len(due) != len(list(source.texts())):
        return None
    return _of_texts(lines, source)


def _of_texts(texts: Sequence[str], source: Parts) -> Candidate:
    """Put texts in the order of ``Parts.texts`` together."""
    raw = "\n".join(texts)
    if not all(text.strip() for text in texts):
        return Candidate(None, raw, ["a part came back empty, or was too long for the model"])
    context, rest = (texts[0], texts[1:]) if source.context else ("", texts)
    return Candidate(Parts(rest[0], tuple(rest[1:]), context), raw)
