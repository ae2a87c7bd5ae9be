"""Shapes of models of the hub that are often trained from, for an estimate before they are fetched.

The numbers are those of the ``config.json`` that their makers published. Knows nothing about files.
"""

from __future__ import annotations

from biomistral.training.memory import Shape

MISTRAL_7B = Shape(
    hidden=4096,
    intermediate=14336,
    layers=32,
    heads=32,
    key_value_heads=8,
    head_width=128,
    vocabulary=32_000,
    is_tied=False,
)
MISTRAL_7B_V3 = Shape(4096, 14336, 32, 32, 8, 128, 32_768, is_tied=False)
LLAMA_2_7B = Shape(4096, 11008, 32, 32, 32, 128, 32_000, is_tied=False)

_BY_NAME = {
    "mistralai/Mistral-7B-v0.1": MISTRAL_7B,
    "mistralai/Mistral-7B-Instruct-v0.1": MISTRAL_7B,
    "mistralai/Mistral-7B-Instruct-v0.2": MISTRAL_7B,
    "mistralai/Mistral-7B-v0.3": MISTRAL_7B_V3,
    "mistralai/Mistral-7B-Instruct-v0.3": MISTRAL_7B_V3,
    "BioMistral/BioMistral-7B": MISTRAL_7B,
    "meta-llama/Llama-2-7b-hf": LLAMA_2_7B,
    "meta-llama/Llama-2-7b-chat-hf": LLAMA_2_7B,
}


def shape_by_name(path: str) -> Shape | None:
    """Shape of a model of the hub by owner/name, in any case; None of one that is not listed."""
    return {name.lower(): shape for name, shape in _BY_NAME.items()}.get(path.lower())
