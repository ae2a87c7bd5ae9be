"""The picture of a comparison: what is in it, for which models, and that it is the same again."""

from __future__ import annotations

import re

import pytest

from biomistral.errors import InputError
from biomistral.merging.difference import Comparison, Difference, Row, compare, kind_of
from biomistral.merging.difference_plot import plot


def row(name, relative_norm=0.01, stack=None, layer=None):
    difference = Difference(1000, 1.0, 1.0, 1.0, relative_norm**2, 990)
    return Row(name, kind_of(name), stack, layer, difference)


def model(num_layers, relative_norm=0.01, stack="model.layers."):
    parts = ("self_attn.q_proj.weight", "mlp.up_proj.weight")
    return [
        row("model.embed_tokens.weight", relative_norm),
        *(row(f"{stack}{i}.{part}", 0.01, stack, i) for i in range(num_layers) for part in parts),
        row("lm_head.weight"),
    ]


def words(file, rows):
    """All texts of the SVG: Matplotlib writes each as a comment before its outlines."""
    plot(Comparison("first", "second", tuple(rows), ()), file)
    return re.findall(r"<!-- (.*?) -->", file.read_text("utf-8"))


def test_both_panels_kinds_and_models_are_named(tmp_path, tiny_model, make_model):
    plot(compare(tiny_model, make_model(1)), tmp_path / "p.svg")
    texts = re.findall(r"<!-- (.*?) -->", (tmp_path / "p.svg").read_text("utf-8"))
    expected = {"attention", "MLP", "norms", "Layer", "emb.", "head", "0", "1"}
    assert expected <= set(texts)
    assert f"{make_model(1).name} compared with {tiny_model.name}" in texts
    assert {"Relative norm of the difference, %", "Same sign, %"} <= set(texts)


def test_long_models_have_few_numbers_on_the_axis(tmp_path):
    texts = words(tmp_path / "p.svg", model(80))
    numbers = [text for text in texts if text.isdigit() and int(text) % 10 == 0]
    assert {"0", "10", "70"} <= set(numbers)
    assert "71" not in texts


def test_stacks_are_named_only_if_there_are_several(tmp_path):
    vision = model(3, stack="vision.layers.")[1:-1]
    assert "vision.layers" in words(tmp_path / "two.svg", vision + model(4))
    assert "model.layers" not in words(tmp_path / "one.svg", model(4))


def test_equal_tensors_are_spoken_of_where_the_axis_hides_them(tmp_path):
    hidden = "Layer (tensors that are equal are not in the upper panel)"
    wide = [*model(3), row("a.weight", 0.9)]
    assert hidden not in words(tmp_path / "p.svg", wide)
    assert hidden in words(tmp_path / "p.svg", [*wide, row("b.weight", 0.0)])
    assert hidden not in words(tmp_path / "p.svg", model(3, relative_norm=0.0))


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_the_same_numbers_give_the_same_bytes(tmp_path, suffix):
    comparison = Comparison("a $x$", "b" * 99, tuple(model(2)), ())
    files = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for file in files:
        plot(comparison, file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot be drawn as \.jpg; .* \.svg, \.png or \.pdf"):
        plot(Comparison("a", "b", tuple(model(1)), ()), tmp_path / "p.jpg")
