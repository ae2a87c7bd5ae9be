"""What a method is called, in a card and in a table."""

from __future__ import annotations

from biomistral.recipe.settings import (
    AwqQuantization,
    BitsandbytesQuantization,
    GgufQuantization,
    QuantizeSettings,
)


def describe(settings: QuantizeSettings) -> str:
    """Name method, bits and layout in a few words."""
    if isinstance(settings, AwqQuantization):
        layout = settings.layout.upper()
        return f"AWQ, {settings.bits} bits, groups of {settings.group_size}, {layout} layout"
    if isinstance(settings, BitsandbytesQuantization):
        kind = "LLM.int8" if settings.bits == 8 else "NF4"
        double = ", double quantization" if settings.double_quantization else ""
        return f"bitsandbytes, {settings.bits} bits ({kind}){double}"
    if isinstance(settings, GgufQuantization):
        return f"GGUF, {settings.type.upper()}"
    return f"half precision, {settings.dtype}"
