"""The settings of each step: what may be written in a recipe, with meaning, unit and range.

One class per kind of entry; the text of each field is what ``biomistral recipe explain`` and
``docs/recipe.md`` print. Knows nothing about files, names of other entries or the order of steps.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from biomistral.recipe.corpora import CorpusSettings, LanguageMix
from biomistral.recipe.endpoints import EndpointModel
from biomistral.recipe.fields import (
    LanguageCode,
    Licence,
    Name,
    Settings,
)
from biomistral.recipe.measuring import (
    BenchmarkSettings,
    EnsembleSettings,
    EvaluateSettings,
    HubDataset,
)
from biomistral.recipe.merging import (
    DareMerge,
    FilteredValue,
    LinearMerge,
    MergeInput,
    MergeSettings,
    Parameter,
    SlerpMerge,
    SparseInput,
    TaskArithmeticMerge,
    TiesMerge,
    WeightedInput,
    parameter_numbers,
)
from biomistral.recipe.models import (
    Architecture,
    FreshModel,
    ModelSource,
    StoredModel,
    TokenizerTraining,
)
from biomistral.recipe.quantizing import (
    AwqQuantization,
    BitsandbytesQuantization,
    GgufQuantization,
    HalfPrecision,
    QuantizeSettings,
)
from biomistral.recipe.training import MixedCorpus, PretrainSettings
from biomistral.recipe.tuning import DpoSettings, SftSettings

__all__ = [
    "Architecture",
    "AwqQuantization",
    "BenchmarkSettings",
    "BitsandbytesQuantization",
    "CorpusSettings",
    "DareMerge",
    "DpoSettings",
    "EndpointModel",
    "EnsembleSettings",
    "EvaluateSettings",
    "FilteredValue",
    "FreshModel",
    "GgufQuantization",
    "HalfPrecision",
    "HubDataset",
    "LanguageCode",
    "LanguageMix",
    "Licence",
    "LinearMerge",
    "MergeInput",
    "MergeSettings",
    "MixedCorpus",
    "ModelSource",
    "Name",
    "Parameter",
    "PretrainSettings",
    "QuantizeSettings",
    "Recipe",
    "Settings",
    "SftSettings",
    "SlerpMerge",
    "SparseInput",
    "StoredModel",
    "TaskArithmeticMerge",
    "TiesMerge",
    "TokenizerTraining",
    "WeightedInput",
    "parameter_numbers",
]


class Recipe(Settings):
    """One run: models, and the steps that make more models, questions, scores and a report."""

    name: Name = Field(description="Name of the run; its folder below --out.")
    seed: int = Field(42, ge=0, description="Seed of every step that does not name its own.")
    models: dict[Name, ModelSource] = Field(
        default_factory=dict, description="Models to start from, by name."
    )
    corpus: list[CorpusSettings] = Field(
        default_factory=list, description="Corpora; a single one may be written without a list."
    )
    pretrain: list[PretrainSettings] = Field(default_factory=list, description="Training runs.")
    sft: list[SftSettings] = Field(default_factory=list, description="Fine-tuned models.")
    dpo: list[DpoSettings] = Field(default_factory=list, description="Models tuned on preferences.")
    merge: list[MergeSettings] = Field(default_factory=list, description="Merged models.")
    quantize: list[QuantizeSettings] = Field(default_factory=list, description="Quantized models.")
    benchmark: BenchmarkSettings = Field(
        BenchmarkSettings(), description="Source of the questions."
    )
    evaluate: EvaluateSettings | None = Field(None, description="What is measured on what.")

    @model_validator(mode="before")
    @classmethod
    def _one_corpus_is_a_list(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("corpus"), dict):
            value = {**value, "corpus": [value["corpus"]]}
        return value
