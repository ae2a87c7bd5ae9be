"""Every method on another device: nothing of it may assume that tensors lie in main memory."""

from __future__ import annotations

import itertools
from typing import Any, Self

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from biomistral.merging.methods import METHODS, Share, blocks

OPTIONS: dict[str, dict[str, Any]] = {
    "slerp": {"t": 0.3},
    "nearswap": {"t": 0.01},
    "sce": {"select_topk": 0.5},
}
SPARSE = {"density": 0.4, "gamma": 0.1, "epsilon": 0.1, "row_elements": 100, "key": 5}
ONE_INPUT = ("passthrough", "slerp", "nearswap")
TWO_INPUTS = ("nuslerp",)


class Remote(torch.Tensor):
    """Stands for a tensor on a GPU: says that it lies elsewhere, and mixes with no other tensor."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Self:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device="meta"
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return on_remote(func, args, kwargs or {})


class Remotely(TorchDispatchMode):
    """Makes what is asked for on the other device there, too."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return on_remote(func, args, kwargs or {})


def on_remote(func, args, kwargs):
    leaves = tree_flatten((args, kwargs))[0]
    remote = any(isinstance(leaf, Remote) for leaf in leaves)
    device = kwargs.get("device")
    if (func is torch.ops.aten._to_copy.default and device is not None) or device is not None:
        remote = torch.device(device).type == "meta"
    elif remote:
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, Remote) and leaf.dim():
                raise AssertionError(f"{func} mixes devices")
    here = tree_map_only(Remote, lambda leaf: leaf.held, (args, kwargs))
    if device is not None:
        here[1]["device"] = "cpu"
    result = func(*here[0], **here[1])
    if func is torch.ops.aten._local_scalar_dense.default or not remote:
        return result
    return tree_map_only(torch.Tensor, Remote, result)


def inputs(name: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(6_000, generator=generator) * 0.02
    num = 1 if name in ONE_INPUT else 2 if name in TWO_INPUTS else 3
    return base, [
        base + 0.01 * torch.randn(6_000, generator=generator).round(decimals=2) for _ in range(num)
    ]


def merged(name: str, base: torch.Tensor, values: list[torch.Tensor]) -> torch.Tensor:
    per_share = SPARSE if METHODS[name].__module__.endswith("task_vectors") else {}
    shares = [
        Share(each, weight=w, **per_share) for each, w in zip(values, (0.3, 0.5, 0.9), strict=False)
    ]
    return torch.cat([each.cpu() for each in METHODS[name](base, shares, **OPTIONS.get(name, {}))])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_the_same_on_another_device_and_mixes_none(name, monkeypatch) -> None:
    base, values = inputs(name)
    expected = merged(name, base, values)
    monkeypatch.setattr(blocks, "GPU_BLOCK_ELEMENTS", 4096)
    with Remotely():
        there = merged(name, base.to("meta"), [each.to("meta") for each in values])
    torch.testing.assert_close(there, expected, rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_the_same_on_a_gpu(name) -> None:
    base, values = inputs(name)
    there = merged(name, base.cuda(), [each.cuda() for each in values])
    torch.testing.assert_close(there, merged(name, base, values))


def test_the_stand_in_for_a_gpu_refuses_to_mix_devices() -> None:
    with Remotely():
        there = torch.ones(3).to("meta")
        assert isinstance(there, Remote)
        with pytest.raises(AssertionError, match="mixes devices"):
            there + torch.ones(3)
        assert there.sum().item() == 3
        assert type((there * 2).cpu()) is torch.Tensor


def test_the_size_of_blocks_changes_no_method(monkeypatch) -> None:
    for name, size in itertools.product(METHODS, (4096,)):
        base, values = inputs(name)
        expected = merged(name, base, values)
        with monkeypatch.context() as patch:
            patch.setattr(blocks, "BLOCK_ELEMENTS", size)
            assert torch.equal(merged(name, base, values), expected), name
