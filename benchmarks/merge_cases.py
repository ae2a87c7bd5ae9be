"""Merges to compare engines with: four small models, the same on every machine, and 41 merges.

A base, and three Mistral-shaped models that are the base plus noise of 3, 20 and 40 % of its
deviation, of which a part is common to all; in bfloat16. The numbers are counted (SplitMix64) and
only added and multiplied, so that they depend on no library. Used by ``parity_mergekit.py`` and by
the test that results are as they were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from biomistral.merging import MergeOptions, merge_config
from biomistral.merging.dropping import dropping_key, random_numbers

SEED = 42
HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, VOCABULARY = 64, 176, 5, 4, 2, 5000
# Name of a model: how much noise it has beside the base's, as a fraction.
MODELS = {"base": 0.0, "a": 0.03, "b": 0.2, "c": 0.4}
COMMON = 0.7  # share of the noise (of its length) that all models have in common
RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")
KEPT = Path(__file__).parent / "results" / "merge_parity.json"


@dataclass(frozen=True)
class Case:
    """One configuration; ``ours`` are global parameters that only this package is given."""

    title: str
    method: str
    models: Mapping[str, Mapping[str, Any]]  # name -> parameters
    base: str | None = "base"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    ours: Mapping[str, Any] = field(default_factory=dict)
    slices: Sequence[tuple[str, int, int]] = ()  # model and range of layers, instead of models

    @property
    def out_dtype(self) -> str:
        """Type of the output; what is kept by chance must not be hidden by rounding."""
        return "float32" if self.method in RANDOM else "bfloat16"

    def text(self, folder: Path, *, for_us: bool) -> str:
        """Return the configuration as YAML."""
        parameters = {**self.parameters, **(self.ours if for_us else {})}
        inputs: dict[str, Any] = {
            "models": [
                {"model": str(folder / name), **({"parameters": dict(own)} if own else {})}
                for name, own in self.models.items()
            ]
        }
        if self.slices:
            inputs = {
                "slices": [
                    {"sources": [{"model": str(folder / name), "layer_range": list(layers)}]}
                    for name, *layers in self.slices
                ]
            }
        value = {
            "merge_method": self.method,
            **inputs,
            **({"base_model": str(folder / self.base)} if self.base else {}),
            **({"parameters": parameters} if parameters else {}),
            "dtype": "float32",
            "out_dtype": self.out_dtype,
        }
        return yaml.safe_dump(value, sort_keys=False)


def sparse(method: str, **numbers: float) -> dict[str, Any]:
    return {"method": method, "models": {"a": {"weight": 0.5, **numbers}}}


W2 = {"a": {"weight": 0.7}, "b": {"weight": 0.3}}
W3 = {**W2, "c": {"weight": 0.4}}
NONE3: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "c": {}}
D2 = {"a": {"weight": 0.7, "density": 0.5}, "b": {"weight": 0.4, "density": 0.2}}
D3 = {**D2, "c": {"weight": 0.3, "density": 0.8}}
SCHEDULE = [
    {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
    {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
    {"value": 0.5},
]


def with_numbers(models: Mapping[str, Mapping[str, Any]], **numbers: float) -> dict[str, Any]:
    return {name: {**own, **numbers} for name, own in models.items()}


LAYER_SLICES = (("a", 0, 2), ("b", 1, 4), ("c", 3, 5))
DARE_L1 = {"parameters": {"rescale": True}, "ours": {"rescale": "l1_norm"}}
CASES = [
    Case("linear, two", "linear", W2, None),
    Case("linear, three, sum", "linear", W3, None, {"normalize": False}),
    Case("linear, gradients", "linear", {"a": {"weight": [0, 1]}, "b": {"weight": 0.5}}, None),
    Case("slerp, nearly parallel", "slerp", {"base": {}, "a": {}}, parameters={"t": 0.3}),
    Case("slerp, arc", "slerp", {"base": {}, "c": {}}, parameters={"t": 0.3}),
    Case("slerp, schedule", "slerp", {"base": {}, "b": {}}, parameters={"t": SCHEDULE}),
    Case("nuslerp", "nuslerp", {"a": {"weight": 1}, "c": {"weight": 3}}, None),
    Case("nuslerp of task vectors", "nuslerp", W2),
    Case("multislerp", "multislerp", W3, None),
    Case("multislerp of task vectors", "multislerp", W3),
    Case("multislerp, weights as given", "multislerp", W3, None, {"normalize_weights": False}),
    Case("karcher, two", "karcher", {"a": {}, "c": {}}, None),
    Case("karcher, three", "karcher", NONE3, None),
    Case("task_arithmetic, one", "task_arithmetic", {"a": {"weight": 0.5}}),
    Case("task_arithmetic, three", "task_arithmetic", W3, parameters={"lambda": 0.8}),
    Case("task_arithmetic, mean", "task_arithmetic", W3, parameters={"normalize": True}),
    Case("ties, one", **sparse("ties", density=0.5)),
    Case("ties, one, sum", **sparse("ties", density=0.2), parameters={"normalize": False}),
    Case("ties, two", "ties", D2),
    Case("ties, three", "ties", D3, parameters={"lambda": 1.5}),
    Case("ties, three, sum", "ties", D3, parameters={"normalize": False}),
    Case("ties, density 1", "ties", W3),
    Case("breadcrumbs", **sparse("breadcrumbs", density=0.6, gamma=0.05)),
    Case("breadcrumbs, three", "breadcrumbs", with_numbers(D3, gamma=0.1)),
    Case("breadcrumbs, gamma 0", "breadcrumbs", with_numbers(D2, gamma=0.0)),
    Case("breadcrumbs_ties, three", "breadcrumbs_ties", with_numbers(D3, gamma=0.01)),
    Case("model_stock, two", "model_stock", {"a": {}, "b": {}}),
    Case("model_stock, three", "model_stock", NONE3),
    Case("sce, all", "sce", NONE3),
    Case("sce, 30 %", "sce", NONE3, parameters={"select_topk": 0.3}),
    Case("nearswap", "nearswap", {"base": {}, "b": {}}, parameters={"t": 0.001}),
    Case("passthrough", "passthrough", {"a": {}}, None),
    Case("passthrough, scaled", "passthrough", {"a": {"scale": 0.3}}, None),
    Case("passthrough, layers", "passthrough", NONE3, None, slices=LAYER_SLICES),
    Case("dare_linear, one", **sparse("dare_linear", density=0.5), **DARE_L1),
    Case("dare_linear, 1/density", **sparse("dare_linear", density=0.1)),
    Case("dare_ties, one", **sparse("dare_ties", density=0.5), **DARE_L1),
    Case("dare_ties, three", "dare_ties", D3, **DARE_L1),
    Case("della_linear, one", **sparse("della_linear", density=0.5, epsilon=0.2), **DARE_L1),
    Case("della_linear, by chance", **sparse("della_linear", density=0.4, epsilon=0.3)),
    Case("della, three", "della", with_numbers(D3, epsilon=0.15), **DARE_L1),
]


# --- models ---------------------------------------------------------------------------------------


def shapes() -> dict[str, tuple[int, ...]]:
    kv = HIDDEN // HEADS * KV_HEADS
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        found |= {
            f"{at}.input_layernorm.weight": (HIDDEN,),
            f"{at}.mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
            f"{at}.mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{at}.mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{at}.post_attention_layernorm.weight": (HIDDEN,),
            f"{at}.self_attn.k_proj.weight": (kv, HIDDEN),
            f"{at}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{at}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{at}.self_attn.v_proj.weight": (kv, HIDDEN),
        }
    return {**found, "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def noise(label: str, name: str, num: int) -> np.ndarray:
    """Return numbers of deviation 1: sums of four counted ones, so the same on any machine."""
    key = dropping_key(0, 0, f"{label} {name}")
    numbers = random_numbers(key, 0, 4 * num).reshape(4, num) / 2.0**32
    return (numbers[0] + numbers[1] + numbers[2] + numbers[3] - 2.0) * 3**0.5


def weights(model: str) -> dict[str, Tensor]:
    """Return the tensors of one model."""
    tensors = {}
    for name, shape in shapes().items():
        num = int(np.prod(shape))
        values = noise("base", name, num) * 0.02 + float(len(shape) == 1)
        if MODELS[model]:
            own = COMMON * noise("common", name, num) + (1 - COMMON**2) ** 0.5 * noise(
                model, name, num
            )
            base = torch.from_numpy(values).to(torch.bfloat16).double().numpy()
            values = base + own * (0.02 * MODELS[model])
        tensors[name] = torch.from_numpy(values).to(torch.bfloat16).reshape(shape)
    return tensors


def make_models(folder: Path) -> None:
    """Write the checkpoints."""
    config = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    for model in MODELS:
        (folder / model).mkdir(parents=True)
        (folder / model / "config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(weights(model), folder / model / "model.safetensors", {"format": "pt"})


# --- merging --------------------------------------------------------------------------------------


def merge_ours(case: Case, folder: Path, out: Path) -> dict[str, Tensor]:
    """Return the weights that this package makes of the models in ``folder``."""
    config = out.with_suffix(".yml")
    config.write_text(case.text(folder, for_us=True), encoding="utf-8")
    return load(merge_config(config, out, options=MergeOptions(seed=SEED)))


def load(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names and bits, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def kept_digests() -> dict[str, str]:
    """Return the digests of the last comparison, by title of the case."""
    found: dict[str, str] = json.loads(KEPT.read_text(encoding="utf-8"))["sha256"]
    return found
