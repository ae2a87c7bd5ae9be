"""Settings of training: what may be written under ``pretrain`` in a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from biomistral.recipe.fields import (
    Distinct,
    Fraction,
    KeepCheckpoints,
    LargestLossRise,
    Name,
    Settings,
    TensorBoard,
    WeightsAndBiases,
)


class MixedCorpus(Settings):
    """A second corpus in a training run, for instance general text against forgetting (replay)."""

    corpus: str = Field(description="Name of the corpus.")
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="Share of all rows that come from it."
    )


class PretrainSettings(Settings):
    """Continued (or first) pre-training on a corpus with the next-token loss."""

    name: Name = Field(description="Name of the model it makes.")
    model: str = Field(description="Model to start from.")
    corpus: str | None = Field(None, description="Corpus to train on; may be left out if only one.")
    mix: list[MixedCorpus] = Field(
        default_factory=list,
        description="Further corpora to train on, each with its share of rows.",
    )
    held_out: Distinct[str] = Field(
        default_factory=list,
        description="Further corpora whose held-out loss is measured while training, beside those "
        "trained on: what is forgotten shows there.",
    )
    held_out_measurements: int = Field(
        6, ge=1, description="Times it is measured, besides once before the first step."
    )
    epochs: float = Field(1.0, gt=0, description="Passes over the corpus.")
    tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens to train on, padding included, in place of epochs; rounded up to a row.",
    )
    learning_rate: float = Field(2.0e-5, gt=0, lt=1, description="Peak learning rate of AdamW.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Course of the learning rate after the warm-up."
    )
    warmup_fraction: Fraction = Field(0.0, description="Share of the steps with rising rate.")
    warmup_start_fraction: Fraction = Field(
        0.0,
        description="Share of the peak rate that the warm-up starts from; for a model whose training "
        "ended at a floor, that floor (re-warming).",
    )
    minimum_learning_rate_fraction: Fraction = Field(
        0.0, description="Share of the peak rate that it falls to at the end (the floor)."
    )
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay of AdamW.")
    max_gradient_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    rows_per_step: int = Field(
        32, ge=1, description="Rows on one device in one forward pass (the micro-batch)."
    )
    accumulation_steps: int = Field(
        1,
        ge=1,
        description="Forward passes per optimizer step, of all processes together: several processes "
        "share them, so that the step is the same on one GPU and on many.",
    )
    precision: Literal["bfloat16", "mixed", "float32"] = Field(
        "mixed",
        description="bfloat16 or float32: type of arithmetic and weights, 8 or 16 bytes of memory "
        "a parameter; mixed: arithmetic in bfloat16 on weights kept in float32 and saved in "
        "bfloat16, 16 bytes. Small steps (2e-5) are mostly lost in the rounding of bfloat16 weights.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, more time."
    )
    sharding: Literal["full", "none"] = Field(
        "full",
        description="In several processes on GPUs: full spreads weights, gradients and optimizer "
        "over them (FSDP2); none keeps a copy in each.",
    )
    compile: bool = Field(
        False,
        description="Compile the model with torch.compile; only on a GPU, where it is faster.",
    )
    cross_document_attention: bool = Field(
        False,
        description="Let documents in one row attend to each other and the loss cross their "
        "borders, as published; by default they do not.",
    )
    save_every_steps: int = Field(
        200, ge=1, description="Optimizer steps between two resumable checkpoints."
    )
    keep_checkpoints: KeepCheckpoints = 2
    largest_loss_rise: LargestLossRise = 1.0
    tensorboard: TensorBoard = None
    wandb: WeightsAndBiases = None
    jeffreys_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the Jeffreys divergence between the model and the one it started "
        "from, in nats per token: keeps the calibration of the start, and what it knew. Costs a "
        "second forward pass and a second model in memory; in one process only.",
    )
    seed: int | None = Field(None, ge=0, description="Of the order of rows; default: the recipe's.")

    @model_validator(mode="after")
    def _one_budget(self) -> PretrainSettings:
        if self.tokens is not None and "epochs" in self.model_fields_set:
            raise ValueError("has both epochs and tokens; give one of them")
        return self

    @model_validator(mode="after")
    def _shares_leave_room(self) -> PretrainSettings:
        total = sum(mixed.share for mixed in self.mix)
        if total >= 1:
            raise ValueError(
                f"mix: the shares come to {total:g}, and nothing is left for the corpus itself; they "
                "must stay below 1"
            )
        return self

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> PretrainSettings:
        if self.warmup_start_fraction and not self.warmup_fraction:
            raise ValueError("warmup_start_fraction has no effect without warmup_fraction")
        if self.minimum_learning_rate_fraction and self.schedule == "constant":
            raise ValueError("minimum_learning_rate_fraction has no effect with schedule: constant")
        return self

    @property
    def further_corpora(self) -> list[str]:
        """Names of the corpora that are mixed in or measured, without repeats."""
        return list(dict.fromkeys([*(mixed.corpus for mixed in self.mix), *self.held_out]))
