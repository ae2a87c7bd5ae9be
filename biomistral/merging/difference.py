"""How far two checkpoints are from each other, tensor by tensor and layer by layer.

This is how one looks for what a training changed, or a merge kept. Of two tensors A and B it takes
the relative norm ||A - B|| / ||A||, the cosine of the angle between them and the share of elements
that have the same sign (zero is a sign of its own). Sums are in float64 and in a fixed order (see
``methods.blocks``), so the numbers are the same on every machine. Nothing is refused that can be
said: tensors that one of the two lacks, other shapes, NaN. Knows nothing about how it is drawn.

Shapes: n elements of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Literal

from biomistral.errors import ModelError
from biomistral.merging import compiled, kernels
from biomistral.merging.compiled import Work
from biomistral.merging.engine import available_threads
from biomistral.merging.layers import comes_before_layers, split
from biomistral.merging.references import labels
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.safetensors_files import StoredTensor
from biomistral.progress import Progress, ignore

Kind = Literal["attention", "mlp", "norm", "other"]
# A name is of the first kind of which it holds a part: norms lie inside attention, too.
_PARTS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("norm", ("norm", "ln_", "layer_norm")),
    ("attention", ("attn", "attention")),
    ("mlp", ("mlp", "feed_forward", "ffn", "experts", "moe", "dense_")),
)
_FLOATS = ("float64", "float32", "float16", "bfloat16")
_NAMED = 3  # tensors named in a remark


@dataclass(frozen=True)
class Difference:
    """Sums over the elements of one or more pairs of tensors A and B; they can be added."""

    elements: int
    dot: float  # of a * b
    aa: float  # of a * a
    bb: float
    dd: float  # of (a - b)^2
    same_sign: int  # elements of which both are positive, both negative or both zero

    def __add__(self, other: Difference) -> Difference:
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return Difference(*(one + another for one, another in pairs))

    @property
    def relative_norm(self) -> float:
        """||A - B|| / ||A||: 0 if they are equal, infinite if only A is zero."""
        if self.dd == 0:
            return 0.0
        return math.sqrt(self.dd / self.aa) if self.aa else math.inf

    @property
    def cosine(self) -> float:
        """Cosine of the angle between A and B; two zeros point the same way, one nowhere (0)."""
        norms = math.sqrt(self.aa) * math.sqrt(self.bb)
        if not norms:
            return 1.0 if self.aa == self.bb else 0.0
        return max(-1.0, min(1.0, self.dot / norms))

    @property
    def sign_agreement(self) -> float:
        """Share of the elements that have the same sign, in [0, 1]."""
        return self.same_sign / self.elements if self.elements else 1.0


@dataclass(frozen=True)
class Row:
    """A tensor, or tensors that belong together, and how far they are apart."""

    name: str
    kind: Kind
    stack: str | None  # what stands before the number of the layer; None outside all layers
    layer: int | None
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints side by side: the tensors both have, and in words what cannot be compared."""

    a: str  # names of the folders, told apart where they are equal
    b: str
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]

    @property
    def total(self) -> Row:
        """All tensors as one."""
        return _joined("all tensors", self.rows)

    @property
    def layers(self) -> tuple[Row, ...]:
        """One row for each layer, and for each tensor outside the layers, in order."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            label = row.name if row.stack is None else f"{row.stack}{row.layer}"
            groups.setdefault(label, []).append(row)
        return tuple(_joined(label, members) for label, members in groups.items())


def compare(
    a: Path,
    b: Path,
    *,
    names: tuple[str, str] | None = None,
    allow_pickle: bool = False,
    progress: Progress = ignore,
) -> Comparison:
    """Compare two checkpoint folders; without ``names`` they are called by theirs.

    Raises ``ModelError`` if one of them is no whole checkpoint, or if they have no tensor in common
    that is of numbers.
    """
    one, other = (Checkpoint(folder, allow_pickle=allow_pickle) for folder in (a, b))
    if names is None:
        named = labels((str(a), str(b)))
        names = (named[str(a)], named[str(b)])
    pairs, remarks = _pairs(one, other, names)
    if not pairs:
        reason = next(iter(remarks), "there are none")
        raise ModelError(
            f"{a} and {b}: have no tensor in common ({reason}); name two checkpoints of one "
            "architecture"
        )
    rows: list[Row] = []
    broken: tuple[list[str], list[str]] = ([], [])
    with ThreadPoolExecutor(available_threads()) as pool:
        found = pool.map(lambda pair: tensor_difference(*pair), pairs)
        for done, ((stored, _), difference) in enumerate(zip(pairs, found, strict=True), start=1):
            progress(done, len(pairs), "tensors compared")
            if not math.isfinite(difference.aa + difference.bb):
                broken[math.isfinite(difference.aa)].append(stored.name)
                continue
            stack, layer, _ = split(stored.name) or (None, None, None)
            rows.append(Row(stored.name, kind_of(stored.name), stack, layer, difference))
    remarks += [
        _remark(f"NaN or infinity in {label}", tensors)
        for label, tensors in zip(names, broken, strict=True)
        if tensors
    ]
    if not rows:
        label = names[0] if broken[0] else names[1]
        raise ModelError(
            f"{a} and {b}: NaN or infinity in every tensor of {label}, so there is nothing to compare; "
            "such a model is broken: make it again"
        )
    rows.sort(key=_place)
    return Comparison(*names, tuple(rows), tuple(remarks))


def tensor_difference(a: StoredTensor, b: StoredTensor) -> Difference:
    """Compare two tensors of equal shape; sums are NaN or infinite where their values are."""
    if {a.dtype, b.dtype} <= kernels.built_types():
        with a.file.open("rb") as one, b.file.open("rb") as other:
            ends = [
                kernels.Place(stream.fileno(), kernels.TYPES[stored.dtype], stored.offset_bytes)
                for stream, stored in ((one, a), (other, b))
            ]
            return Difference(a.num_elements, *compiled.compare(Work(a.num_elements), *ends))
    return torch_difference(a, b)


def torch_difference(a: StoredTensor, b: StoredTensor) -> Difference:
    """Do what ``tensor_difference`` does, with the same result, without a compiler."""
    from biomistral.merging.methods.blocks import add_up, block, places
    from biomistral.models.mapped import MappedFiles

    files = MappedFiles()
    one, other = files.read(a).reshape(-1), files.read(b).reshape(-1)
    dot = aa = bb = dd = 0.0
    same_sign = 0
    for place in places(one):
        x, y = block(one, place), block(other, place)
        same_sign += int((x.sign() == y.sign()).sum())
        x, y = x.double(), y.double()  # in which a product of two float32 values is exact
        dot, aa, bb = add_up(dot, x * y), add_up(aa, x * x), add_up(bb, y * y)
        change = x - y
        dd = add_up(dd, change * change)
    return Difference(one.numel(), dot, aa, bb, dd, same_sign)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values: numbers per tensor, per layer and in all.

    A number that is infinite is None.
    """
    return {
        "a": comparison.a,
        "b": comparison.b,
        "remarks": list(comparison.remarks),
        "total": _numbers(comparison.total),
        "layers": [_numbers(row) for row in comparison.layers],
        "tensors": [_numbers(row) for row in comparison.rows],
    }


def table(comparison: Comparison, *, per_tensor: bool = False) -> str:
    """Return a comparison as lines of text: a row per layer or per tensor, the total, remarks."""
    rows = [*(comparison.rows if per_tensor else comparison.layers), comparison.total]
    cells = [("", "elements", "|A-B|/|A|, %", "cosine", "same sign, %"), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(row, widths) for row in cells]
    rule = "-" * max(map(len, lines))
    return "\n".join(
        [
            f"A: {comparison.a}   B: {comparison.b}",
            "",
            *(lines[0], rule, *lines[1:-1], rule, lines[-1]),
            *([""] if comparison.remarks else []),
            *comparison.remarks,
        ]
    )


def kind_of(name: str) -> Kind:
    """Return which part of a model a tensor belongs to, by its name."""
    inner = name.lower()
    return next((kind for kind, parts in _PARTS if any(part in inner for part in parts)), "other")


def by_kind(rows: Iterable[Row]) -> list[Row]:
    """Make one row of those of one layer and kind, in order; rows outside the layers stay."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        label = row.name if row.stack is None else f"{row.stack}{row.layer} {row.kind}"
        groups.setdefault(label, []).append(row)
    return [_joined(label, members) for label, members in groups.items()]


# --- tensors --------------------------------------------------------------------------------------


def _pairs(
    one: Checkpoint, other: Checkpoint, names: tuple[str, str]
) -> tuple[list[tuple[StoredTensor, StoredTensor]], list[str]]:
    """Return what can be compared, and in words what cannot."""
    pairs = []
    shapes, types = [], []
    for name, stored in one.tensors.items():
        match = other.tensors.get(name)
        if match is None:
            continue
        if stored.shape != match.shape:
            shapes.append(f"{name} {list(stored.shape)} and {list(match.shape)}")
        elif stored.dtype not in _FLOATS or match.dtype not in _FLOATS:
            types.append(f"{name} ({stored.dtype} and {match.dtype})")
        else:
            pairs.append((stored, match))
    groups = [
        (f"only in {names[0]}", [n for n in one.tensors if n not in other.tensors]),
        (f"only in {names[1]}", [n for n in other.tensors if n not in one.tensors]),
        ("of different shapes", shapes),
        ("not made of plain numbers", types),
    ]
    return pairs, [_remark(label, tensors) for label, tensors in groups if tensors]


def _remark(label: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"not compared, {label}: {', '.join(names[:_NAMED])}{more}"


# --- rows -----------------------------------------------------------------------------------------


def _place(row: Row) -> int:
    """Embeddings first, then the layers, then what comes after them."""
    if row.stack is not None:
        return 1
    return 0 if comes_before_layers(row.name) else 2


def _joined(name: str, rows: Iterable[Row]) -> Row:
    members = list(rows)
    kinds = {row.kind for row in members}
    return Row(
        name=name,
        kind=members[0].kind if len(kinds) == 1 else "other",
        stack=members[0].stack,
        layer=members[0].layer,
        difference=reduce(add, (row.difference for row in members)),
    )


def _numbers(row: Row) -> dict[str, Any]:
    difference = row.difference
    relative = difference.relative_norm
    return {
        "name": row.name,
        "kind": row.kind,
        "layer": row.layer,
        "elements": difference.elements,
        "relative_norm": relative if math.isfinite(relative) else None,
        "cosine": difference.cosine,
        "sign_agreement": difference.sign_agreement,
    }


def _cells(row: Row) -> tuple[str, ...]:
    difference = row.difference
    return (
        row.name,
        f"{difference.elements:,}",
        f"{100 * difference.relative_norm:.4f}",
        f"{difference.cosine:.6f}",
        f"{100 * difference.sign_agreement:.3f}",
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = cells
    right = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
    return "  ".join([name.ljust(widths[0]), *right])
