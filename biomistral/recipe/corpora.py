"""Settings of a corpus: what may be written under ``corpus`` in a recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from biomistral.languages import LANGUAGES
from biomistral.recipe.fields import Distinct, Fraction, LanguageCode, Licence, Name, Settings

Kept = Literal["tables", "captions", "formulas", "citations", "references", "back_matter"]


class CorpusSettings(Settings):
    """Articles or plain text to packed rows of tokens."""

    name: Name = Field("corpus", description="Name of the tokens it makes.")
    articles: list[str] = Field(
        default_factory=list,
        description="Folders or glob patterns of JATS or NLM XML: files (.xml, .nxml, each also .gz), "
        "objects of PubMed Central (PMC1.1.xml with PMC1.1.json beside it), packages (.tar.gz, with "
        "their .csv file list beside them).",
    )
    texts: list[str] = Field(
        default_factory=list,
        description="Folders or glob patterns of plain text: .txt, one document a file, or .jsonl "
        "and .parquet with a text (and optionally id, language, licence, title) per line or row.",
    )
    text_column: str = Field(
        "text", min_length=1, description="Field of .jsonl, column of .parquet that holds the text."
    )
    keep: Distinct[Kept] = Field(
        default_factory=list,
        description="What of articles is kept besides the running text: tables (a line a row), "
        "captions, formulas (TeX), citations (marks as they stand), references, back_matter "
        "(acknowledgements, funding, notes, appendices).",
    )
    licences: list[Licence] = Field(
        default=["CC0", "CC-BY", "CC-BY-SA", "CC-BY-ND"],
        description="Licences of articles that may enter; an unclear licence never does.",
    )
    languages: list[LanguageCode] = Field(
        default=list(LANGUAGES), description="Languages of documents that may enter."
    )
    minimum_words: int = Field(
        50, ge=0, description="Shorter documents are dropped (for zh: two characters a word)."
    )
    tokenizer: str | None = Field(
        None,
        description="Model whose tokenizer is used; by default the one declared under models that "
        "the training on this corpus goes back to.",
    )
    sequence_length: int = Field(2048, ge=16, description="Length of a row, in tokens.")
    packing: Literal["best_fit", "concatenate"] = Field(
        "best_fit",
        description="best_fit cuts no document that fits into a row (arXiv 2404.10830); "
        "concatenate joins all and cuts at the row length, as published.",
    )
    exclude_overlap_with: Literal["benchmark"] | None = Field(
        None,
        description="benchmark: drop documents that share 13 words in a row with a test question "
        "of this recipe's evaluation.",
    )
    held_out_fraction: Fraction = Field(
        0.0, description="Share of the documents kept apart, to measure perplexity on."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_pattern_is_a_list(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = dict(value)
            for key in ("articles", "texts"):
                if isinstance(value.get(key), str):
                    value[key] = [value[key]]
        return value

    @model_validator(mode="after")
    def _has_a_source(self) -> CorpusSettings:
        if not self.articles and not self.texts:
            raise ValueError("names no source; give articles, texts or both")
        return self
