from __future__ import annotations

import pytest
import torch

from biomistral.quantization.awq import (
    InputStatistics,
    output_error,
    round_to_nearest,
    search_cut,
    search_scale,
)

GROUP_SIZE = 16


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def observed(inputs: torch.Tensor) -> InputStatistics:
    statistics = InputStatistics.empty(inputs.shape[1])
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
    assert torch.equal(quantized.packed().weight(), quantized.weight())


def test_statistics_do_not_depend_on_how_tokens_come_in_pieces(generator):
    inputs = torch.randn(50, 8, generator=generator)
    whole, pieces = observed(inputs), InputStatistics.empty(8)
    for piece in inputs.split([1, 30, 19]):
        pieces.add(piece)
    assert torch.allclose(whole.magnitude, inputs.abs().mean(dim=0))
    assert torch.allclose(pieces.magnitude, whole.magnitude)
    assert torch.allclose(pieces.gram, whole.gram, atol=1e-6)


def test_statistics_of_divided_inputs(generator):
    inputs, scale = (
        torch.randn(50, 8, generator=generator),
        torch.rand(8, generator=generator) + 0.5,
    )
    divided, direct = observed(inputs).divided(scale), observed(inputs / scale)
    assert torch.allclose(divided.magnitude, direct.magnitude)
    assert torch.allclose(divided.gram, direct.gram, atol=1e-5)


def test_output_error_is_the_mean_square_over_the_tokens(generator):
    inputs = with_outliers(generator)
    weight, other = torch.randn(2, 24, 64, generator=generator)
    error = output_error(other - weight, observed(inputs).gram)
    assert error == pytest.approx(mean_squared_output_error(inputs, weight, other), rel=1e-5)


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
    found = search_scale(weights, observed(inputs), GROUP_SIZE)
    assert torch.allclose(found, expected, rtol=1e-4)
    assert found[3] > found.median()


def test_equal_activations_need_no_scale():
    inputs = torch.ones(10, 32)
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(4))
    assert torch.equal(search_scale([weight], observed(inputs), GROUP_SIZE), torch.ones(32))


def test_a_channel_that_is_never_used_keeps_the_scale_finite(generator):
    inputs = with_outliers(generator)
    inputs[:, 7] = 0
    scale = search_scale([torch.randn(8, 64, generator=generator)], observed(inputs), GROUP_SIZE)
    assert bool(scale.isfinite().all())
    assert bool((scale > 0).all())


def test_scaling_beats_rounding_alone_by_much_where_channels_stand_out(generator):
    inputs = with_outliers(generator)
    weight = torch.randn(48, 64, generator=generator)
    scale = search_scale([weight], observed(inputs), GROUP_SIZE)
    plain = round_to_nearest(weight, GROUP_SIZE).weight()
    scaled = round_to_nearest(weight * scale, GROUP_SIZE).weight() / scale
    assert mean_squared_output_error(inputs, weight, scaled) < 0.5 * mean_squared_output_error(
        inputs, weight, plain
    )


def test_each_group_is_cut_where_its_own_error_is_least(generator):
    inputs = with_outliers(generator)
    weight = torch.randn(6, 64, generator=generator) ** 3  # long tails: a cut pays
    cut = search_cut(weight, observed(inputs).gram, GROUP_SIZE)
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
