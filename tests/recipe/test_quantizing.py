from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from biomistral.recipe.quantizing import (
    AwqQuantization,
    BitsandbytesQuantization,
    GgufQuantization,
    HalfPrecision,
    QuantizeSettings,
)

ANY: TypeAdapter[QuantizeSettings] = TypeAdapter(QuantizeSettings)


def test_double_quantization_without_effect_is_refused() -> None:
    entry = {"name": "q", "model": "a", "method": "bitsandbytes", "bits": 8}
    with pytest.raises(ValidationError, match="no effect with bits: 8"):
        BitsandbytesQuantization.model_validate({**entry, "double_quantization": True})


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"method": "awq"}, AwqQuantization),
        ({"method": "bitsandbytes", "bits": 4}, BitsandbytesQuantization),
        ({"method": "gguf", "type": "q8_0"}, GgufQuantization),
        ({"method": "half"}, HalfPrecision),
    ],
)
def test_the_method_says_what_may_be_set(entry: dict[str, object], kind: type) -> None:
    assert isinstance(ANY.validate_python({"name": "q", "model": "a", **entry}), kind)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"method": "gptq"}, "'bitsandbytes', 'awq', 'gguf', 'half'"),
        ({"method": "gguf", "type": "q9"}, "'bf16', 'q8_0', 'q4_0'"),
        ({"method": "gguf"}, "type"),
        ({"method": "awq", "layout": "marlin"}, "'gemm' or 'gemv'"),
        ({"method": "half", "dtype": "float32"}, "'float16' or 'bfloat16'"),
    ],
)
def test_unknown_formats_are_refused_with_those_there_are(
    entry: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        ANY.validate_python({"name": "q", "model": "a", **entry})
