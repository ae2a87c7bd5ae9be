"""4-bit layers: both ways give the weight's product, and neither lets rows depend on company."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_int, c_void_p
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from biomistral.models import hybrid
from biomistral.models.awq import PackedLinear, pack_linear
from biomistral.models.compiling import compiled
from biomistral.models.hybrid import FEW_ROWS, hybrid_of, is_available, write_blocks

needs_kernel = pytest.mark.skipif(not is_available(), reason="PyTorch has no int4 kernel here")
needs_matrix_units = pytest.mark.skipif(
    hybrid.rows_library() is None, reason="this processor has no matrix units (AMX), or no compiler"
)


def packed_of(outputs=192, inputs=256, group=64, seed=0, layout="gemm"):
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 16, (outputs, inputs), generator=generator, dtype=torch.uint8)
    shape = (outputs, inputs // group)
    zeros = torch.randint(0, 16, shape, generator=generator, dtype=torch.uint8)
    scales = (torch.rand(shape, generator=generator) * 0.01 + 0.001).half()
    parts = pack_linear(levels, zeros, scales, layout)
    return PackedLinear(**parts, layout=layout, group_size=group)


@pytest.fixture(
    params=[pytest.param("matrix units", marks=needs_matrix_units), "compiled", "torch"]
)
def way(request, monkeypatch):
    if request.param == "compiled" and hybrid.library() is None:
        pytest.skip("no compiler")
    if request.param != "matrix units":
        monkeypatch.setattr(hybrid, "rows_library", lambda: None)
    if request.param == "torch":
        monkeypatch.setattr(hybrid, "library", lambda: None)
    return request.param


def relative(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@needs_kernel
@pytest.mark.parametrize("rows", [0, 1, FEW_ROWS, FEW_ROWS + 1, 70, 131])
@pytest.mark.parametrize("layout", ["gemm", "gemv"])
@torch.inference_mode()
def test_the_product_is_that_of_the_weight_within_bfloat16(way, rows, layout):
    packed = packed_of(layout=layout)
    hidden = torch.randn(rows, 256, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = hidden.double() @ packed.weight().double().T
    found = hybrid_of(packed)(hidden)
    assert found.shape == expected.shape
    assert not rows or relative(found, expected) < 5e-3


@needs_kernel
@pytest.mark.parametrize("group", [32, 64, 128, 256])
@torch.inference_mode()
def test_written_blocks_are_the_weight_within_bfloat16(way, group):
    packed = packed_of(inputs=512, group=group)
    layer = hybrid_of(packed)
    out = torch.empty(512, 192, dtype=torch.bfloat16)
    write_blocks(layer, out, 0, 192 // hybrid.block_width())
    assert relative(out.T, packed.weight().double()) < 4e-3


@needs_kernel
@torch.inference_mode()
def test_both_ways_of_writing_blocks_give_the_same_bits(monkeypatch):
    if hybrid.library() is None:
        pytest.skip("no compiler")
    layer, width = hybrid_of(packed_of()), hybrid.block_width()
    compiled, plain = (torch.empty(256, 2 * width, dtype=torch.bfloat16) for _ in range(2))
    write_blocks(layer, compiled, 1, 3)
    monkeypatch.setattr(hybrid, "library", lambda: None)
    write_blocks(layer, plain, 1, 3)
    assert torch.equal(compiled, plain)


@needs_matrix_units
@pytest.mark.parametrize("group", [32, 64, 128, 256])
@torch.inference_mode()
def test_matrix_units_round_no_more_than_once(group):
    layer = hybrid_of(packed_of(inputs=512, group=group))
    scales, zeros = (
        part.double().repeat_interleave(group, dim=0) for part in layer.pairs.unbind(-1)
    )  # (K, N)
    levels = hybrid.levels_of(layer.levels, 512, hybrid.block_width()).double()
    hidden = torch.randn(40, 512, generator=torch.Generator().manual_seed(2)).bfloat16()
    exact = hidden.double() @ ((levels - 8) * scales + zeros)
    # Half a unit in the last of 8 bits; sums in float32 lose some where terms cancel.
    torch.testing.assert_close(layer(hidden).double(), exact, rtol=2**-8, atol=1e-4)


@needs_kernel
@torch.inference_mode()
def test_few_rows_are_each_computed_by_themselves(way):
    layer = hybrid_of(packed_of())
    most = 140 if way == "matrix units" else FEW_ROWS
    hidden = torch.randn(most, 256).bfloat16()
    whole = layer(hidden)
    for number in range(1, most):
        assert torch.equal(layer(hidden[:number]), whole[:number])
        assert torch.equal(layer(hidden[number:]), whole[number:])


@needs_kernel
@torch.inference_mode()
def test_more_threads_change_no_more_than_the_rounding(way, threads):
    layer, hidden = hybrid_of(packed_of(outputs=640)), torch.randn(64, 256).bfloat16()
    alone = layer(hidden)
    threads(3)
    if way == "matrix units":
        assert torch.equal(layer(hidden), alone)
    else:  # tiles are wider then, and PyTorch's product may be rounded in another order
        torch.testing.assert_close(layer(hidden), alone, rtol=2e-2, atol=1e-2)


SET_UP = """
#include "{header}"
TARGET void set_up(void *tiles, int rows) {{ take_tiles(tiles, 8, rows); }}
TARGET void give_back(const void *tiles) {{ give_back_tiles(tiles); }}
"""


@needs_matrix_units
@torch.inference_mode()
def test_tiles_are_given_back_as_they_were(tmp_path, threads):
    threads(1)  # tiles are of a thread
    source = tmp_path / "set_up.c"
    source.write_text(SET_UP.format(header=Path(hybrid.__file__).with_name("matrix_units.h")))
    signatures = {"set_up": (None, (c_void_p, c_int)), "give_back": (None, (c_void_p,))}
    tiles = compiled(source, signatures)
    layer, hidden = hybrid_of(packed_of()), torch.randn(3, 256).bfloat16()
    first, between, after = (ctypes.create_string_buffer(64) for _ in range(3))
    tiles.set_up(first, 7)  # as another program of this thread may have
    tiles.set_up(between, 7)  # what that looks like
    layer(hidden)
    tiles.set_up(after, 7)
    tiles.give_back(first)
    assert any(between.raw)
    assert after.raw == between.raw


@needs_kernel
@torch.inference_mode()
def test_a_bias_is_added_and_other_dimensions_stay():
    layer = hybrid_of(packed_of())
    hidden = torch.randn(2, 3, 256).bfloat16()
    without = layer(hidden)
    assert without.shape == (2, 3, 192)
    layer.bias = torch.nn.Parameter(torch.ones(192).bfloat16(), requires_grad=False)
    torch.testing.assert_close(layer(hidden), without + 1)


@needs_kernel
def test_inputs_have_their_gradient_or_an_error_and_never_none_without_a_word(way):
    layer = hybrid_of(packed_of())
    many = torch.randn(FEW_ROWS + 1, 256).bfloat16().requires_grad_()
    layer(many).sum().backward()
    weight = torch.empty(256, 192, dtype=torch.bfloat16)
    write_blocks(layer, weight, 0, 192 // hybrid.block_width())
    assert relative(many.grad[0], weight.double().sum(1)) < 1e-2
    with pytest.raises(RuntimeError, match="derivative"):
        layer(many[:1]).sum().backward()


@needs_kernel
@torch.inference_mode()
def test_a_row_that_is_no_number_leaves_the_others_alone(way):
    layer = hybrid_of(packed_of())
    most = 140 if way == "matrix units" else FEW_ROWS
    hidden = torch.randn(most, 256).bfloat16()
    expected = layer(hidden)
    for row, value in ((0, float("nan")), (most - 1, float("inf"))):
        spoilt = hidden.clone()
        spoilt[row, 7] = value
        found = layer(spoilt)
        others = torch.arange(most) != row
        assert torch.equal(found[others], expected[others])
        assert not found[row].isfinite().all()


@needs_kernel
@torch.inference_mode()
def test_threads_of_python_may_call_at_once(threads):
    layer, hidden = hybrid_of(packed_of(outputs=640)), torch.randn(FEW_ROWS, 256).bfloat16()
    expected = layer(hidden)
    threads(2)
    numbers = [1 + index % FEW_ROWS for index in range(60)]
    with ThreadPoolExecutor(4) as pool:
        every = list(pool.map(lambda number: layer(hidden[:number]), numbers))
    for number, found in zip(numbers, every, strict=True):
        assert torch.equal(found, expected[:number])


@needs_kernel
@torch.inference_mode()
def test_a_lack_of_memory_is_an_error_and_no_wrong_numbers(monkeypatch):
    monkeypatch.setattr(hybrid, "rows_library", lambda: SimpleNamespace(int4_rows=lambda *_: 0))
    with pytest.raises(MemoryError, match="2 rows"):
        hybrid_of(packed_of())(torch.randn(2, 256).bfloat16())


@needs_kernel
@pytest.mark.parametrize("shape", [{"outputs": 72}, {"group": 16}, {"outputs": 24}])
def test_shapes_that_the_kernel_does_not_take_are_left_alone(shape):
    assert hybrid_of(packed_of(**shape)) is None


def test_an_order_that_is_not_known_is_not_guessed(monkeypatch):
    monkeypatch.setattr(
        torch.ops.aten,
        "_convert_weight_to_int4pack_for_cpu",
        lambda levels, _: levels.byte()[:, ::2],
    )
    hybrid.block_width.cache_clear()
    try:
        assert not is_available()
        assert hybrid_of(packed_of()) is None
    finally:
        monkeypatch.undo()
        hybrid.block_width.cache_clear()


def test_a_pytorch_without_the_kernel_is_no_error(monkeypatch):
    def missing(*_):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.ops.aten, "_convert_weight_to_int4pack_for_cpu", missing)
    hybrid.block_width.cache_clear()
    try:
        assert not is_available()
    finally:
        monkeypatch.undo()
        hybrid.block_width.cache_clear()


@needs_kernel
@pytest.mark.parametrize("shape", [(64, 64), (192, 128)])
def test_the_gemm_layout_is_put_in_the_order_that_the_kernel_makes_itself(shape):
    outputs, inputs = shape
    levels = torch.randint(16, shape, generator=torch.Generator().manual_seed(2), dtype=torch.int32)
    zeros = torch.zeros(outputs, inputs // 32, dtype=torch.uint8)
    parts = pack_linear(levels.to(torch.uint8), zeros, torch.ones(zeros.shape))
    layer = hybrid.hybrid_of(PackedLinear(**parts))
    expected = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
    assert torch.equal(layer.levels.view(-1), expected.view(-1))
