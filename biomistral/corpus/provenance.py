"""What must come with the tokens: whom the texts are from, and what the corpus is.

``ATTRIBUTION.txt`` names every article in the corpus with its authors, source and licence, as the
Creative Commons licences ask. ``DATASHEET.md`` answers the questions of Gebru et al. 2021 (arXiv 1803.09010)
that numbers and settings can answer. Knows nothing about how either is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from biomistral.advisory import ADVISORY
from biomistral.recipe.settings import CorpusSettings

ATTRIBUTION, DATASHEET = "ATTRIBUTION.txt", "DATASHEET.md"

_DEEDS = {
    "CC0": "https://creativecommons.org/publicdomain/zero/1.0/",
    **{
        name: f"https://creativecommons.org/licenses/{name.removeprefix('CC-').lower()}/"
        for name in (
            "CC-BY", "CC-BY-SA", "CC-BY-ND", "CC-BY-NC", "CC-BY-NC-SA", "CC-BY-NC-ND"
        )
    },
}  # fmt: skip

ATTRIBUTION_HEAD = """\
The texts below are in this corpus, cut into tokens and packed into rows. What does not run as text
was left out (figures, references, citation marks, notes, displayed formulas and tables, as far as
manifest.json does not say that they are kept); no word was changed. Each text is under the licence
named with it, whose terms are at the address given here and, with its version, at the article's
own. rows.parquet and documents.parquet say which row holds which text.

"""


def attribution_head(licences: Mapping[str, int]) -> str:
    """Return the first lines of ``ATTRIBUTION.txt``."""
    deeds = "".join(f"{name}: {_DEEDS[name]}\n" for name in sorted(licences) if name in _DEEDS)
    return ATTRIBUTION_HEAD + (deeds + "\n" if deeds else "")


def attribution_line(row: Mapping[str, Any]) -> str:
    """Return the line of one document of ``documents.parquet``."""
    where = ", ".join(str(row[key]) for key in ("journal", "year") if row[key])
    name, address = article_name(row), _address(row)
    name = "" if name == row["doi"] else name
    parts = dict.fromkeys((row["authors"], row["title"] or row["file"], where, name, address))
    said = ". ".join(_one_line(part) for part in parts if part).replace("?.", "?")
    return f"{said}. {row['licence'] or 'No licence given'}.\n"


def article_name(row: Mapping[str, Any]) -> str:
    """PMCID with its version where one is known, else the document's own id."""
    name = row["pmcid"] or row["id"]
    return f"{name}.{row['version']}" if row["pmcid"] and row["version"] else str(name)


def _address(row: Mapping[str, Any]) -> str:
    if row["doi"]:
        return f"https://doi.org/{row['doi']}"
    return f"https://pmc.ncbi.nlm.nih.gov/articles/{row['pmcid']}/" if row["pmcid"] else ""


def _one_line(text: object) -> str:
    return " ".join(str(text).split()).rstrip(".")


def datasheet(
    settings: CorpusSettings, counts: Mapping[str, Any], tokenizer: Mapping[str, Any]
) -> str:
    """Return ``DATASHEET.md`` from the settings, the counts of the manifest and the tokenizer."""
    sections = {
        "What it is": _what(settings, counts),
        "What is in it": _composition(counts),
        "How it was collected": _collection(settings),
        "What was left out": _left_out(counts),
        "How it was prepared": _preparation(settings, counts, tokenizer),
        "What it may be used for": _uses(),
    }
    body = "\n".join(f"## {title}\n\n{text}\n" for title, text in sections.items())
    return f"# Datasheet of the corpus {settings.name}\n\n{body}"


def _what(settings: CorpusSettings, counts: Mapping[str, Any]) -> str:
    return (
        f"{counts['documents_kept']:,} documents, {counts['words']:,} words, "
        f"{counts['tokens']:,} tokens in {counts['rows']:,} rows of {settings.sequence_length:,}, "
        f"for the continued pre-training of language models; {counts['held_out_rows']:,} of the "
        "rows are held out to measure on."
    )


def _composition(counts: Mapping[str, Any]) -> str:
    tokens = counts["tokens_by_language"]
    languages = {
        code: (f"{number:,}", f"{tokens[code]:,}") for code, number in counts["by_language"].items()
    }
    licences = {name: (f"{number:,}",) for name, number in counts["by_licence"].items()}
    return (
        _table(("language", "documents", "tokens"), languages)
        + "\n"
        + _table(("licence", "documents"), licences)
        + "\nEvery document is listed in `documents.parquet` and named in `ATTRIBUTION.txt`. Texts "
        "of journals may describe patients; they were published so, and nothing was removed."
    )


def _collection(settings: CorpusSettings) -> str:
    # Patterns may show how the maker's folders are named, which is nobody's business.
    kinds = [kind for kind, given in (("JATS or NLM articles", settings.articles), ("plain texts", settings.texts)) if given]  # fmt: skip
    return (
        f"Read from {' and '.join(kinds)}. Articles entered under these licences only: "
        f"{', '.join(settings.licences)}; an unclear licence is none. Languages: "
        f"{', '.join(settings.languages)}. `manifest.json` has all settings and digests of inputs."
    )


def _left_out(counts: Mapping[str, Any]) -> str:
    dropped = {reason: (f"{number:,}",) for reason, number in counts["dropped"].items()}
    if not dropped:
        return "Nothing."
    return _table(("reason", "documents"), dropped) + "\nThe reasons are explained in the manual."


def _preparation(
    settings: CorpusSettings, counts: Mapping[str, Any], tokenizer: Mapping[str, Any]
) -> str:
    how = "best fit" if settings.packing == "best_fit" else "concatenation"
    return (
        f"Tokenized with {tokenizer['name']} ({tokenizer['vocabulary_size']:,} tokens, vocabulary "
        f"SHA-256 `{tokenizer['sha256']}`), the end-of-text token at the true end of each document "
        f"and nowhere else. Packed by {how}; {counts['padding_fraction']:.3%} of the places are "
        "padding."
    )


def _uses() -> str:
    return (
        "Research on language models. Who passes the tokens on passes the texts on, and keeps to "
        f"the licences: keep `ATTRIBUTION.txt` with them.\n\n{ADVISORY}"
    )


def _table(heads: tuple[str, ...], rows: Mapping[str, tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" if i == 0 else "---:" for i in range(len(heads)))]
    lines += [(name, *values) for name, values in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
