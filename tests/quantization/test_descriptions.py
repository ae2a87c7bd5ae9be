from __future__ import annotations

import pytest

from biomistral.quantization.descriptions import describe
from biomistral.recipe.settings import (
    AwqQuantization,
    BitsandbytesQuantization,
    GgufQuantization,
    HalfPrecision,
)

NAMES = {"name": "small", "model": "m"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (AwqQuantization(**NAMES, method="awq"), "AWQ, 4 bits, groups of 128, GEMM layout"),
        (
            BitsandbytesQuantization(**NAMES, method="bitsandbytes", bits=8),
            "bitsandbytes, 8 bits (LLM.int8)",
        ),
        (
            BitsandbytesQuantization(
                **NAMES, method="bitsandbytes", bits=4, double_quantization=True
            ),
            "bitsandbytes, 4 bits (NF4), double quantization",
        ),
        (GgufQuantization(**NAMES, method="gguf", type="q4_k_m"), "GGUF, Q4_K_M"),
        (HalfPrecision(**NAMES, method="half"), "half precision, bfloat16"),
    ],
)
def test_each_method_has_its_words(settings, words):
    assert describe(settings) == words
