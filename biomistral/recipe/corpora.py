"""Settings of a corpus: what may be written under ``corpus`` in a recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from biomistral.languages import LANGUAGES
from biomistral.recipe.fields import Distinct, Fraction, LanguageCode, Licence, Name, Settings

Kept = Literal["tables", "captions", "formulas", "citations", "references", "back_matter"]


class LanguageMix(Settings):
    """Order and budget of languages. Documents that do not fit are dropped as ``over_budget``."""

    order: Literal["as_read", "others_first"] = Field(
        "as_read",
        description="others_first lays all other languages out before English, as published.",
    )
    tokens: int | None = Field(None, ge=1, description="Most tokens of the whole corpus.")
    others_share: Fraction | None = Field(
        None,
        description="Most tokens in other languages than English, as a share of all; English fills "
        "up the rest.",
    )
    temperature: float | None = Field(
        None,
        ge=1,
        description="Share the tokens out by size^(1 / temperature): 1 keeps the proportions, more "
        "lifts small languages. Needs tokens; nothing is taken twice.",
    )

    @model_validator(mode="after")
    def _one_way_to_share(self) -> LanguageMix:
        if self.temperature is not None and self.tokens is None:
            raise ValueError("temperature shares a budget out; give tokens, too")
        if self.temperature is not None and self.others_share is not None:
            raise ValueError("temperature and others_share both share tokens out; give one of them")
        return self


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
    article_types: Distinct[str] = Field(
        default_factory=list,
        description="Only articles of these types (JATS article-type, such as research-article); by "
        "default all but corrections, retractions and other notices.",
    )
    languages: list[LanguageCode] = Field(
        default=list(LANGUAGES), description="Languages of documents that may enter."
    )
    minimum_words: int = Field(
        50, ge=0, description="Shorter documents are dropped (for zh: two characters a word)."
    )
    near_duplicates: float | None = Field(
        0.65,
        gt=0,
        le=1,
        description="Drop documents that have this share of all runs of five words in common with "
        "an earlier one (0.65: about four words in a hundred edited); null looks for none.",
    )
    language_mix: LanguageMix = Field(
        LanguageMix(), description="Order and budget of languages; by default all, as read."
    )
    quality: bool = Field(
        True,
        description="Drop what is no prose: repeated lines, few letters, odd lengths of words, many "
        "hashes and ellipses (docs/corpus.md).",
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
    workers: int | None = Field(
        None,
        ge=1,
        exclude=True,
        description="Processes that read and tokenize; by default one per processor. Has no effect "
        "on the result.",
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
