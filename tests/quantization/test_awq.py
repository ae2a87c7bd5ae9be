from __future__ import annotations

import pytest
import torch

from biomistral.models.awq import PackedLinear, pack_linear
from biomistral.quantization import awq
from biomistral.quantization.awq import (
    InputStatistics,
    ScaledWeight,
    round_to_nearest,
    search_cut,
    search_scale,
)

GROUP_SIZE = 16


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def observed(inputs: torch.Tensor) -> InputStatistics:
    statistics = InputStatistics(inputs.shape[1], GROUP_SIZE)
    statistics.add(inputs)
    return statistics


def with_outliers(generator: torch.Generator, tokens: int = 300, inputs: int = 64) -> torch.Tensor:
    """Inputs of which three channels are thirty times as large as the rest."""
    values = torch.randn(tokens, inputs, generator=generator)
    values[:, [3, 20, 41]] *= 30
    return values


def mean_squared_output_error(
    inputs: torch.Tensor, weight: torch.Tensor, other: torch.Tensor
) -> float:
    return float((inputs.double() @ (other - weight).double().T).square().sum(dim=1).mean())


def test_a_group_rounded_by_hand():
    # Range -1 to 2: a step of 0.2, zero point 5; 0.29 is 1.45 steps, 2.0 is ten.
    weight = torch.tensor([[-1.0, 0.0, 0.29, 2.0]])
    quantized = round_to_nearest(weight, 4)
    assert quantized.zeros.tolist() == [[5]]
    assert quantized.levels.tolist() == [[0, 5, 6, 15]]
    assert quantized.scales.tolist() == [[pytest.approx(0.2, rel=1e-3)]]
    assert torch.allclose(quantized.weight(), torch.tensor([[-1.0, 0.0, 0.2, 2.0]]), atol=2e-3)


@pytest.mark.parametrize("scale", [1e-8, 1e-5, 1.0, 1e4])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
def test_rounding_is_off_by_at_most_half_a_step_wherever_the_group_lies(generator, scale, shift):
    weight = (torch.randn(8, 32, generator=generator) + shift) * scale
    quantized = round_to_nearest(weight, GROUP_SIZE)
    # A scale is itself rounded to half, which can leave the end of the range uncovered by 15 times that.
    step = quantized.scales.float().repeat_interleave(GROUP_SIZE, dim=1)
    slack = (step * 2**-11).clamp(min=2**-25) * 15
    assert bool(((quantized.weight() - weight).abs() <= step / 2 + slack + 1e-9).all())


def test_zeros_stay_zero():
    weight = torch.zeros(2, 32)
    weight[0, 3], weight[1, 5] = 0.7, -0.3
    rounded = round_to_nearest(weight, GROUP_SIZE).weight()
    assert torch.equal(rounded == 0, weight == 0)


def test_packed_form_stands_for_the_same_weight(generator):
    quantized = round_to_nearest(torch.randn(16, 32, generator=generator), GROUP_SIZE)
    for layout in ("gemm", "gemv"):
        parts = pack_linear(quantized.levels, quantized.zeros, quantized.scales, layout)
        packed = PackedLinear(**parts, layout=layout, group_size=GROUP_SIZE)
        assert torch.equal(packed.weight(), quantized.weight())


def test_a_scaled_weight_in_blocks_is_the_whole_one(generator, monkeypatch):
    stored = torch.randn(50, 32, generator=generator).bfloat16()
    columns, rows = torch.rand(32, generator=generator) + 1, torch.rand(50, generator=generator) + 1
    monkeypatch.setattr(awq, "_BLOCK_ELEMENTS", 16 * 32)
    blocks = list(ScaledWeight(stored, columns, rows).blocks())
    assert [(span.start, span.stop) for span, _ in blocks] == [
        (0, 16),
        (16, 32),
        (32, 48),
        (48, 50),
    ]
    expected = stored.float() * columns / rows[:, None]
    assert torch.allclose(torch.cat([block for _, block in blocks]), expected)


def test_a_thinned_weight_has_rows_from_all_over(generator):
    stored, rows = torch.randn(50, 32, generator=generator), torch.arange(1.0, 51.0)
    thinned = ScaledWeight(stored, None, rows).thinned(20)
    ((_, block),) = thinned.blocks()
    assert torch.allclose(block, (stored / rows[:, None])[0:50:3])
    assert ScaledWeight(stored).thinned(50).stored.shape == (50, 32)


@pytest.mark.parametrize("sketched", [False, True])
def test_statistics_do_not_depend_on_how_tokens_come_in_pieces(generator, monkeypatch, sketched):
    if sketched:
        monkeypatch.setattr(awq, "SKETCH_ROWS", 16)
    inputs = torch.randn(50, 32, generator=generator)
    whole, pieces = observed(inputs), InputStatistics(32, GROUP_SIZE)
    for piece in inputs.split([1, 30, 19]):
        pieces.add(piece)
    assert torch.allclose(whole.magnitude, inputs.abs().mean(dim=0))
    assert torch.allclose(pieces.magnitude, whole.magnitude)
    assert torch.allclose(pieces.blocks, whole.blocks, atol=1e-6)
    if not sketched:
        difference = torch.randn(4, 32, generator=generator)
        assert pieces.output_error(difference) == pytest.approx(whole.output_error(difference))


@pytest.mark.parametrize("sketched", [False, True])
def test_statistics_of_divided_inputs(generator, monkeypatch, sketched):
    if sketched:
        monkeypatch.setattr(awq, "SKETCH_ROWS", 16)
    inputs = torch.randn(50, 32, generator=generator)
    scale = torch.rand(32, generator=generator) + 0.5
    divided, direct = observed(inputs), observed(inputs / scale)
    divided.divide(scale)
    assert divided.is_exact is not sketched
    assert torch.allclose(divided.magnitude, direct.magnitude)
    assert torch.allclose(divided.blocks, direct.blocks, atol=1e-5)
    difference = torch.randn(4, 32, generator=generator)
    assert divided.output_error(difference) == pytest.approx(
        direct.output_error(difference), rel=1e-4
    )


def test_output_error_is_the_mean_square_over_the_tokens(generator):
    inputs = with_outliers(generator)
    weight, other = torch.randn(2, 24, 64, generator=generator)
    error = observed(inputs).output_error(other - weight)
    assert error == pytest.approx(mean_squared_output_error(inputs, weight, other), rel=1e-5)


def test_the_sketch_knows_the_output_error_and_its_order(generator, monkeypatch):
    # 1,000 tokens into 256 rows: the error of rounding is known to a few percent, and which of two
    # roundings is better to far less than their distance.
    inputs = with_outliers(generator, tokens=1000, inputs=512)
    weight = torch.randn(64, 512, generator=generator)
    exact = observed(inputs)
    monkeypatch.setattr(awq, "SKETCH_ROWS", 256)
    sketch = observed(inputs)
    assert exact.is_exact
    assert not sketch.is_exact
    plain = round_to_nearest(weight, GROUP_SIZE).weight() - weight
    assert sketch.output_error(plain) == pytest.approx(exact.output_error(plain), rel=0.1)
    found = search_scale([ScaledWeight(weight)], sketch, GROUP_SIZE)
    best = search_scale([ScaledWeight(weight)], exact, GROUP_SIZE)

    def error_with(scale: torch.Tensor) -> float:
        rounded = round_to_nearest(weight * scale, GROUP_SIZE).weight() / scale
        return exact.output_error(rounded - weight)

    assert error_with(found) <= 1.03 * error_with(best)
    assert error_with(best) < 0.7 * exact.output_error(plain)


def slow_best_exponent(weights, inputs) -> tuple[float, torch.Tensor]:
    """The search of arXiv 2306.00978 as its equations say it, on the tokens themselves."""
    best = (float("inf"), torch.ones(inputs.shape[1]))
    for exponent in [i / 20 for i in range(20)]:
        scale = inputs.abs().mean(dim=0) ** exponent
        scale = scale / (scale.max() * scale.min()).sqrt()
        loss = 0.0
        for weight in weights:
            rounded = round_to_nearest(weight * scale, GROUP_SIZE).weight()
            loss += float(((inputs / scale) @ rounded.T - inputs @ weight.T).square().sum())
        best = min(best, (loss, scale), key=lambda pair: pair[0])
    return best


def test_scale_search_agrees_with_a_search_on_the_tokens(generator):
    inputs = with_outliers(generator)
    weights = [torch.randn(24, 64, generator=generator), torch.randn(8, 64, generator=generator)]
    _, expected = slow_best_exponent(weights, inputs)
    found = search_scale([ScaledWeight(w) for w in weights], observed(inputs), GROUP_SIZE)
    assert torch.allclose(found, expected, rtol=1e-4)
    assert found[3] > found.median()


def test_equal_activations_need_no_scale():
    inputs = torch.ones(10, 32)
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(4))
    scale = search_scale([ScaledWeight(weight)], observed(inputs), GROUP_SIZE)
    assert torch.equal(scale, torch.ones(32))


def test_a_channel_that_is_never_used_keeps_the_scale_finite(generator):
    inputs = with_outliers(generator)
    inputs[:, 7] = 0
    weight = ScaledWeight(torch.randn(8, 64, generator=generator))
    scale = search_scale([weight], observed(inputs), GROUP_SIZE)
    assert bool(scale.isfinite().all())
    assert bool((scale > 0).all())


def test_scaling_beats_rounding_alone_by_much_where_channels_stand_out(generator):
    inputs = with_outliers(generator)
    weight = torch.randn(48, 64, generator=generator)
    scale = search_scale([ScaledWeight(weight)], observed(inputs), GROUP_SIZE)
    plain = round_to_nearest(weight, GROUP_SIZE).weight()
    scaled = round_to_nearest(weight * scale, GROUP_SIZE).weight() / scale
    assert mean_squared_output_error(inputs, weight, scaled) < 0.5 * mean_squared_output_error(
        inputs, weight, plain
    )


def test_each_group_is_cut_where_its_own_error_is_least(generator):
    inputs = with_outliers(generator)
    weight = torch.randn(6, 64, generator=generator) ** 3  # long tails: a cut pays
    cut = search_cut(weight, observed(inputs).blocks, GROUP_SIZE)
    for n in range(weight.shape[0]):
        for start in range(0, 64, GROUP_SIZE):
            span = slice(start, start + GROUP_SIZE)
            group, part = weight[n : n + 1, span], inputs[:, span]
            limits = [float(group.abs().max()) * (1 - i / 20) for i in range(10)]
            errors = {
                limit: mean_squared_output_error(
                    part, group, round_to_nearest(group.clamp(-limit, limit), GROUP_SIZE).weight()
                )
                for limit in limits
            }
            best = min(errors, key=errors.__getitem__)
            assert float(cut[n, span].abs().max()) == pytest.approx(best, rel=1e-5)
    assert not torch.equal(cut, weight)
