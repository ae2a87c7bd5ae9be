"""The ``translations`` artefact: questions in further languages, as tasks that the benchmark reads.

    <task>/task.yaml                  the task, its licence, and who translated it
    <task>/<language>/test.jsonl      what was translated without a fault
    <task>/<language>/train.jsonl     worked examples, if any were asked for
    translations.parquet              records.Translation: every question, failed ones with their faults

Reads nothing but what translators kept, and writes the artefact; knows nothing about what the
translators are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from biomistral import artifacts, versions
from biomistral.artifacts import Origin
from biomistral.errors import ModelError
from biomistral.progress import Progress, ignore
from biomistral.recipe.endpoints import EndpointModel
from biomistral.recipe.translating import SOURCE_LANGUAGE, TranslateSettings
from biomistral.records import Question, Task, Translation, write_records
from biomistral.translation.checks import faults
from biomistral.translation.parts import Parts
from biomistral.translation.wanted import Candidate, Translator, Wanted

TRANSLATIONS = "translations.parquet"
GOOD = ("translated", "accepted", "edited")
ANSWERS = "answers.jsonl"


def translate_questions(
    settings: TranslateSettings,
    asked: Mapping[Task, Sequence[Question]],
    out: Path,
    *,
    origin: Origin | None = None,
    progress: Progress = ignore,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Translate English questions and return ``out``, the artefact.

    A question is tried until no fault is found, ``settings.attempts`` times at most; one that still
    has faults is listed with them and is in no file of questions. ``tell`` is given the estimate of
    what an endpoint will cost before it is asked. What a translator gave is kept in the folder
    ``<out>.answers``, so an interrupted run, or one with more languages, asks for nothing twice.

    Raises ``ModelError`` if the endpoint refuses, if the estimate is above ``max_cost``, or if not
    one question could be translated.
    """
    origin = origin or origin_of(settings, asked)
    with artifacts.create(out, origin) as draft:
        translator = load_translator(settings, out.with_name(f"{out.name}.answers"))
        questions = [question for group in asked.values() for question in group]
        first = [
            Wanted(Parts.of(q), language) for language in settings.languages for q in questions
        ]
        if expected := translator.estimate(first):
            tell(f"{expected} (first attempts; up to {settings.attempts} where there are faults)")
        done: list[Translation] = []
        for language in settings.languages:
            done += _translate(questions, language, translator, settings.attempts, progress)
        if not any(each.state in GOOD for each in done):
            raise ModelError(
                f"translation: none of {len(done)} questions came back without a fault, the first "
                f"with: {'; '.join(done[0].faults)}; is {translator.name} a model that translates?"
            )
        write_translations(draft.folder, done, list(asked), translator.name)
        draft.counts.update(count(done))
        draft.not_deterministic = (
            "" if _is_local(settings) else "a served model may answer otherwise"
        )
    return out


def write_translations(
    folder: Path, done: Sequence[Translation], tasks: Sequence[Task], translator: str
) -> None:
    """Write the files of the artefact; ``done`` is all of it, good or not."""
    write_records(folder / TRANSLATIONS, done, Translation)
    for task in tasks:
        good = [each for each in done if each.task == task.name and each.state in GOOD]
        languages = list(dict.fromkeys(each.language for each in good if each.split == "test"))
        if not languages:
            continue
        place = folder / task.name
        place.mkdir()
        description = {
            "name": task.name,
            "title": task.title,
            "group": task.group,
            "source": f"{task.source}; translated by {translator}",
            "licence": task.licence,
            "languages": languages,
            "note": "machine translation of the English questions; those with faults are left out",
        }
        text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
        (place / "task.yaml").write_text(text, encoding="utf-8")
        for language in languages:
            (place / language).mkdir()
            for split in ("train", "test"):
                rows = [
                    e
                    for e in good
                    if e.language == language and (e.split == "test") == (split == "test")
                ]
                _write_rows(place / language / f"{split}.jsonl", rows)


def count(done: Sequence[Translation]) -> dict[str, Any]:
    """Return how many questions of each task and language are in each state."""
    found = Counter((each.task, each.language, each.state) for each in done)
    counts: dict[str, Any] = {}
    for (task, language, state), number in sorted(found.items()):
        counts.setdefault(task, {}).setdefault(language, {})[state] = number
    return {"translations": counts} if counts else {}


def origin_of(settings: TranslateSettings, asked: Mapping[Task, Sequence[Question]]) -> Origin:
    """What the translations are made from: how, and the very texts."""
    values = settings.model_dump(mode="json")
    if isinstance(settings.translator, EndpointModel):
        values["translator"] = settings.translator.of_answers()
    texts = [
        [task.name, question.id, question.stem, *question.choices, question.context]
        for task, questions in asked.items()
        for question in questions
    ]
    inputs = {"questions": artifacts.digest_of(texts)}
    version = versions.STEP_VERSIONS["translate"]
    return Origin("translations", "translations", values, inputs, version)


def load_translator(settings: TranslateSettings, answers: Path) -> Translator:
    """Return who translates; what it gives is kept in the folder ``answers``."""
    if isinstance(settings.translator, EndpointModel):
        from biomistral.translation.asking import EndpointTranslator

        return EndpointTranslator(settings.translator, answers / ANSWERS)
    from biomistral.translation.sequence import SequenceTranslator

    return SequenceTranslator(settings.translator, answers / ANSWERS)


def _is_local(settings: TranslateSettings) -> bool:
    return not isinstance(settings.translator, EndpointModel)


def _translate(
    questions: Sequence[Question],
    language: str,
    translator: Translator,
    attempts: int,
    progress: Progress,
) -> Iterator[Translation]:
    """Translate into one language, in rounds: each asks again for what had faults in the last."""
    found: dict[int, tuple[Candidate, list[str], int]] = {}
    due = list(range(len(questions)))
    for attempt in range(attempts):
        wanted = [_wanted(questions[i], language, attempt, found.get(i)) for i in due]
        what = f"questions into {language}" + (f", attempt {attempt + 1}" if attempt else "")
        given = translator.translate(wanted, _teller(progress, len(due), what))
        for index, candidate in zip(due, given, strict=True):
            wrong = list(candidate.faults)
            if candidate.parts is not None:
                wrong += faults(Parts.of(questions[index]), candidate.parts, language)
            found[index] = (candidate, wrong, attempt + 1)
        due = [index for index in due if found[index][1]]
        if not due:
            break
    for index, question in enumerate(questions):
        yield _translation(question, language, *found[index])


def _teller(progress: Progress, total: int, what: str) -> Callable[[int], None]:
    return lambda done: progress(done, total, what)


def _wanted(
    question: Question,
    language: str,
    attempt: int,
    last: tuple[Candidate, list[str], int] | None,
) -> Wanted:
    source = Parts.of(question)
    if last is None:
        return Wanted(source, language)
    candidate, wrong, _ = last
    return Wanted(source, language, SOURCE_LANGUAGE, attempt, tuple(wrong), candidate.raw)


def _translation(
    question: Question, language: str, candidate: Candidate, wrong: Sequence[str], attempts: int
) -> Translation:
    parts = candidate.parts or Parts("", ())
    return Translation(
        question_id=question.id,
        task=question.task,
        language=language,
        split=question.split,
        gold=question.gold,
        state="failed" if wrong else "translated",
        attempts=attempts,
        faults=tuple(wrong),
        source_stem=question.stem,
        source_choices=question.choices,
        source_context=question.context,
        stem=parts.stem,
        choices=parts.choices,
        context=parts.context,
    )


def _write_rows(path: Path, rows: Sequence[Translation]) -> None:
    if not rows:
        return
    with path.open("w", encoding="utf-8") as stream:
        for each in rows:
            row: dict[str, Any] = {"id": each.question_id, "stem": each.stem}
            row |= {"choices": list(each.choices), "gold": each.gold}
            if each.context:
                row["context"] = each.context
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
