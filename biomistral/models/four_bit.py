"""Load an ``awq`` checkpoint with its weights left in four bits, for a CPU.

Its linear layers become those of ``hybrid``, everything else is bfloat16. A layer whose shape the
kernel does not take is written out. The embedding, of which a text needs a few rows, stays in its file
and is read where it is looked up, unless the head shares it. Knows nothing about how either computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from biomistral.errors import ModelError
from biomistral.models.awq import PackedLinear, check_format, stored_tensors
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.hybrid import hybrid_of
from biomistral.models.memory import give_back_memory


class StoredEmbedding(nn.Module):
    """An embedding that is left where it is stored, and as it is; gives bfloat16."""

    weight: Tensor  # (V, H), a mapped file

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (..., H) for ids (...)."""
        return F.embedding(tokens, self.weight).to(torch.bfloat16)


def load_four_bit_model(folder: Path) -> Any:
    """Return the model in evaluation mode, on the CPU; ``hybrid.is_available`` must hold.

    Raises ``ModelError`` if the folder is no whole checkpoint, is not in this format, or holds
    tensors that do not fit its config.
    """
    checkpoint = Checkpoint(folder)
    check_format(folder, checkpoint.config.get("quantization_config"))
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    config.dtype = torch.bfloat16
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with init_empty_weights(include_buffers=False):  # the rotary frequencies are made and kept
        model = model_class(config)
    embedding = _embedding_name(model)
    for name, value in stored_tensors(checkpoint):
        if isinstance(value, PackedLinear):
            _put_layer(model, folder, name, value)
        elif name == f"{embedding}.weight":
            _put_embedding(model, folder, embedding, Checkpoint(folder).tensor(name))
        else:
            _put_tensor(model, folder, name, value)
        checkpoint.forget_pages()  # else all of the file would be in memory at the end
    model.tie_weights()
    if missing := [name for name, each in model.named_parameters() if each.is_meta]:
        raise ModelError(
            f"{folder}: lacks the weight {missing[0]!r} ({len(missing)} such in all); make the "
            "checkpoint again"
        )
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.save_pretrained = _refuse_to_save
    give_back_memory()  # what unpacking took, as much again as a quarter of the weights
    return model.eval()


def _put_layer(model: Any, folder: Path, name: str, packed: PackedLinear) -> None:
    old = _found(model, folder, name)
    layer = hybrid_of(packed)
    if layer is None:
        _put_tensor(model, folder, f"{name}.weight", packed.weight())
        return
    expected = (getattr(old, "out_features", None), getattr(old, "in_features", None))
    if expected != (layer.out_features, layer.in_features):
        raise _other_shape(folder, name, (layer.out_features, layer.in_features))
    layer.bias = getattr(old, "bias", None)  # perhaps read before, perhaps still to come
    model.set_submodule(name, layer)


def _embedding_name(model: Any) -> str:
    """Name of the embedding's module; nothing if the head shares its weight."""
    embedding = None if model.config.tie_word_embeddings else model.get_input_embeddings()
    return next((name for name, module in model.named_modules() if module is embedding), "")


def _put_embedding(model: Any, folder: Path, name: str, value: Tensor) -> None:
    if _found(model, folder, name).weight.shape != value.shape:
        raise _other_shape(folder, f"{name}.weight", tuple(value.shape))
    model.set_submodule(name, StoredEmbedding(value))


def _put_tensor(model: Any, folder: Path, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = _found(model, folder, owner)
    old = getattr(module, leaf, None)
    if old is None or old.shape != value.shape:
        raise _other_shape(folder, name, tuple(value.shape))
    setattr(module, leaf, nn.Parameter(value.to(torch.bfloat16), requires_grad=False))


def _found(model: Any, folder: Path, name: str) -> nn.Module:
    try:
        module: nn.Module = model.get_submodule(name)
    except AttributeError:
        raise ModelError(
            f"{folder}: holds weights of {name!r}, which a model of its config does not have; make "
            "the checkpoint again"
        ) from None
    return module


def _other_shape(folder: Path, name: str, shape: tuple[int, ...]) -> ModelError:
    return ModelError(
        f"{folder}: {name} has the shape {shape}, another one than its config says; make the "
        "checkpoint again"
    )


def _refuse_to_save(*_: object, **__: object) -> NoReturn:
    raise ModelError(
        "a model in four bits is not saved from memory, where its weights lie in another order; copy "
        "the folder that it was loaded from"
    )
