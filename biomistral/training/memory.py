"""What a training run needs of memory and disk, from the shape of the model. Loads no PyTorch.

The parts of a model like Mistral's are counted exactly; activations are what is kept for the
backward pass, counted tensor by tensor, without what the libraries need besides (about 1 GB).

Units: bytes. B rows, T tokens in a row.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral.errors import ModelError
from biomistral.recipe.settings import DpoSettings, PretrainSettings
from biomistral.recipe.tuning import SftSettings, TuningSettings

_LOGITS_AT_ONCE = 1 << 27  # of the blocked loss, on a GPU
# Of a loss on answers with more than cross-entropy, and how often they are there in float32.
_LOGITS_OF_A_BLOCK, _COPIES_OF_A_BLOCK = 1 << 24, 6
# Bytes a parameter: weights, gradients, both moments of AdamW, copies that autocast makes.
_BYTES = {"bfloat16": (2, 2, 4, 0), "mixed": (4, 4, 8, 2), "float32": (4, 4, 8, 0)}


@dataclass(frozen=True)
class Shape:
    """What of a model's configuration decides its size."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    is_tied: bool

    @property
    def num_parameters(self) -> int:
        """Weights of the whole model."""
        attention = self.hidden * self.head_width * 2 * (self.heads + self.key_value_heads)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + self.hidden + self._embedding * (1 if self.is_tied else 2)

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """Widths in and out of the seven projections of a layer."""
        query, key = self.heads * self.head_width, self.key_value_heads * self.head_width
        return {
            "q_proj": (self.hidden, query),
            "k_proj": (self.hidden, key),
            "v_proj": (self.hidden, key),
            "o_proj": (query, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def num_inside(self) -> int:
        """Weights of all projections: what bitsandbytes quantizes."""
        return self.layers * sum(into * out for into, out in self.projections.values())

    @property
    def _embedding(self) -> int:
        return self.vocabulary * self.hidden

    def activation_bytes_per_token(self, *, compute_bytes: int) -> int:
        """Kept by one layer for its backward pass.

        Norms keep what they compute in float32; attention its turned queries and keys, values and
        result; the feed-forward layer its gate before and after SiLU, the other half, the product.
        """
        query, key = self.heads * self.head_width, self.key_value_heads * self.head_width
        norms = 2 * (4 * self.hidden + 2 * compute_bytes * self.hidden)
        attention = compute_bytes * (2 * query + 2 * key)
        return norms + attention + 4 * compute_bytes * self.intermediate


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """Shape of a model from its ``config.json``; None if it is not built like Mistral's."""
    try:
        heads = int(config["num_attention_heads"])
        return Shape(
            hidden=int(config["hidden_size"]),
            intermediate=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            key_value_heads=int(config.get("num_key_value_heads") or heads),
            head_width=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
            vocabulary=int(config["vocab_size"]),
            is_tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class Estimate:
    """Memory of one process, by what it is for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def fixed(self) -> int:
        """What no smaller batch makes smaller."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All of it."""
        return self.fixed + self.activations

    def __str__(self) -> str:
        """The sum and its parts."""
        parts = ", ".join(
            f"{name} {size(getattr(self, name))}"
            for name in ("weights", "gradients", "optimizer", "activations")
        )
        return f"{size(self.total)} ({parts})"


def size(num_bytes: float) -> str:
    """Bytes as a person says them."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.0f} MB"


def estimate(
    settings: PretrainSettings, shape: Shape, sequence_length: int, num_processes: int = 1
) -> Estimate:
    """Estimate the memory of one process of a training run."""
    weights, gradients, optimizer, copies = _BYTES[settings.precision]
    shards = num_processes if settings.sharding == "full" else 1
    own = shape.num_parameters / shards
    compute_bytes = 4 if settings.precision == "float32" else 2
    layer = shape.activation_bytes_per_token(compute_bytes=compute_bytes)
    between = compute_bytes * shape.hidden if settings.precision != "mixed" else 4 * shape.hidden
    if settings.gradient_checkpointing:
        per_token = shape.layers * between + layer
    else:
        per_token = shape.layers * layer
    rows, _ = split_step(settings.rows_per_step, settings.accumulation_steps, num_processes)
    tokens = rows * sequence_length
    logits = min(tokens * shape.vocabulary, _LOGITS_AT_ONCE) * compute_bytes
    return Estimate(
        # Twice with a copy of the start to stay near.
        weights=int(own * (weights + copies) * (2 if settings.jeffreys_weight else 1)),
        gradients=int(own * gradients),
        optimizer=int(own * optimizer),
        activations=tokens * per_token + logits,
    )


def estimate_tuning(settings: TuningSettings, shape: Shape, num_processes: int = 1) -> Estimate:
    """Estimate the memory of one process of fine-tuning or preference tuning, in full rows.

    Of a model beside an adapter only the weights count. TRL's DPO computes all logits of both
    answers, in float32; fine-tuning those of answers only, in blocks. Several processes share all
    weights where these are trained, and each has its own adapter.
    """
    trained = num_trained(settings, shape)
    own = trained // (1 if settings.makes_adapter else num_processes)
    is_mixed = settings.precision == "mixed"
    compute_bytes = 2 if is_mixed else 4
    is_dpo = isinstance(settings, DpoSettings)
    if settings.makes_adapter:
        bits = settings.bits if settings.method == "qlora" else 8 * compute_bytes
        inside = shape.num_inside
        outside = shape.num_parameters - inside
        weights = inside * bits // 8 + outside * compute_bytes + 4 * trained
    else:
        stays_near = bool(getattr(settings, "jeffreys_weight", 0.0))
        weights = own * (4 + (2 if is_mixed else 0)) + 4 * trained * (is_dpo or stays_near)
    layer = shape.activation_bytes_per_token(compute_bytes=compute_bytes)
    # What stays between layers is in the type of the weights.
    between = shape.hidden * (2 if is_mixed and settings.makes_adapter else 4)
    is_checkpointed = settings.gradient_checkpointing
    per_token = shape.layers * (between if is_checkpointed else layer) + layer * is_checkpointed
    rows, _ = split_step(settings.rows_per_step, settings.accumulation_steps, num_processes)
    tokens = rows * settings.sequence_length * (2 if is_dpo else 1)
    logits = _bytes_of_logits(settings, tokens * shape.vocabulary, compute_bytes)
    return Estimate(weights, 4 * own, 8 * own, tokens * per_token + logits)


def _bytes_of_logits(settings: TuningSettings, num_logits: int, compute_bytes: int) -> int:
    """Held at once if every token is of an answer."""
    if isinstance(settings, DpoSettings):
        return 4 * num_logits
    assert isinstance(settings, SftSettings)
    if settings.jeffreys_weight or settings.entropy_weight or settings.answer_smoothing:
        return min(num_logits, _LOGITS_OF_A_BLOCK) * 4 * _COPIES_OF_A_BLOCK
    return min(num_logits, _LOGITS_AT_ONCE) * compute_bytes


def num_trained(settings: TuningSettings, shape: Shape) -> int:
    """Number of values that tuning trains."""
    if not settings.makes_adapter:
        return shape.num_parameters
    widths = {name: sum(sides) for name, sides in shape.projections.items()}
    each = sum(widths.get(name.rpartition(".")[-1], 0) for name in settings.target_names)
    return shape.layers * settings.rank * each


def tuning_checkpoint_bytes(settings: TuningSettings, shape: Shape) -> int:
    """Size of a resumable checkpoint: what is trained and both moments of AdamW, in float32."""
    return 12 * num_trained(settings, shape)


def tuning_disk_bytes(settings: TuningSettings, shape: Shape, num_steps: int) -> int:
    """Most that tuning has on the disk at once: checkpoints, one more while it is written, result."""
    saved = (num_steps - 1) // settings.save_every_steps  # none at the end
    kept = min(saved, settings.keep_checkpoints + 1)
    in_bfloat16 = settings.precision == "mixed" and not settings.makes_adapter
    final = num_trained(settings, shape) * (2 if in_bfloat16 else 4)
    return kept * tuning_checkpoint_bytes(settings, shape) + final


def split_step(rows_per_step: int, accumulation_steps: int, num_processes: int) -> tuple[int, int]:
    """Share the rows of an optimizer step among processes: rows and passes of each.

    Passes are shared first, then rows, so that the step is the same however many processes there
    are. Raises ``ModelError`` where that is not possible.
    """
    passes, rest = divmod(accumulation_steps, num_processes)
    if rest == 0:
        return rows_per_step, passes
    rows, rest = divmod(rows_per_step * accumulation_steps, num_processes)
    if rest == 0 and rows % accumulation_steps == 0:
        return rows // accumulation_steps, accumulation_steps
    if rest == 0 and rows <= rows_per_step:
        return rows, 1
    raise ModelError(
        f"training: a step of {rows_per_step} rows x {accumulation_steps} cannot be shared evenly by "
        f"{num_processes} processes; make rows_per_step x accumulation_steps a multiple of their "
        "number"
    )


def checkpoint_bytes(settings: PretrainSettings, num_parameters: int) -> int:
    """Size of a resumable checkpoint: weights and both moments of AdamW."""
    weights, _, optimizer, _ = _BYTES[settings.precision]
    return num_parameters * (weights + optimizer)


def disk_bytes(settings: PretrainSettings, num_parameters: int, num_steps: int) -> int:
    """Most that a run has on the disk at once: checkpoints, one more while it is written, the model."""
    saved = (num_steps - 1) // settings.save_every_steps  # none at the end
    kept = min(saved, settings.keep_checkpoints + 1)
    final = num_parameters * (4 if settings.precision == "float32" else 2)
    return kept * checkpoint_bytes(settings, num_parameters) + final


def host_memory_bytes() -> int:
    """Memory of this machine, or what its control group leaves of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total


def device_bytes() -> int:
    """Memory of the GPU that is used, or of this machine."""
    import torch

    return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else host_memory_bytes()


def check_fits(
    needed: Estimate, available_bytes: int, settings: PretrainSettings | TuningSettings
) -> None:
    """Raise ``ModelError`` if weights, gradients and optimizer alone are larger than the memory."""
    if needed.fixed > available_bytes:
        raise ModelError(
            f"{settings.name}: training needs about {needed}, and the device has "
            f"{size(available_bytes)}; {'; '.join(remedies(settings))}"
        )


def remedies(settings: PretrainSettings | TuningSettings) -> list[str]:
    """What to change when a run does not fit, the best first."""
    ways = []
    if isinstance(settings, PretrainSettings):
        ways.append(
            "start it on more GPUs (biomistral run --nproc N), which share it (sharding: full)"
        )
    elif settings.method != "qlora":
        if not settings.makes_adapter:
            ways.append("start it on more GPUs (biomistral run --nproc N), which share it")
        ways.append("set method: qlora, which holds the model in 8 or 4 bits")
    elif settings.bits == 8:
        ways.append("set bits: 4")
    if not settings.gradient_checkpointing:
        ways.append("set gradient_checkpointing: true")
    if settings.rows_per_step > 1:
        ways.append("lower rows_per_step and raise accumulation_steps by the same factor")
    if isinstance(settings, PretrainSettings) and settings.precision != "bfloat16":
        ways.append("set precision: bfloat16 (half the memory, and small steps are rounded away)")
    return ways
