"""The settings of each step: what may be written in a recipe, with meaning, unit and range.

One class per kind of entry; the text of each field is what ``biomistral recipe explain`` and
``docs/recipe.md`` print. Knows nothing about files, names of other entries or the order of steps.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from biomistral.languages import LANGUAGES
from biomistral.recipe.endpoints import EndpointModel
from biomistral.recipe.fields import (
    Fraction,
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

__all__ = [
    "Architecture",
    "AwqQuantization",
    "BenchmarkSettings",
    "BitsandbytesQuantization",
    "CorpusSettings",
    "DareMerge",
    "EndpointModel",
    "EnsembleSettings",
    "EvaluateSettings",
    "FilteredValue",
    "FreshModel",
    "HubDataset",
    "LanguageCode",
    "Licence",
    "LinearMerge",
    "MergeInput",
    "MergeSettings",
    "ModelSource",
    "Name",
    "Parameter",
    "PretrainSettings",
    "QuantizeSettings",
    "Recipe",
    "Settings",
    "SlerpMerge",
    "SparseInput",
    "StoredModel",
    "TaskArithmeticMerge",
    "TiesMerge",
    "TokenizerTraining",
    "WeightedInput",
    "parameter_numbers",
]

# --- models ---------------------------------------------------------------------------------------


class StoredModel(Settings):
    """A checkpoint that exists: a folder, or an id on the Hugging Face hub."""

    path: str = Field(description="Folder with a Transformers checkpoint, or a hub id owner/name.")
    revision: str | None = Field(
        None, description="Commit of the hub repository; name it, so that a run can be repeated."
    )


class Architecture(Settings):
    """Shape of a Mistral model made from scratch; names and meanings as in MistralConfig."""

    hidden_size: int = Field(ge=8, description="Width of the residual stream.")
    intermediate_size: int = Field(ge=8, description="Width of the feed-forward layer.")
    num_hidden_layers: int = Field(ge=1, description="Number of layers.")
    num_attention_heads: int = Field(ge=1, description="Number of query heads.")
    num_key_value_heads: int = Field(ge=1, description="Number of key and value heads.")
    max_position_embeddings: int = Field(2048, ge=16, description="Longest context, in tokens.")
    rope_theta: float = Field(10_000.0, gt=0, description="Base of the rotary frequencies.")
    tie_word_embeddings: bool = Field(
        False, description="Whether the output head is the transposed embedding."
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Architecture:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        return self


class TokenizerTraining(Settings):
    """A byte-pair tokenizer with byte fallback, trained on corpora of this recipe."""

    corpora: list[str] = Field(min_length=1, description="Names of the corpora to train it on.")
    vocabulary_size: int = Field(ge=300, description="Number of tokens, special ones included.")


class FreshModel(Settings):
    """A model with random weights, to pre-train from nothing."""

    architecture: Architecture = Field(description="Shape of the model.")
    tokenizer: TokenizerTraining = Field(description="How its tokenizer is made.")


def _model_form(value: Any) -> str:
    has = value if isinstance(value, dict) else {}
    if isinstance(value, FreshModel) or "architecture" in has:
        return "fresh"
    return "endpoint" if isinstance(value, EndpointModel) or "endpoint" in has else "stored"


ModelSource = Annotated[
    Annotated[StoredModel, Tag("stored")]
    | Annotated[FreshModel, Tag("fresh")]
    | Annotated[EndpointModel, Tag("endpoint")],
    Discriminator(_model_form),
]


# --- corpus ---------------------------------------------------------------------------------------


class CorpusSettings(Settings):
    """Articles or plain text to packed rows of tokens."""

    name: Name = Field("corpus", description="Name of the tokens it makes.")
    articles: list[str] = Field(
        default_factory=list, description="Glob patterns of JATS or NLM XML files (.xml, .nxml)."
    )
    texts: list[str] = Field(
        default_factory=list,
        description="Glob patterns of plain text files (.txt), one document a file, or .jsonl "
        "files with a text field (and optionally id, language, licence) per line.",
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


# --- training -------------------------------------------------------------------------------------


class PretrainSettings(Settings):
    """Continued (or first) pre-training on a corpus with the next-token loss."""

    name: Name = Field(description="Name of the model it makes.")
    model: str = Field(description="Model to start from.")
    corpus: str | None = Field(None, description="Corpus to train on; may be left out if only one.")
    epochs: float = Field(1.0, gt=0, description="Passes over the corpus.")
    learning_rate: float = Field(2.0e-5, gt=0, lt=1, description="Peak learning rate of AdamW.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Course of the learning rate after the warm-up."
    )
    warmup_fraction: Fraction = Field(0.0, description="Share of the steps with rising rate.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay of AdamW.")
    max_gradient_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    rows_per_step: int = Field(
        32, ge=1, description="Rows on one device in one forward pass (the micro-batch)."
    )
    accumulation_steps: int = Field(1, ge=1, description="Forward passes per optimizer step.")
    precision: Literal["bfloat16", "mixed", "float32"] = Field(
        "mixed",
        description="bfloat16 or float32: type of arithmetic and weights, 8 or 16 bytes of memory "
        "a parameter; mixed: arithmetic in bfloat16 on weights kept in float32 and saved in "
        "bfloat16, 16 bytes. Small steps (2e-5) are mostly lost in the rounding of bfloat16 weights.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, more time."
    )
    cross_document_attention: bool = Field(
        False,
        description="Let documents in one row attend to each other and the loss cross their "
        "borders, as published; by default they do not.",
    )
    save_every_steps: int = Field(
        200, ge=1, description="Optimizer steps between two resumable checkpoints."
    )
    seed: int | None = Field(None, ge=0, description="Of the order of rows; default: the recipe's.")


# --- quantization ---------------------------------------------------------------------------------


class BitsandbytesQuantization(Settings):
    """Weights in 8 bits (LLM.int8, arXiv 2208.07339) or 4 bits (NF4, arXiv 2305.14314)."""

    name: Name = Field(description="Name of the model it makes.")
    model: str = Field(description="Model to quantize.")
    method: Literal["bitsandbytes"] = Field(description="bitsandbytes")
    bits: Literal[4, 8] = Field(description="Bits per weight.")
    double_quantization: bool = Field(False, description="Quantize the scales too (4 bits only).")

    @model_validator(mode="after")
    def _double_needs_four_bits(self) -> BitsandbytesQuantization:
        if self.double_quantization and self.bits == 8:
            raise ValueError("double_quantization has no effect with bits: 8; leave it out")
        return self


class AwqQuantization(Settings):
    """Activation-aware 4-bit weights (AWQ, arXiv 2306.00978) in the standard GEMM layout."""

    name: Name = Field(description="Name of the model it makes.")
    model: str = Field(description="Model to quantize.")
    method: Literal["awq"] = Field(description="awq")
    bits: Literal[4] = Field(4, description="Bits per weight.")
    group_size: int = Field(128, ge=8, description="Weights that share one scale and zero point.")
    corpus: str | None = Field(
        None, description="Corpus for calibration; may be left out if there is only one."
    )
    calibration_rows: int = Field(64, ge=1, description="Rows of that corpus used.")


QuantizeSettings = Annotated[
    BitsandbytesQuantization | AwqQuantization, Field(discriminator="method")
]


# --- the recipe -----------------------------------------------------------------------------------


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
