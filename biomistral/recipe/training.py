"""Settings of training: what may be written under ``pretrain`` in a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from biomistral.recipe.fields import Fraction, Name, Settings


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
