"""Settings of tuning: what may be written under ``sft`` and ``dpo`` in a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from biomistral.recipe.fields import (
    Distinct,
    Fraction,
    KeepCheckpoints,
    LanguageCode,
    LargestLossRise,
    Name,
    Settings,
    TensorBoard,
    WeightsAndBiases,
    without_repeats,
)

# The seven projections of a Mistral or Llama layer.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# What is said of an adapter, and nothing of a model of which every weight is trained.
_OF_ADAPTERS = ("rank", "alpha", "dropout", "targets", "merge_adapter")


class TuningSettings(Settings):
    """What fine-tuning and preference tuning have in common."""

    name: Name = Field(description="Name of the model it makes.")
    model: str = Field(description="Model to start from.")
    questions: Annotated[Literal["all"] | list[str] | None, AfterValidator(without_repeats)] = (
        Field(
            None,
            description="Learn from the training questions of the benchmark: all, or names of "
            "tasks. Those that overlap with a test question are refused and listed.",
        )
    )
    languages: Distinct[LanguageCode] = Field(
        default=["en"], min_length=1, description="Languages of the training questions."
    )
    template: Literal["biomistral", "meditron", "chat"] = Field(
        "biomistral", description="Form of the prompts of questions, as in the section evaluate."
    )
    answer: Literal["letter", "text"] = Field(
        "letter",
        description="What is learned as the answer to a question: the letter of a choice (choices "
        "are shown; for scoring: letter), or its text (they are not; for scoring: cloze).",
    )
    method: Literal["lora", "qlora", "full"] = Field(
        "lora",
        description="lora: train an adapter (arXiv 2106.09685); qlora: the same beside a quantized "
        "model (arXiv 2305.14314); full: train every weight.",
    )
    bits: Literal[4, 8] = Field(
        8, description="Of the weights beside a qlora adapter: 8 (LLM.int8) or 4 (NF4)."
    )
    rank: int = Field(16, ge=1, description="Rank of the adapter.")
    alpha: float = Field(16, gt=0, description="The adapter's product is scaled by alpha / rank.")
    targets: Annotated[Literal["all"] | list[str], AfterValidator(without_repeats)] = Field(
        "all",
        description="Layers that the adapter changes: all (the seven projections of Mistral), or "
        "their names, such as q_proj.",
    )
    merge_adapter: bool = Field(
        True,
        description="Merge the adapter into its model as well, so that other entries can use the "
        "result by its name; without, the adapter alone is made.",
    )
    epochs: float = Field(1.0, gt=0, description="Passes over the data.")
    learning_rate: float = Field(2.0e-5, gt=0, lt=1, description="Peak learning rate of AdamW.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Course of the learning rate after the warm-up."
    )
    warmup_fraction: Fraction = Field(0.0, description="Share of the steps with rising rate.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW.")
    max_gradient_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    rows_per_step: int = Field(
        4, ge=1, description="Rows (of dpo: pairs) on one device in one forward pass."
    )
    accumulation_steps: int = Field(1, ge=1, description="Forward passes per optimizer step.")
    sequence_length: int = Field(
        2048, ge=16, description="Tokens in a row; what is longer is left out and counted."
    )
    precision: Literal["mixed", "float32"] = Field(
        "mixed",
        description="Arithmetic in bfloat16 or float32; what is trained is kept in float32.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, more time."
    )
    save_every_steps: int = Field(
        200, ge=1, description="Optimizer steps between two resumable checkpoints."
    )
    keep_checkpoints: KeepCheckpoints = 2
    largest_loss_rise: LargestLossRise = 1.0
    tensorboard: TensorBoard = None
    wandb: WeightsAndBiases = None
    seed: int | None = Field(
        None, ge=0, description="Of order, dropout and first values; default: the recipe's."
    )

    @property
    def makes_adapter(self) -> bool:
        """Whether what is trained is an adapter."""
        return self.method != "full"

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the layers that the adapter changes."""
        return PROJECTIONS if self.targets == "all" else tuple(self.targets)

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> TuningSettings:
        fields = type(self).model_fields
        given = {
            name
            for name in self.model_fields_set
            if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        }
        without_effect = {
            name: f"method: {self.method}"
            for name in _OF_ADAPTERS
            if name in given and self.method == "full"
        }
        if "bits" in given and self.method != "qlora":
            without_effect["bits"] = f"method: {self.method} (qlora has bits)"
        if self.questions is None:
            without_effect |= dict.fromkeys(
                given & {"languages", "template", "answer"}, "data of your own, without questions"
            )
        elif self.answer == "text" and "template" in given:
            without_effect["template"] = "answer: text, which has one form"
        if without_effect:
            listed = "; ".join(f"{k} has no effect with {v}" for k, v in without_effect.items())
            raise ValueError(f"{listed}; leave it out")
        if not self.target_names:
            raise ValueError("targets names no layer; write all, or names such as q_proj")
        return self


class SftSettings(TuningSettings):
    """Supervised fine-tuning on answers: questions of the benchmark, or conversations."""

    data: list[str] = Field(
        default_factory=list,
        description="Files of conversations (JSON lines with messages) to learn from; patterns "
        "are allowed. They need a model with a chat template.",
    )
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before the adapter, in training.")
    packing: bool = Field(
        True, description="Several examples in a row, which do not see each other; or one."
    )
    jeffreys_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the Jeffreys divergence between the model and the one it started "
        "from, in nats per answer token: keeps the calibration of the start. Costs a second "
        "forward pass; with full, a second model in memory, too.",
    )
    entropy_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the entropy of the answer, which is rewarded (arXiv 1701.06548): "
        "of the letters of the choices, or of the whole vocabulary where there are none.",
    )
    answer_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the target that is spread evenly over the letters of the choices, "
        "or over the whole vocabulary where there are none.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_file_is_a_list(cls, value: Any) -> Any:
        return _listed(value, "data")

    @model_validator(mode="after")
    def _learns_from_something(self) -> SftSettings:
        if self.questions is None and not self.data:
            raise ValueError("says nothing to learn from; give questions, or data, or both")
        return self


class DpoSettings(TuningSettings):
    """Preference tuning (DPO, arXiv 2305.18290) on pairs of a better and a worse answer.

    Nothing is dropped out: it compares the model with its start.
    """

    pairs: list[str] = Field(
        default_factory=list,
        description="Files of pairs (JSON lines with prompt, chosen, rejected); patterns are "
        "allowed.",
    )
    rejections: int = Field(
        1, ge=1, description="Pairs made of a question: the right choice against as many others."
    )
    beta: float = Field(0.1, gt=0, description="How close the model stays to its start.")
    loss: Literal["sigmoid", "hinge", "ipo", "apo_zero"] = Field(
        "sigmoid",
        description="sigmoid (DPO), hinge (SLiC, arXiv 2305.10425), ipo (arXiv 2310.12036), "
        "apo_zero (arXiv 2408.06266).",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_file_is_a_list(cls, value: Any) -> Any:
        return _listed(value, "pairs")

    @model_validator(mode="after")
    def _learns_from_something(self) -> DpoSettings:
        if self.questions is None and not self.pairs:
            raise ValueError("says nothing to learn from; give questions, or pairs, or both")
        if self.questions is None and self.rejections > 1:
            raise ValueError("rejections has no effect without questions; leave it out")
        if "lm_head" in self.target_names:
            raise ValueError("targets: an adapter of lm_head cannot be trained with dpo")
        return self


def _listed(value: Any, key: str) -> Any:
    if isinstance(value, dict) and isinstance(value.get(key), str):
        return {**value, key: [value[key]]}
    return value
