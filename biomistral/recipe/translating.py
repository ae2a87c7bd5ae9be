"""The settings of translation: into what, by whom, and how often a failed one is tried again.

Knows nothing about how texts are translated.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from biomistral.languages import LANGUAGES
from biomistral.recipe.endpoints import EndpointModel
from biomistral.recipe.fields import Distinct, LanguageCode, Settings, without_repeats

SOURCE_LANGUAGE = "en"


class SequenceModel(Settings):
    """A sequence-to-sequence model of Transformers: NLLB, M2M-100, MADLAD, Opus-MT, mBART-50."""

    path: str = Field(
        description="Folder or hub id. Where there is a model for each language, such as Opus-MT, "
        "{source} and {language} stand for the codes: Helsinki-NLP/opus-mt-{source}-{language}."
    )
    revision: str | None = Field(None, description="Commit of the hub repository.")
    allow_pickle: bool = Field(
        False,
        description="Read pytorch_model.bin as plain numbers, running no code, where there are no "
        "safetensors: NLLB and most of Opus-MT on the hub.",
    )
    precision: Literal["bfloat16", "float32"] = Field("float32", description="Of the arithmetic.")
    beams: int = Field(4, ge=1, le=32, description="Beams of the search.")
    batch_texts: int = Field(16, ge=1, description="Texts translated at a time.")
    max_tokens: int = Field(512, ge=16, description="Longest text, in tokens; longer ones fail.")

    @model_validator(mode="after")
    def _one_revision_for_one_model(self) -> SequenceModel:
        if self.revision is not None and "{" in self.path:
            raise ValueError("revision is of one repository, and path names one for each language")
        return self


def _translator_form(value: Any) -> str:
    has = value if isinstance(value, dict) else {}
    return "served" if isinstance(value, EndpointModel) or "endpoint" in has else "local"


class TranslateSettings(Settings):
    """Questions in English to questions in further languages."""

    tasks: Annotated[Literal["all"] | list[str], AfterValidator(without_repeats)] = Field(
        "all", description="all that are there in English, or names of tasks."
    )
    languages: Distinct[LanguageCode] = Field(
        default=[code for code in LANGUAGES if code != SOURCE_LANGUAGE],
        min_length=1,
        description="Languages to translate into.",
    )
    translator: Annotated[
        Annotated[EndpointModel, Tag("served")] | Annotated[SequenceModel, Tag("local")],
        Discriminator(_translator_form),
    ] = Field(description="A model behind an endpoint, or one of Transformers.")
    attempts: int = Field(
        3, ge=1, le=10, description="Times a question is tried until no fault is found."
    )
    examples: int = Field(
        0,
        ge=0,
        description="Training questions a task to translate, too; else examples are English.",
    )
    limit: int | None = Field(None, ge=1, description="At most this many test questions a task.")

    @model_validator(mode="after")
    def _not_into_itself(self) -> TranslateSettings:
        if SOURCE_LANGUAGE in self.languages:
            raise ValueError("the questions are in en already; leave en out of languages")
        return self
