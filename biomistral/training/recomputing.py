"""Computing activations again in the backward pass instead of keeping them: less memory, more time."""

from __future__ import annotations

from typing import Any


def recompute_activations(model: Any) -> None:
    """Turn it on, layer by layer, by the name that this version of Transformers has for it."""
    # Transformers before 5.20 has the old name only; later ones warn of it.
    name = "activation_checkpointing_enable"
    enable = getattr(model, name, None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
