"""Settings of quantization: what may be written under ``quantize`` in a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from biomistral.recipe.fields import Name, Settings

GgufType = Literal["bf16", "q8_0", "q4_0", "q3_k_m", "q4_k_s", "q4_k_m", "q5_k_m", "q6_k"]


class Quantization(Settings):
    """What all methods share."""

    name: Name = Field(description="Name of the model it makes.")
    model: str = Field(description="Model to quantize.")
    held_out: str | None = Field(
        None,
        description="Corpus on whose held-out rows the perplexity before and after is measured; "
        "needs the memory of the whole model.",
    )


class BitsandbytesQuantization(Quantization):
    """Weights in 8 bits (LLM.int8, arXiv 2208.07339) or 4 bits (NF4, arXiv 2305.14314)."""

    method: Literal["bitsandbytes"] = Field(description="bitsandbytes")
    bits: Literal[4, 8] = Field(description="Bits per weight.")
    double_quantization: bool = Field(False, description="Quantize the scales too (4 bits only).")

    @model_validator(mode="after")
    def _double_needs_four_bits(self) -> BitsandbytesQuantization:
        if self.double_quantization and self.bits == 8:
            raise ValueError("double_quantization has no effect with bits: 8; leave it out")
        return self


class AwqQuantization(Quantization):
    """Activation-aware 4-bit weights (AWQ, arXiv 2306.00978)."""

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


class GgufQuantization(Quantization):
    """One file for llama.cpp and what is built on it: weights, tokenizer and chat template."""

    method: Literal["gguf"] = Field(description="gguf")
    type: GgufType = Field(
        description="Type of the matrices; those with k are made by llama-quantize of llama.cpp."
    )


class HalfPrecision(Quantization):
    """All weights in 16 bits: nothing is quantized, and what trained in 32 bits is half as large."""

    method: Literal["half"] = Field(description="half")
    dtype: Literal["float16", "bfloat16"] = Field("bfloat16", description="Type of the weights.")


QuantizeSettings = Annotated[
    BitsandbytesQuantization | AwqQuantization | GgufQuantization | HalfPrecision,
    Field(discriminator="method"),
]
