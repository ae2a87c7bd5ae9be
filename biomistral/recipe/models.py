"""Settings of models to start from: what may be written under ``models`` in a recipe."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from biomistral.recipe.endpoints import EndpointModel
from biomistral.recipe.fields import Settings


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
    # None of these is a key that may stand in an entry: errors are placed by keys.
    has = value if isinstance(value, dict) else {}
    if isinstance(value, FreshModel) or "architecture" in has:
        return "fresh"
    return "served" if isinstance(value, EndpointModel) or "endpoint" in has else "stored"


ModelSource = Annotated[
    Annotated[StoredModel, Tag("stored")]
    | Annotated[FreshModel, Tag("fresh")]
    | Annotated[EndpointModel, Tag("served")],
    Discriminator(_model_form),
]
