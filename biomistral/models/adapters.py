"""LoRA adapters as PEFT saves them: what they add to which tensor of their base model.

An adapter is ``adapter_config.json`` and ``adapter_model.safetensors``. For a linear weight W of
shape (O, I) it holds A (r, I) and B (O, r) and stands for ``W + scaling * B @ A``, with scaling
alpha / r, or alpha / sqrt(r) if ``use_rslora``; other tensors it replaces as a whole. Reading opens
the headers only and needs no PyTorch. What would change the sum and is not known here (DoRA and its
kin) is refused, and so is an adapter of which a tensor finds no place in the base model: it would
be merged in part, and nobody would know. Knows nothing about how adapters are trained.

Hu et al., "LoRA", arXiv 2106.09685; Kalajdzievski, "rsLoRA", arXiv 2312.03732. Format: PEFT.

Shapes: O rows and I columns of a weight, r the rank.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomistral.errors import ModelError, did_you_mean
from biomistral.models.safetensors_files import StoredTensor, read_header

if TYPE_CHECKING:
    from torch import Tensor

    from biomistral.models.checkpoints import Checkpoint

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
PICKLED_ADAPTER_FILE = "adapter_model.bin"

PREFIX = "base_model.model."  # before the names of the base model's modules
# Key in the file: the module, then the part of it. Embeddings have parts of their own.
_PART = re.compile(r"(.+)\.lora_(?:embedding_)?([AB])(?:\.weight)?")
_EMBEDDING_PART = ".lora_embedding_"

# Settings of PEFT under which an adapter stands for something else than W + scaling * B @ A.
_UNSUPPORTED = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
)
# First values of A and B that leave the base weights as they are; PiSSA, OLoRA, LoftQ ... do not.
_PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LowRankUpdate:
    """What is added to one weight: ``scaling * B @ A``, turned over if ``transposed``."""

    a: StoredTensor  # (r, I)
    b: StoredTensor  # (O, r)
    scaling: float
    transposed: bool = False  # the weight is stored as (I, O): embeddings, Conv1D of GPT-2

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight it is added to."""
        rows, columns = self.b.shape[0], self.a.shape[1]
        return (columns, rows) if self.transposed else (rows, columns)


@dataclass(frozen=True)
class Adapter:
    """An opened adapter folder. Names are those of the base model's tensors."""

    folder: Path
    config: Mapping[str, Any]
    updates: Mapping[str, LowRankUpdate]
    replacements: Mapping[str, StoredTensor]

    @property
    def base_model(self) -> str | None:
        """Name of the base model as the one who trained the adapter had it."""
        return self.config.get("base_model_name_or_path") or None

    def update_for(self, tensor_name: str) -> LowRankUpdate | None:
        """Return what is to be added to a tensor of the base model, if anything."""
        return self.updates.get(tensor_name)

    def replacement_for(self, tensor_name: str) -> StoredTensor | None:
        """Return what takes the place of a tensor of the base model, if anything.

        An update of the same tensor is to be added to the replacement.
        """
        return self.replacements.get(tensor_name)

    def fitted_to(self, base: Checkpoint) -> Adapter:
        """Return the adapter with the names that the files of ``base`` have for the same tensors.

        They may lack the first part of a module's name (``transformer.h.0`` and ``h.0``). Raises
        ``ModelError`` if a tensor of the adapter finds no place in the base, or not its shape.
        """
        replacements = dict(self.replacements)
        if self.config.get("ensure_weight_tying") and base.config.get("tie_word_embeddings"):
            # Then PEFT saves the same values once more for the head that the files do not have.
            replacements = {
                name: stored
                for name, stored in replacements.items()
                if name in base.tensors or not name.endswith("lm_head.weight")
            }
        return dataclasses.replace(
            self,
            updates={self._name_in(base, n, u.shape): u for n, u in self.updates.items()},
            replacements={self._name_in(base, n, s.shape): s for n, s in replacements.items()},
        )

    def _name_in(self, base: Checkpoint, name: str, shape: tuple[int, ...]) -> str:
        found = next((n for n in (name, name.partition(".")[2]) if n in base.tensors), None)
        if found is None:
            tied = base.config.get("tie_word_embeddings") and name.endswith("lm_head.weight")
            hint = "; it shares that tensor with its embedding" if tied else ""
            raise ModelError(
                f"{self.folder}: changes {name}, which the model {base.folder} does not "
                f"have{hint or did_you_mean(name, base.tensors)}; name the model that the adapter "
                f"was trained on ({self.base_model or 'its config does not say which'})"
            )
        if base.tensors[found].shape != shape:
            raise ModelError(
                f"{self.folder}: {name} is of shape {list(shape)} in the adapter and "
                f"{list(base.tensors[found].shape)} in {base.folder}; name the model that the "
                f"adapter was trained on ({self.base_model or 'its config does not say which'}), "
                "with its vocabulary resized as it was then"
            )
        return found


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def read_adapter(folder: Path, *, allow_pickle: bool = False) -> Adapter:
    """Open an adapter folder: config and headers.

    Raises ``ModelError`` if it is no whole LoRA adapter, or one whose effect is not known here.
    """
    config = _read_config(folder)
    _check_supported(folder, config)
    updates: dict[str, dict[str, StoredTensor]] = {}
    replacements: dict[str, StoredTensor] = {}
    for stored in _stored_tensors(folder, allow_pickle=allow_pickle):
        name = stored.name.removeprefix(PREFIX)
        if part := _PART.fullmatch(name):
            updates.setdefault(part[1], {})[part[2]] = stored
        elif ".lora_" in name or not name.endswith((".weight", ".bias")):
            raise ModelError(
                f"{folder / ADAPTER_FILE}: holds {stored.name}, which is neither the A nor the B "
                f"of a LoRA adapter nor a whole tensor; {_MERGE_WITH_PEFT}"
            )
        else:
            whole = name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")
            replacements[whole] = stored
    _check_complete(folder, config, updates, replacements)
    return Adapter(
        folder=folder,
        config=config,
        updates={f"{m}.weight": _update(folder, config, m, p) for m, p in sorted(updates.items())},
        replacements=dict(sorted(replacements.items())),
    )


_MERGE_WITH_PEFT = (
    "merge such an adapter with PEFT (model.merge_and_unload(), then save_pretrained) and name the "
    "folder of the result"
)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise ModelError(
            f"{folder}: has no {ADAPTER_CONFIG}; name the folder of an adapter, as PEFT saves it"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not JSON ({error}); fetch the file again") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: holds no object; fetch the file again")
    return config


def _check_supported(folder: Path, config: Mapping[str, Any]) -> None:
    path = folder / ADAPTER_CONFIG
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"{path}: is of the type {config.get('peft_type')!r}; LORA is what can be read here; "
            f"{_MERGE_WITH_PEFT}"
        )
    found = [key for key in _UNSUPPORTED if config.get(key)]
    if config.get("bias", "none") != "none":
        found.append("bias")
    if config.get("init_lora_weights") not in _PLAIN_INITS:
        found.append("init_lora_weights")
    if found:
        values = ", ".join(f"{key}: {json.dumps(config[key])}" for key in found)
        raise ModelError(
            f"{path}: has {values}, so that it stands for more than a sum of the base and a "
            f"product of two matrices; {_MERGE_WITH_PEFT}"
        )


def _stored_tensors(folder: Path, *, allow_pickle: bool) -> list[StoredTensor]:
    if (folder / ADAPTER_FILE).is_file():
        return read_header(folder / ADAPTER_FILE)
    if not (folder / PICKLED_ADAPTER_FILE).is_file():
        raise ModelError(f"{folder}: has no {ADAPTER_FILE}; fetch the adapter again")
    if not allow_pickle:
        raise ModelError(
            f"{folder}: its weights are pickled ({PICKLED_ADAPTER_FILE}), and a pickle can run any "
            "code when it is opened; convert an adapter that you trust with PEFT (load it, then "
            "save_pretrained), or let it be read as plain weights with --allow-pickle"
        )
    from biomistral.models.pickled import read_pickled

    return read_pickled(folder / PICKLED_ADAPTER_FILE)


def _check_complete(
    folder: Path,
    config: Mapping[str, Any],
    updates: Mapping[str, Mapping[str, StoredTensor]],
    replacements: Mapping[str, StoredTensor],
) -> None:
    """Raise ``ModelError`` if the file has no tensors for something that the config names."""
    for module, parts in updates.items():
        if missing := {"A", "B"} - parts.keys():
            raise ModelError(
                f"{folder / ADAPTER_FILE}: has one half of the update of {module}, but no "
                f"lora_{missing.pop()}; fetch the adapter again"
            )
    modules = [*updates, *(name.rpartition(".")[0] for name in replacements)]
    targets = config.get("target_modules")
    named = [
        *(targets if isinstance(targets, list) else ()),
        *(config.get("modules_to_save") or ()),
    ]
    for name in named:
        if not any(module.endswith(name) for module in modules):
            raise ModelError(
                f"{folder / ADAPTER_CONFIG}: names the module {name!r}, for which {ADAPTER_FILE} "
                "has no tensor; fetch both files of one adapter"
            )
    if not modules:
        raise ModelError(f"{folder / ADAPTER_FILE}: has no tensors; fetch the adapter again")


def _update(
    folder: Path, config: Mapping[str, Any], module: str, parts: Mapping[str, StoredTensor]
) -> LowRankUpdate:
    """Make one module's update, with the rank and alpha that the config has for it."""
    a, b = parts["A"], parts["B"]
    rank = _for_module(config.get("rank_pattern"), module, config.get("r"))
    alpha = _for_module(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
    if not isinstance(rank, int) or not isinstance(alpha, int | float):
        raise ModelError(
            f"{folder / ADAPTER_CONFIG}: r is {rank!r} and lora_alpha {alpha!r} for {module}; both "
            "have to be numbers; fetch the file again"
        )
    if len(a.shape) != 2 or len(b.shape) != 2 or not (a.shape[0] == b.shape[1] == rank > 0):
        raise ModelError(
            f"{folder}: {module} has A of shape {list(a.shape)} and B of shape {list(b.shape)}, "
            f"which is no update of the rank {rank} that {ADAPTER_CONFIG} gives it; fetch both "
            "files of one adapter"
        )
    transposed = _EMBEDDING_PART in a.name or bool(config.get("fan_in_fan_out"))
    divisor = math.sqrt(rank) if config.get("use_rslora") else rank
    return LowRankUpdate(a, b, alpha / divisor, transposed)


def _for_module(pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Return the value of the first pattern that is a module's name or the end of it."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


# --- values ---------------------------------------------------------------------------------------


class UpdatedValues:
    """The weight of a base model with an update added: n = O * I values, read in slices.

    Only the rows that a slice touches are computed. The product is made in float64 and rounded
    once, so that the order in which a machine adds does not show. ``read`` returns the values of a
    stored tensor in its shape. Raises ``ModelError`` if A or B hold NaN or infinity.
    """

    def __init__(
        self, base: StoredTensor, update: LowRankUpdate, read: Callable[[StoredTensor], Tensor]
    ) -> None:
        assert base.shape == update.shape, base.name
        self._base, self._update, self._read = base, update, read

    def numel(self) -> int:
        """Return n."""
        return self._base.num_elements

    def __getitem__(self, place: slice) -> Tensor:
        """Compute the values from ``place.start`` to ``place.stop``: float32, (stop - start,)."""
        start, stop, step = place.indices(self.numel())
        assert step == 1, "values are read in a row"
        values = self._values[start:stop].float()
        if start >= stop:
            return values
        left, right = self._factors
        columns = self._base.shape[1]
        first_row, end_row = start // columns, -(-stop // columns)
        change = (left[first_row:end_row] @ right).view(-1)[start - first_row * columns :]
        change = change[: stop - start].mul_(self._update.scaling)
        return values + change.float()

    @cached_property
    def _values(self) -> Tensor:
        return self._read(self._base).reshape(-1)

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor]:
        """Both factors in float64, in the order that gives the rows of the weight."""
        a, b = (self._finite(stored) for stored in (self._update.a, self._update.b))
        return (a.T.contiguous(), b.T.contiguous()) if self._update.transposed else (b, a)

    def _finite(self, stored: StoredTensor) -> Tensor:
        values = self._read(stored).double()
        if not values.isfinite().all():
            raise ModelError(
                f"{stored.file}: {stored.name} holds NaN or infinity; the adapter is broken (a "
                "diverged training or a damaged copy): fetch it again or use another one"
            )
        return values
