"""How good translations are, as far as it can be measured without people.

    quality.parquet   records.TranslationQuality: one row a question
    totals.json       per task and language: numbers below over all questions

Translated back into English, by whoever is asked to, a question is compared with the original:
chrF (Popović, "chrF", WMT 2015) and BLEU (Papineni et al., ACL 2002) of sacrebleu, with its
signatures. Without a way back: lengths, and which of the numbers, units, genes and drugs are kept.
A high score of a back translation says that little was lost, not that it reads well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from biomistral import artifacts, versions
from biomistral.artifacts import Origin
from biomistral.errors import require
from biomistral.progress import Progress, ignore
from biomistral.recipe.translating import SOURCE_LANGUAGE
from biomistral.records import Translation, TranslationQuality, read_records, write_records
from biomistral.translation.checks import collisions
from biomistral.translation.parts import Parts
from biomistral.translation.step import GOOD, TRANSLATIONS
from biomistral.translation.terms import lost_terms, num_checked, protected_terms
from biomistral.translation.wanted import Translator, Wanted

QUALITY = "quality.parquet"
TOTALS = "totals.json"


def measure_quality(
    translations: Path,
    out: Path,
    *,
    back: Translator | None = None,
    origin: Origin | None = None,
    progress: Progress = ignore,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Measure the good translations of an artefact; return ``out``, an artefact.

    ``back`` translates into English, for chrF and BLEU. Raises ``MissingDependencyError`` if that is
    asked for without sacrebleu.
    """
    if back is not None:
        require("sacrebleu", extra="translation", purpose="comparing back translations")
    every = list(read_records(translations / TRANSLATIONS, Translation))
    good = [each for each in every if each.state in GOOD]
    inputs = {"translations": artifacts.fingerprint_of_files([translations])}
    settings = {"back": back.name if back is not None else None}
    version = versions.STEP_VERSIONS["translate"]
    origin = origin or Origin("scores", "quality", settings, inputs, version)
    with artifacts.create(out, origin) as draft:
        texts = [""] * len(good)
        if back is not None:
            texts = _translated_back(good, back, progress, tell)
        rows = [measured(each, text) for each, text in zip(good, texts, strict=True)]
        write_records(draft.folder / QUALITY, rows, TranslationQuality)
        totals = totals_of(every, rows)
        artifacts.write_json(
            draft.folder / TOTALS, {"signatures": _signatures(back), "rows": totals}
        )
        draft.not_deterministic = "a served model may answer otherwise" if back is not None else ""
    return out


def measured(each: Translation, back: str) -> TranslationQuality:
    """Measure one question; ``back`` is its translation into English, one part a line, or empty."""
    source = Parts(each.source_stem, each.source_choices, each.source_context).joined()
    translated = Parts(each.stem, each.choices, each.context).joined()
    num_terms = num_checked(protected_terms(source), each.language)
    return TranslationQuality(
        question_id=each.question_id,
        task=each.task,
        language=each.language,
        split=each.split,
        length_ratio=len(translated) / len(source),
        num_terms=num_terms,
        num_kept=num_terms - len(lost_terms(source, translated, each.language)),
        back=back,
        chrf=_chrf(back, source) if back else None,
    )


def totals_of(
    every: Sequence[Translation], rows: Sequence[TranslationQuality]
) -> list[dict[str, Any]]:
    """Return one row per task and language, of English questions in the order they came."""
    sources = {
        (e.task, e.language, e.split, e.question_id): Parts(
            e.source_stem, e.source_choices, e.source_context
        )
        for e in every
    }
    totals = []
    for task, language in dict.fromkeys((each.task, each.language) for each in every):
        asked = [e for e in every if (e.task, e.language) == (task, language)]
        own = [row for row in rows if (row.task, row.language) == (task, language)]
        with_back = [row for row in own if row.back]
        references = [
            sources[r.task, r.language, r.split, r.question_id].joined() for r in with_back
        ]
        num_terms = sum(row.num_terms for row in own)
        totals.append(
            {
                "task": task,
                "language": language,
                "questions": len(asked),
                "translated": len(own),
                "failed": sum(e.state == "failed" for e in asked),
                "reviewed": sum(e.state in ("accepted", "edited", "rejected") for e in asked),
                "collisions": sum(_collides(e) for e in asked),
                "tried_again": sum(e.attempts > 1 for e in asked),
                "length_ratio": median(row.length_ratio for row in own) if own else None,
                "terms": num_terms,
                "terms_kept": sum(row.num_kept for row in own) / num_terms if num_terms else None,
                "chrf": fmean(row.chrf or 0.0 for row in with_back) if with_back else None,
                "bleu": _bleu([row.back for row in with_back], references) if with_back else None,
            }
        )
    return totals


def read_totals(folder: Path) -> dict[str, Any]:
    """Return what ``totals.json`` of an artefact says."""
    found: dict[str, Any] = json.loads((folder / TOTALS).read_text(encoding="utf-8"))
    return found


def _collides(each: Translation) -> bool:
    """Whether options of a translation, good or not, read the same that differ in English."""
    source = Parts(each.source_stem, each.source_choices, each.source_context)
    return bool(each.stem) and any(collisions(source, Parts(each.stem, each.choices, each.context)))


def _translated_back(
    good: Sequence[Translation],
    back: Translator,
    progress: Progress,
    tell: Callable[[str], None],
) -> list[str]:
    wanted = [
        Wanted(Parts(e.stem, e.choices, e.context), SOURCE_LANGUAGE, e.language) for e in good
    ]
    if expected := back.estimate(wanted):
        tell(expected)
    given = back.translate(wanted, lambda done: progress(done, len(wanted), "questions back"))
    return [c.parts.joined() if c.parts is not None else "" for c in given]


def _chrf(text: str, reference: str) -> float:
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().sentence_score(text, [reference]).score)


def _bleu(texts: Sequence[str], references: Sequence[str]) -> float:
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU().corpus_score(list(texts), [list(references)]).score)


def _signatures(back: Translator | None) -> Mapping[str, str]:
    """How sacrebleu computed its numbers, so that others can be compared with them."""
    if back is None:
        return {}
    import sacrebleu
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    version = f"|version:{sacrebleu.__version__}"
    bleu, chrf = BLEU(), CHRF()
    return {
        "bleu": f"case:{'lc' if bleu.lowercase else 'mixed'}|tok:13a|smooth:exp{version}",
        "chrf": f"chrF{chrf.beta}|nc:{chrf.char_order}|nw:{chrf.word_order}{version}",
    }
