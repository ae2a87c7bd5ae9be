"""BioInstructQA, the benchmark as the BioMistral paper published it (arXiv 2402.10373).

    base/overall_{train,validation,test}+prompt.json   all ten tasks, English
    langs_processed/<Language>-full.json               their test questions, translated

One file holds all tasks (``corpus_name``). Each record brings three sets of worked examples
(``few_shot_samples[1]`` to ``[3]``, the paper's three seeds), in English everywhere. Knows no
folders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from biomistral.benchmark.parsing import (
    JsonObject,
    Loaded,
    Place,
    Spot,
    as_object,
    index_of_letter,
    json_list,
    question_of,
    text_of,
    texts_of,
)
from biomistral.benchmark.tasks import FALLBACK_LANGUAGE, FilePatterns
from biomistral.languages import LANGUAGES
from biomistral.records import Question

_MMLU = ("clinical_knowledge", "medical_genetics", "anatomy")
_MMLU_MORE = ("professional_medicine", "college_biology", "college_medicine")
CORPORA = {
    **{f"mmlu_{subject}": f"MMLU_{subject}" for subject in (*_MMLU, *_MMLU_MORE)},
    "medqa": "MedQA",
    "medqa_5_options": "MedQA-5_options",
    "pubmedqa": "PubMedQA",
    "medmcqa": "MedMCQA",
}
STORED_SEEDS = (1, 2, 3)


def patterns() -> Iterator[FilePatterns]:
    """Yield where the release has its files, the same for all ten tasks."""

    def base(split: str) -> tuple[str, ...]:
        return (f"*/base/overall_{split}+prompt.json",)

    yield FilePatterns(
        FALLBACK_LANGUAGE,
        "bioinstructqa",
        test=base("test"),
        validation=base("validation"),
        train=base("train"),
    )
    for code, language in LANGUAGES.items():
        if code != FALLBACK_LANGUAGE:
            path = f"*/langs_processed/{language.name.lower()}-full.json"
            note = "machine translation of BioInstructQA (Apache-2.0)"
            yield FilePatterns(code, "bioinstructqa", test=(path,), note=note)


def load(text: str, place: Place) -> Loaded:
    """Read the records of one task; of the translated files, the translated texts."""
    suffix = "" if place.language == FALLBACK_LANGUAGE else "_translated"
    loaded = Loaded()
    examples: dict[str, Question] = {}
    for spot, record in json_list(text, place):
        if text_of(record, "corpus_name", spot) != CORPORA[place.task]:
            continue
        question = _question(record, suffix, text_of(record, "identifier", spot), spot)
        stored: list[str] = []
        for seed in STORED_SEEDS if place.split == "test" else ():
            for example in _stored(record, seed, spot):
                examples.setdefault(example.id, example)
                stored.append(f"{seed}:{example.id}")
        loaded.questions.append(replace(question, stored_shots=tuple(stored)))
    loaded.examples = list(examples.values())
    return loaded


def _question(record: JsonObject, suffix: str, question_id: str, spot: Spot) -> Question:
    options = as_object(record.get(f"options{suffix}"), spot)
    by_letter = {letter.upper(): text for letter, text in options.items()}
    letters = sorted(by_letter)
    choices = texts_of([by_letter[letter] for letter in letters], f"options{suffix}", spot)
    letter = text_of(record, "correct_answer_letter", spot).upper()
    gold = index_of_letter(letter, len(choices), spot)
    # Only the prompts of PubMedQA have a context, whatever the other records carry.
    has_context = spot.place.task == "pubmedqa" and record.get("context") is not None
    context = text_of(record, f"context{suffix}", spot) if has_context else ""
    return question_of(
        spot, question_id, text_of(record, f"question{suffix}", spot), choices, gold, context
    )


def _stored(record: JsonObject, seed: int, spot: Spot) -> Iterator[Question]:
    """Yield the stored examples of one seed; the same example has the same id everywhere."""
    samples = record.get(f"few_shot_samples[{seed}]")
    for sample in samples if isinstance(samples, list) else ():
        shown = _question(as_object(sample, spot), "", "", spot)
        key = "\0".join((shown.context, shown.stem, *shown.choices, str(shown.gold)))
        digest = hashlib.sha256(key.encode()).hexdigest()
        yield replace(shown, id=f"stored-{digest[:16]}", language=FALLBACK_LANGUAGE, split="train")
