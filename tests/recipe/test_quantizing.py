from __future__ import annotations

import pytest
from pydantic import ValidationError

from biomistral.recipe.quantizing import BitsandbytesQuantization


def test_double_quantization_without_effect_is_refused() -> None:
    entry = {"name": "q", "model": "a", "method": "bitsandbytes", "bits": 8}
    with pytest.raises(ValidationError, match="no effect with bits: 8"):
        BitsandbytesQuantization.model_validate({**entry, "double_quantization": True})
