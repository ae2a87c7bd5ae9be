"""Compare merges with those of mergekit, case by case, and keep digests of ours.

    python benchmarks/parity_mergekit.py --mergekit-python PATH   # both, writes the tables
    python benchmarks/parity_mergekit.py                          # ours: are the digests as kept?

PATH is the Python of an environment with mergekit, which is told to compute in float32 and to round
once: its most exact way. What has no chance in it is compared element by element; what has, by
what is kept. The merges are those of ``merge_cases.py``; the tables go to ``results``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from merge_cases import (
    CASES,
    KEPT,
    MODELS,
    RANDOM,
    SEED,
    Case,
    digest,
    kept_digests,
    load,
    make_models,
    merge_ours,
    shapes,
    weights,
)
from torch import Tensor

DRIVER = """
import json, sys
import yaml
from importlib.metadata import version
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
for config, out in json.loads(sys.stdin.read()):
    text = open(config).read()
    run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), out,
              options=MergeOptions(random_seed=42, write_model_card=False, copy_tokenizer=False),
              config_source=text)
print(version("mergekit"))
"""

HEAD = (
    "| case | equal, % | largest difference, ulp of inputs | largest difference, ulp of result "
    "| tied, % | SHA-256 of ours |\n|---|---:|---:|---:|---:|---|"
)
HEAD_OF_CHANCE = (
    "| case | kept, % | mergekit | mean | mergekit | norm | mergekit | sign of the sum, % "
    "| mergekit | SHA-256 of ours |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---|"
)
NOTES = """
**Equal** are elements with the same bits in bfloat16. Both differences are in units in the last
place (ulp) of bfloat16, and leave tied elements out: one takes the unit of the largest number that
goes in or comes out, the other counts the bfloat16 values between the two results. Where the terms
of a sum cancel, the result is small, and the float32 rounding of its terms is many of its units.
The causes of the differences, found by computing in mergekit's way as well where that is said:

- *linear*: mergekit adds with a fused multiply-add, which rounds once; here the product is rounded
  too, so that any processor gives the same bits. With fused operations in place of ours no element
  differs. Means of bfloat16 numbers by round weights often lie half-way between two bfloat16
  numbers, and there the last bit of float32 decides.
- *slerp, nuslerp, model_stock*: the numbers for a whole tensor (angles, norms, weights) are found
  in float32 there, in float64 here, and differ in the seventh digit. With those of float32 no
  element differs. *karcher* and *sce* have such numbers, too; there it was not tried.
- *multislerp*: that, and the tangent vectors: their sum is zero, and mergekit adds its rounding
  noise. Without it and with norms of float32, a fifth to a third of the differences are left.
- *ties, breadcrumbs, sce with a selection*: **tied** elements are as large as the last one that is
  kept, while another as large is dropped. Differences of bfloat16 numbers take few values, so these
  are many. mergekit keeps what its sort happens to put first; here it is the first by index. All
  others are equal.

Merges with chance are compared in float32, over the elements that any model changes. **Kept** is
the share that differs from the base. **Mean** is the factor with which the weighted sum of the whole
task vectors is found in what was added (1: no bias), **norm** that of its length. **Sign** is how
often the change of an element has the sign of that sum. With `rescale: true` mergekit restores the
L1 norm, which here is `rescale: l1_norm`; the cases without it show what the papers do: 1/density
for DARE, which comes out the same, and 1/chance for DELLA, which has no bias where the L1 norm has.
"""


def merge_theirs(python: str, folder: Path) -> tuple[str, list[dict[str, Tensor]]]:
    """Run mergekit on all cases in one process; return its version and the weights it makes."""
    pairs = []
    for index, case in enumerate(CASES):
        config = folder / f"theirs-{index}.yml"
        config.write_text(case.text(folder, for_us=False), encoding="utf-8")
        pairs.append((str(config), str(config.with_suffix(""))))
    given = json.dumps(pairs)
    finished = subprocess.run(
        [python, "-c", DRIVER], input=given, text=True, capture_output=True, check=False
    )
    if finished.returncode:
        sys.exit(f"mergekit failed:\n{finished.stderr[-2000:]}")
    return finished.stdout.split()[-1], [load(Path(out)) for _, out in pairs]


# --- element by element ---------------------------------------------------------------------------


def compare(
    case: Case,
    models: Mapping[str, Mapping[str, Tensor]],
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
) -> list[str]:
    """Return the cells of a case without chance."""
    assert ours.keys() == theirs.keys()
    equal = num = num_tied = worst = 0
    worst_of_inputs = 0.0
    for name in ours:
        distance = (in_order(ours[name]) - in_order(theirs[name])).abs()
        free = torch.ones_like(distance, dtype=torch.bool)
        if not case.slices:
            inputs = {model: models[model][name].flatten().float() for model in MODELS}
            free = ~tied(case, inputs)
            used = {*case.models, *([case.base] if case.base else [])}
            terms = [*(inputs[model] for model in used), ours[name].flatten().float()]
            unit = unit_of(torch.stack(terms))
            apart = (ours[name].double() - theirs[name].double()).abs().flatten() / unit
            worst_of_inputs = max(worst_of_inputs, largest(apart[free]))
        equal += int((distance == 0).sum())
        num += len(distance)
        num_tied += int((~free).sum())
        worst = max(worst, int(largest(distance[free])))
    return [
        f"{100 * equal / num:.4f}",
        f"{worst_of_inputs:.0f}",
        f"{worst:,}",
        f"{100 * num_tied / num:.2f}",
    ]


def largest(values: Tensor) -> float:
    return float(values.max()) if len(values) else 0.0


def in_order(values: Tensor) -> Tensor:
    """Return the place of each value among all bfloat16 numbers: (n,)."""
    bits = values.flatten().view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def unit_of(terms: Tensor) -> Tensor:
    """Return the bfloat16 unit in the last place of the largest term: (terms, n) -> (n,)."""
    exponent = torch.frexp(terms.abs().amax(dim=0)).exponent
    return torch.ldexp(torch.ones(len(exponent), dtype=torch.float64), exponent - 8)


def tied(case: Case, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return which elements are as large as one that was kept and as one that was not: (n,)."""
    base = inputs["base"]
    found = torch.zeros(len(base), dtype=torch.bool)
    vectors = {model: inputs[model] - base for model in case.models}
    if case.method == "sce" and case.parameters:
        variance = torch.stack(list(vectors.values())).var(dim=0, unbiased=False)
        num_kept = int(case.parameters["select_topk"] * int(variance.count_nonzero()))
        # Both round the variance, each in its way: equal to rounding is equal.
        return at_a_cut(variance, num_kept, tolerance=1e-6)
    if case.method in ("ties", "breadcrumbs", "breadcrumbs_ties"):
        for model, numbers in case.models.items():
            num_kept = int(numbers.get("density", 1.0) * len(base))
            top = min(int(numbers.get("gamma", 0.0) * len(base)), len(base) - num_kept)
            for rank in (top, top + num_kept):
                found |= at_a_cut(vectors[model].abs(), rank, tolerance=0.0)
    return found


def at_a_cut(magnitude: Tensor, rank: int, *, tolerance: float) -> Tensor:
    """Return which are as large as the ``rank``-th from the top, if the next one is so too."""
    if not 0 < rank < len(magnitude):
        return torch.zeros(len(magnitude), dtype=torch.bool)
    last, following = magnitude.sort(descending=True).values[rank - 1 : rank + 1]
    if last - following > tolerance * last:
        return torch.zeros(len(magnitude), dtype=torch.bool)
    return (magnitude - last).abs() <= tolerance * last


# --- by what is kept ------------------------------------------------------------------------------


def compare_chance(
    case: Case,
    models: Mapping[str, Mapping[str, Tensor]],
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
) -> list[str]:
    """Return the cells of a case with chance: of each measure, ours and theirs."""
    base = joined(models["base"])
    vectors = [joined(models[model]) - base for model in case.models]
    moved = torch.stack(vectors).abs().amax(dim=0) > 0
    weighted = zip(vectors, case.models.values(), strict=True)
    whole = torch.stack([vector * numbers["weight"] for vector, numbers in weighted]).sum(dim=0)
    cells = []
    for measure in (kept_percent, mean_factor, norm_factor, sign_percent):
        for merged in (ours, theirs):
            change = joined(merged) - base
            cells.append(measure(change[moved], whole[moved]))
    return cells


def joined(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])


def kept_percent(change: Tensor, _whole: Tensor) -> str:
    return f"{100 * float((change != 0).double().mean()):.2f}"


def mean_factor(change: Tensor, whole: Tensor) -> str:
    return f"{float(change @ whole / (whole @ whole)):.4f}"


def norm_factor(change: Tensor, whole: Tensor) -> str:
    return f"{float(change.norm() / whole.norm()):.4f}"


def sign_percent(change: Tensor, whole: Tensor) -> str:
    kept = change != 0
    return f"{100 * float((change[kept].sign() == whole[kept].sign()).double().mean()):.2f}"


# --- what is written ------------------------------------------------------------------------------


def write_results(folder: Path, python: str) -> None:
    version, all_theirs = merge_theirs(python, folder)
    models = {model: weights(model) for model in MODELS}
    exact, chance, digests = [HEAD], [HEAD_OF_CHANCE], {}
    for case, theirs, ours in zip(CASES, all_theirs, all_ours(folder), strict=True):
        digests[case.title] = digest(ours)
        is_random = case.method in RANDOM
        cells = (compare_chance if is_random else compare)(case, models, ours, theirs)
        cells = [case.title, *cells, f"`{digests[case.title][:16]}`"]
        (chance if is_random else exact).append("| " + " | ".join(cells) + " |")
    num = sum(int(np.prod(shape)) for shape in shapes().values())
    made = (
        f"By `benchmarks/parity_mergekit.py`, with mergekit {version}: models of {num:,} elements "
        f"in bfloat16, {len(CASES)} merges, computed in float32 by both."
    )
    lines = [
        "# Merges beside those of mergekit",
        "",
        made,
        "",
        *exact,
        "",
        *chance,
        NOTES,
    ]
    text = "\n".join(lines).rstrip() + "\n"
    KEPT.with_suffix(".md").write_text(text, encoding="utf-8")
    kept = {"mergekit": version, "seed": SEED, "sha256": digests}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(text)


def all_ours(folder: Path) -> Iterator[dict[str, Tensor]]:
    for index, case in enumerate(CASES):
        yield merge_ours(case, folder, folder / f"ours-{index}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mergekit-python", help="interpreter of an environment with mergekit")
    python = parser.parse_args().mergekit_python
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_models(folder)
        if python:
            write_results(folder, python)
            return 0
        kept = kept_digests()
        digests = [digest(ours) for ours in all_ours(folder)]
        changed = [c.title for c, d in zip(CASES, digests, strict=True) if kept[c.title] != d]
    print(f"{len(CASES) - len(changed)} of {len(CASES)} as kept; changed: {changed or 'none'}")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())
