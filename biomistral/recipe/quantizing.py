"""Settings of quantization: what may be written under ``quantize`` in a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from biomistral.recipe.fields import Name, Settings


class BitsandbytesQuantization(Settings):
    """Weights in 8 bits (LLM.int8, arXiv 2208.07339) or 4 bits (NF4, arXiv 2305.14314)."""

    name: Name = Field(description="Name of the model it makes.")
    model: str = Field(description="Model to quantize.")
    method: Literal["bitsandbytes"] = Field(description="bitsandbytes")
    bits: Literal[4, 8] = Field(description="Bits per weight.")
    double_quantization: bool = Field(False, description="Quantize the scales too (4 bits only).")

    @model_validator(mode="after")
    def _double_needs_four_bits(self) -> BitsandbytesQuantization:
        if self.double_quantization and self.bits == 8:
            raise ValueError("double_quantization has no effect with bits: 8; leave it out")
        return self


class AwqQuantization(Settings):
    """Activation-aware 4-bit weights (AWQ, arXiv 2306.00978)."""

    name: Name = Field(description="Name of the model it makes.")
    model: str = Field(description="Model to quantize.")
    method: Literal["awq"] = Field(description="awq")
    bits: Literal[4] = Field(4, description="Bits per weight.")
    group_size: int = Field(128, ge=8, description="Weights that share one scale and zero point.")
    layout: Literal["gemm", "gemv"] = Field(
        "gemm", description="How weights are packed; most readers know gemm only."
    )
    corpus: str | None = Field(
        None, description="Corpus for calibration; may be left out if there is only one."
    )
    calibration_rows: int = Field(64, ge=1, description="Rows of that corpus used.")


QuantizeSettings = Annotated[
    BitsandbytesQuantization | AwqQuantization, Field(discriminator="method")
]
