"""Translation with a sequence-to-sequence model of Transformers, on this machine.

These models translate sentences, not objects, and have no room for instructions. So the parts of a
question go in one text, a line each, where the tokenizer knows the end of a line and the model gives
it back; else they are translated one by one, sentence by sentence, for most of these models drop what
comes after the first. A further attempt takes the next of the best beams.

Knows nothing about which faults there are.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from biomistral import artifacts
from biomistral.errors import MissingDependencyError, ModelError
from biomistral.models.endpoints.answers import Answers
from biomistral.models.hub import local_folder
from biomistral.recipe.translating import SequenceModel
from biomistral.translation.families import Steering, steering
from biomistral.translation.parts import Parts
from biomistral.translation.sentences import join_sentences, split_sentences
from biomistral.translation.wanted import Candidate, Wanted


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
        together = self._together(wanted)
        apart = iter(
            self._apart(
                [each for each, whole in zip(wanted, together, strict=True) if whole is None]
            )
        )
        for whole in together:
            yield whole if whole is not None else next(apart)

    def _together(self, wanted: Sequence[Wanted]) -> list[Candidate | None]:
        """Translate all parts of each question as one text; None where they do not come back."""
        if not all(self._keeps_lines(each) for each in wanted):
            return [None] * len(wanted)
        texts = self._texts([(each.source.joined(), each) for each in wanted])
        return [_split(text, each.source) for text, each in zip(texts, wanted, strict=True)]

    def _apart(self, wanted: Sequence[Wanted]) -> Iterator[Candidate]:
        """Translate each part of each question by itself, sentence by sentence."""
        cut = [[split_sentences(text) for _, text in each.source.texts()] for each in wanted]
        given = [
            (sentence, each)
            for each, parts in zip(wanted, cut, strict=True)
            for sentences, _ in parts
            for sentence in sentences
        ]
        translated = iter(self._texts(given))
        for each, parts in zip(wanted, cut, strict=True):
            texts = []
            for sentences, between in parts:
                own = [next(translated) for _ in sentences]
                # Nothing rather than a text with a hole.
                texts.append(join_sentences(own, between, each.language) if all(own) else "")
            yield _of_texts(texts, each.source)

    def _keeps_lines(self, wanted: Wanted) -> bool:
        """Whether the tokenizer knows the end of a line; kept, so that nothing is loaded for it."""
        settings = self._settings.model_dump(mode="json", include={"path", "revision"})
        pair = [wanted.source_language, wanted.language]
        key = artifacts.digest_of(["keeps lines", settings, *pair])
        if key not in self._answers:
            self._answers.add(key, self._model(*pair).keeps_lines())
        return bool(self._answers[key])

    def _texts(self, given: Sequence[tuple[str, Wanted]]) -> list[str]:
        """Translate texts, each once and only if it is not kept, those of like length together."""
        keys = [self._key(text, item) for text, item in given]
        missing = {
            key: (text, item)
            for key, (text, item) in zip(keys, given, strict=True)
            if key not in self._answers
        }
        by_pair: dict[tuple[str, str], list[str]] = {}
        for key in sorted(missing, key=lambda key: len(missing[key][0])):
            item = missing[key][1]
            by_pair.setdefault((item.source_language, item.language), []).append(key)
        size = self._settings.batch_texts
        for pair, due in by_pair.items():
            model = self._model(*pair)
            for start in range(0, len(due), size):
                batch = [missing[key] for key in due[start : start + size]]
                found = model.translate([t for t, _ in batch], [item.attempt for _, item in batch])
                for key, text in zip(due[start : start + size], found, strict=True):
                    self._answers.add(key, text)
        return [self._answers[key] for key in keys]

    def _key(self, text: str, wanted: Wanted) -> str:
        settings = self._settings.model_dump(mode="json", exclude={"batch_texts", "allow_pickle"})
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

        folder = local_folder(path, settings.revision, allow_pickle=settings.allow_pickle)
        _check_weights(folder, path, allow_pickle=settings.allow_pickle)
        self._settings = settings
        self._device = pick_device()
        with quiet_transformers():
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
                self._model = AutoModelForSeq2SeqLM.from_pretrained(
                    folder,
                    dtype=getattr(torch, settings.precision),
                    trust_remote_code=False,
                    # Pickled weights are read as numbers alone: no code in them runs.
                    use_safetensors=None if settings.allow_pickle else True,
                    weights_only=True,
                )
            except ImportError as error:
                raise MissingDependencyError(
                    f"{path}: its tokenizer needs a library that is not installed "
                    f"({' '.join(str(error).split()):.100}); run: pip install "
                    "'biomistral[translation]'"
                ) from None
            except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
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
        found = steering(self._knows, source, language)
        if found is None and not named_in_path:
            raise ModelError(
                f"{self._path}: has no token for {language}, so it cannot be told to translate into "
                "it; name a model that has, or with {language} in path a model for each language"
            )
        self._steering = found or Steering()
        if self._steering.source_code:
            self._tokenizer.src_lang = self._steering.source_code

    def keeps_lines(self) -> bool:
        """Whether the end of a line is a token of its own, and not a blank or unknown."""
        return "\n" in self._tokenizer.decode(
            self._tokenizer("a\na")["input_ids"], skip_special_tokens=True
        )

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
            # Not every tokenizer counts the codes of languages as special.
            results[index] = found[place * num_kept + beam].strip().removeprefix(first).strip()
        return results

    def _knows(self, token: str) -> bool:
        # The vocabulary that M2M-100 lists does not have the languages it knows.
        return self._tokenizer.convert_tokens_to_ids(token) not in (
            None,
            self._tokenizer.unk_token_id,
        )

    def _id(self, token: str) -> int:
        found: Any = self._tokenizer.convert_tokens_to_ids(token)
        return int(found)


def _check_weights(folder: Path, path: str, *, allow_pickle: bool) -> None:
    if any(folder.glob("*.safetensors")) or allow_pickle or not any(folder.glob("*.bin")):
        return
    raise ModelError(
        f"{path}: has only pickled weights, and a pickle can run any code when it is opened; allow "
        "it with --allow-pickle (translator.allow_pickle: true), which reads them as plain numbers "
        "and runs no code, or name a model with safetensors"
    )


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
