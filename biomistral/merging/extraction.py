"""Take a LoRA adapter out of two full models: the low-rank part of what a fine-tuning changed.

The difference D of each linear weight between model and base is cut to its ``rank`` largest
singular values, D ~ B A; base + adapter is then the model, as far as that rank goes. What is lost
is measured and said: ``captured_fraction`` is the norm of the part that is kept over the norm of
the difference. Each tensor has its own random generator and is computed by one thread, so nothing
depends on how many there are. Knows nothing about how the adapter is used.

Format: that of PEFT (``models.adapters``). Shapes: O rows, I columns of a weight, r the rank.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import ModelError, RecipeError
from biomistral.merging.difference import tensor_difference
from biomistral.merging.low_rank import factors, norm_of_product
from biomistral.merging.threads import workers
from biomistral.models.adapters import ADAPTER_CONFIG, ADAPTER_FILE, PREFIX
from biomistral.models.cards import Card, read_card, write_card
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.hub import name_of
from biomistral.models.safetensors_files import StoredTensor, TensorSpec, lay_out
from biomistral.progress import Progress, ignore

_FLOATS = ("float64", "float32", "float16", "bfloat16")
# Matrices with a row per token or position: tables to look up in, and the head.
_TABLE = re.compile(r"(?:^|\.)(?:\w*emb\w*|wte|wpe|lm_head)\.weight")
_HEAD = "lm_head.weight"
_CONV1D = ("gpt2", "openai-gpt", "ctrl")  # model types that keep weights as (I, O)
_MOST_WORKERS = 4  # each holds a float32 copy of a tensor and the like
_SAMPLE_ELEMENTS = 4096
_FROM_ZERO = 1e9  # stands for the relative norm of a difference to zeros: JSON has no infinity


@dataclass(frozen=True)
class _Plan:
    """Names of tensors that differ, and what becomes of them."""

    low_rank: list[str]
    whole: dict[str, str]  # saved as they are: name in the adapter -> name in the models
    left_out: list[str]
    targets: list[str]  # modules, as PEFT's config names them


def extract_lora(
    model: Path,
    base: Path,
    out: Path,
    *,
    rank: int = 16,
    embeddings: bool = False,
    base_name: str | None = None,
    allow_pickle: bool = False,
    seed: int = 42,
    origin: Origin | None = None,
    progress: Progress = ignore,
) -> Path:
    """Write the adapter folder ``out`` that turns ``base`` nearly into ``model``; return it.

    Weights are float32. Embeddings and head that differ are saved whole with ``embeddings``; what
    else differs (norms, biases) is left out, which a warning in the counts puts a number to.
    ``base_name`` is what PEFT is to load as the base, a hub id best; default: the folder's name.

    Raises ``RecipeError`` for a rank below 1, ``ModelError`` if the two are no checkpoints of one
    shape, if they are equal, or for a tensor with NaN or infinity; ``out`` is then as it was.
    """
    if rank < 1:
        raise RecipeError("extract-lora", [f"rank {rank} is below 1; set it to 8, 16, 32 ..."])
    artifacts.check_apart(out, {str(model): model, str(base): base})
    tuned, start = (Checkpoint(folder, allow_pickle=allow_pickle) for folder in (model, base))
    _check_comparable(tuned, start)
    plan = _plan(tuned, start, embeddings=embeddings)
    settings = {"rank": rank, "embeddings": embeddings, "base_name": base_name, "seed": seed}
    name = base_name or name_of(base)
    if origin is None:
        files = {"model": model, "base": base}
        inputs = {key: artifacts.fingerprint_of_files([path]) for key, path in files.items()}
        origin = Origin("adapter", out.name, settings, inputs)
    with artifacts.create(out, origin) as draft:
        norms = _write_weights(tuned, start, plan, draft.folder, (rank, seed), progress)
        draft.counts |= _counts(tuned, start, plan, norms)
        config = _adapter_config(start, plan, rank, name)
        artifacts.write_json(draft.folder / ADAPTER_CONFIG, config)
        write_card(draft.folder, _card(out.name, name, tuned, rank, draft.counts))
    return out


# --- what there is --------------------------------------------------------------------------------


def _check_comparable(tuned: Checkpoint, start: Checkpoint) -> None:
    for one, other in ((tuned, start), (start, tuned)):
        if lacking := [name for name in one.tensors if name not in other.tensors]:
            raise ModelError(
                f"{other.folder}: lacks {lacking[0]}, one of {len(lacking)} tensors that only "
                f"{one.folder} has; name a model and the base it was trained from"
            )
    for name, stored in tuned.tensors.items():
        match = start.tensors[name]
        if stored.shape != match.shape:
            raise ModelError(
                f"{tuned.folder}: {name} is of shape {list(stored.shape)}, in {start.folder} of "
                f"{list(match.shape)}; an adapter cannot change a shape: resize the vocabulary of "
                "the base first, if it is that"
            )
        for found in (stored, match):
            if found.dtype not in _FLOATS:
                raise ModelError(
                    f"{found.file}: {name} is of type {found.dtype}; name the model as it was "
                    f"before quantization ({', '.join(_FLOATS)})"
                )
        if ".experts." in name:
            raise ModelError(
                f"{tuned.folder}: is a mixture of experts ({name}), whose weights adapters do not "
                "name one by one; extraction is for dense models"
            )


def _plan(tuned: Checkpoint, start: Checkpoint, *, embeddings: bool) -> _Plan:
    """Sort the tensors that differ. Raises ``ModelError`` if no linear weight does."""
    linear = [
        name
        for name, stored in start.tensors.items()
        if len(stored.shape) == 2 and name.endswith(".weight") and not _TABLE.search(name)
    ]
    with workers() as pool:
        differs = pool.map(lambda name: _differs(tuned, start, name), start.tensors)
        changed = [name for name, yes in zip(start.tensors, differs, strict=True) if yes]
    chosen = [name for name in changed if name in linear]
    others = [name for name in changed if name not in linear]
    if not chosen:
        reason = f", only {others[0]} does" if others else ": the two models are equal"
        raise ModelError(
            f"{tuned.folder}: no linear weight differs from {start.folder}{reason}; there is "
            "nothing to extract"
        )
    whole = {name: name for name in _tables(others)} if embeddings else {}
    if start.config.get("tie_word_embeddings") and _HEAD not in start.tensors:
        tied = [n for n in whole if start.tensors[n].shape[0] == start.embedding_rows()]
        whole.update((_HEAD, name) for name in tied)  # PEFT wants both, though they are one
    return _Plan(
        low_rank=chosen,
        whole=whole,
        left_out=[name for name in others if name not in whole],
        targets=_targets(linear, set(chosen)),
    )


def _differs(tuned: Checkpoint, start: Checkpoint, name: str) -> bool:
    """Whether a tensor has other values; mostly a few of them tell."""
    one, other = tuned.tensor(name).reshape(-1), start.tensor(name).reshape(-1)
    for place in (slice(0, _SAMPLE_ELEMENTS), slice(_SAMPLE_ELEMENTS, None)):
        x, y = one[place], other[place]
        if not (torch.equal(x, y) if x.dtype == y.dtype else torch.equal(x.float(), y.float())):
            return True
    return False


def _targets(linear: Sequence[str], chosen: set[str]) -> list[str]:
    """Name modules by their last part where all of that name are chosen, else one by one."""
    incomplete = {_last(name) for name in linear if name not in chosen}
    return sorted({_module(name) if _last(name) in incomplete else _last(name) for name in chosen})


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _last(name: str) -> str:
    return _module(name).rpartition(".")[2]


# --- what is written ------------------------------------------------------------------------------


def _write_weights(
    tuned: Checkpoint,
    start: Checkpoint,
    plan: _Plan,
    folder: Path,
    how: tuple[int, int],
    progress: Progress,
) -> dict[str, tuple[float, float]]:
    """Fill the adapter's file; return by tensor the norms of what is kept and of the difference."""
    rank, seed = how
    whole = {PREFIX + name: tuned.tensors[source] for name, source in plan.whole.items()}
    specs = [TensorSpec(name, stored.shape, stored.dtype) for name, stored in whole.items()]
    for name in plan.low_rank:
        rows, columns = _oriented(start, start.tensor(name)).shape
        kept = min(rank, rows, columns)
        specs.append(TensorSpec(_part(name, "A"), (kept, columns), "float32"))
        specs.append(TensorSpec(_part(name, "B"), (rows, kept), "float32"))
    places = {place.name: place for place in lay_out(folder / ADAPTER_FILE, specs)}
    for name, stored in whole.items():
        values = tuned.tensor(stored.name)
        if not values.isfinite().all():
            raise _not_finite(tuned, start, stored.name)
        _write(places[name], values)

    def extract(name: str) -> tuple[float, float]:
        difference = _difference(tuned, start, name)
        norm = float(torch.linalg.vector_norm(difference, dtype=torch.float64))
        if not math.isfinite(norm):
            raise _not_finite(tuned, start, name)
        b, a = factors(difference, rank, _generator(seed, name))
        _write(places[_part(name, "A")], a)
        _write(places[_part(name, "B")], b)
        return min(norm_of_product(b), norm), norm

    norms: dict[str, tuple[float, float]] = {}
    with workers(_MOST_WORKERS) as pool:
        for name, both in zip(plan.low_rank, pool.map(extract, plan.low_rank), strict=True):
            norms[name] = both
            progress(len(norms), len(plan.low_rank), "weights decomposed")
    return norms


def _difference(tuned: Checkpoint, start: Checkpoint, name: str) -> Tensor:
    """Return what was added to a weight: float32, (O, I), in memory of its own."""
    difference = tuned.tensor(name).to(torch.float32, copy=True).sub_(start.tensor(name))
    return _oriented(start, difference).contiguous()


def _oriented(start: Checkpoint, weight: Tensor) -> Tensor:
    """Return a stored weight as linear layers have it: (O, I)."""
    return weight.T if start.config.get("model_type") in _CONV1D else weight


def _part(name: str, part: str) -> str:
    return f"{PREFIX}{_module(name)}.lora_{part}.weight"


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(json.dumps([seed, name]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def _write(place: StoredTensor, values: Tensor) -> None:
    assert (str(values.dtype), tuple(values.shape)) == (f"torch.{place.dtype}", place.shape)
    with place.file.open("r+b") as stream:
        stream.seek(place.offset_bytes)
        stream.write(values.contiguous().view(-1).view(torch.uint8).numpy().data)


def _adapter_config(start: Checkpoint, plan: _Plan, rank: int, base_name: str) -> dict[str, Any]:
    """Return PEFT's config: scaling is alpha / r = 1 for each module, whatever its rank."""
    shortest = {name: min(start.tensors[name].shape) for name in plan.low_rank}
    ranks = {_module(name): length for name, length in shortest.items() if length < rank}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
        "bias": "none",
        "fan_in_fan_out": start.config.get("model_type") in _CONV1D,
        "target_modules": plan.targets,
        "modules_to_save": [_module(name) for name in plan.whole] or None,
        "ensure_weight_tying": any(name != source for name, source in plan.whole.items()),
        "use_rslora": False,
        "use_dora": False,
    }


# --- what is said ---------------------------------------------------------------------------------


def _counts(
    tuned: Checkpoint, start: Checkpoint, plan: _Plan, norms: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    """How much of the difference is in the adapter, and what is not."""
    kept, whole = (math.hypot(*column) for column in zip(*norms.values(), strict=True))
    left_out: dict[str, float] = {}
    for name in plan.left_out:
        difference = tensor_difference(start.tensors[name], tuned.tensors[name])
        if not math.isfinite(difference.dd):
            raise _not_finite(tuned, start, name)
        left_out[name] = min(difference.relative_norm, _FROM_ZERO)
    warnings = []
    if left_out:
        largest = max(left_out, key=lambda name: left_out[name])
        remedy = "; --embeddings takes embeddings and head along" if _tables(left_out) else ""
        warnings.append(
            f"{len(left_out)} tensors that differ are not in the adapter: they differ by up to "
            f"{min(100 * left_out[largest], 999):.3g} % of their norm ({largest}){remedy}"
        )
    return {
        "modules": len(norms),
        "captured_fraction": kept / whole,
        "captured_fraction_by_tensor": {name: part / all_ for name, (part, all_) in norms.items()},
        "saved_whole": list(plan.whole),
        "left_out_relative_norm": left_out,
        "warnings": warnings,
    }


def _tables(names: Iterable[str]) -> list[str]:
    return [name for name in names if _TABLE.search(name)]


def _not_finite(tuned: Checkpoint, start: Checkpoint, name: str) -> ModelError:
    return ModelError(
        f"{name}: holds NaN or infinity in {tuned.folder} or in {start.folder}; that model is "
        "broken (a diverged training or a damaged copy): fetch it again or use another one"
    )


def _card(
    name: str, base_name: str, tuned: Checkpoint, rank: int, counts: Mapping[str, Any]
) -> Card:
    model_card = read_card(tuned.folder)
    source = name_of(tuned.folder)
    return Card(
        name=name,
        base_models=(base_name,),
        relation="adapter",
        description=f"{name} is a LoRA adapter of rank {rank}: what {source} changed in "
        f"{base_name}, as far as that rank goes. It is no model: load it with PEFT on top of the "
        "base.",
        details={
            "extracted from": source,
            "rank": str(rank),
            "captured": f"{100 * counts['captured_fraction']:.2f} % of the norm of the difference "
            "in the linear weights",
            "saved whole": ", ".join(counts["saved_whole"]),
            "left out": "; ".join(counts["warnings"]),
        },
        languages=model_card.languages if model_card else (),
        topics=model_card.topics if model_card else (),
        datasets=model_card.datasets if model_card else (),
    )
