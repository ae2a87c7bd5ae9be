"""The engine: compiled loops and PyTorch functions give the same bytes, on any number of threads."""

from __future__ import annotations

import itertools
import math
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from biomistral.errors import ModelError
from biomistral.merging import engine, kernels
from biomistral.merging.engine import Engine, available_threads
from biomistral.merging.jobs import Input, Job
from biomistral.models.safetensors_files import TensorSpec, lay_out, read_header

# Around the borders of lanes, steps, chunks, blocks of the workspace and blocks of PyTorch.
SIZES = (1, 63, 2049, 4096, 12_345, 270_001, 600_013)
SUM = {"normalize": False, "scale": 1.0}
CASES = {
    "linear": ("linear", {"normalize": True}, [{"weight": 0.3}, {"weight": 0.9}]),
    "plain sum": ("linear", {"normalize": False}, [{"weight": -0.7}, {"weight": 1.1}]),
    "as it is": ("passthrough", {}, [{"weight": 1.0}]),
    "scaled": ("passthrough", {}, [{"weight": 0.37}]),
    "slerp": ("slerp", {"t": 0.3}, [{}]),
    "task arithmetic": ("task_arithmetic", SUM, [{"weight": 0.7}]),
    "two vectors": (
        "task_arithmetic",
        {"normalize": True, "scale": 0.8},
        [{"weight": 0.7}, {"weight": 0.1}],
    ),
    "ties of one": ("ties", {"normalize": True, "scale": 1.0}, [{"weight": 0.5, "density": 0.5}]),
    "ties of two": (
        "ties",
        {"normalize": True, "scale": 1.3},
        [{"weight": 0.5, "density": 0.3}, {"weight": 1.0, "density": 0.77}],
    ),
    "ties, nearly nothing": ("ties", SUM, [{"density": 1e-7}, {"density": 1e-3}]),
    "ties, everything": ("ties", SUM, [{"density": 1.0}, {"density": 0.9999}]),
    "dare": ("dare_linear", {**SUM, "rescale": "density"}, [{"weight": 0.5, "density": 0.5}]),
    "dare ties": (
        "dare_ties",
        {**SUM, "normalize": True, "rescale": "density"},
        [{"weight": 0.5, "density": 0.5}, {"weight": 0.4, "density": 0.13}],
    ),
    "dare, same norm": ("dare_linear", {**SUM, "rescale": "l1_norm"}, [{"density": 0.2}]),
    "dare, no rescaling": ("dare_ties", {**SUM, "rescale": "none"}, [{"density": 1.0}]),
}
compiled_only = pytest.mark.skipif(
    kernels.library() is None, reason="no C compiler: the compiled loops cannot be built"
)


def stored_models(folder, *, dtype=torch.bfloat16, distance=0.03, num=3, sizes=SIZES):
    """Save models with tensors of several sizes; return the places of each."""
    generator = torch.Generator().manual_seed(1)
    base = {f"t{size}": torch.randn(size, generator=generator) * 0.02 for size in sizes}
    places = []
    for index in range(num):
        noise = {n: torch.randn(v.numel(), generator=generator) for n, v in base.items()}
        values = {n: v + noise[n] * 0.02 * distance * bool(index) for n, v in base.items()}
        file = folder / f"model{index}.safetensors"
        save_file({n: v.to(dtype) for n, v in values.items()}, file)
        places.append({place.name: place for place in read_header(file)})
    return places


def jobs_for(models, case, dtype="bfloat16"):
    method, options, numbers = CASES[case]
    has_base = method not in {"linear", "passthrough"}
    base, *others = models if has_base else [None, *models]
    return [
        Job(
            TensorSpec(name, place.shape, dtype),
            method,
            Input("base", base[name]) if has_base else None,
            tuple(Input(str(i), others[i][name], n) for i, n in enumerate(numbers)),
            options,
        )
        for name, place in models[0].items()
    ]


def run(jobs, file, **settings):
    places = {place.name: place for place in lay_out(file, [job.output for job in jobs])}
    with Engine(seed=7, **settings) as engine:
        done = list(engine.run(jobs, places))
    assert {id(job) for job in done} == {id(job) for job in jobs}
    return file.read_bytes()


@compiled_only
@pytest.mark.parametrize("distance", [0.03, 1.5])
@pytest.mark.parametrize("case", CASES)
def test_compiled_loops_and_pytorch_give_the_same_bytes(tmp_path, case, distance):
    jobs = jobs_for(stored_models(tmp_path, distance=distance), case)
    ours = run(jobs, tmp_path / "compiled", threads=1)
    assert ours == run(jobs, tmp_path / "torch", threads=1, use_compiled=False)
    assert ours == run(jobs, tmp_path / "three threads", threads=3)


@compiled_only
@pytest.mark.parametrize(
    ("inputs", "output"), list(itertools.product(("float32", "float16"), ("bfloat16", "float16")))
)
def test_all_types_are_read_and_written_alike(tmp_path, inputs, output):
    models = stored_models(tmp_path, dtype=getattr(torch, inputs), sizes=(12_345,))
    for case in ("slerp", "ties of two", "dare ties"):
        jobs = jobs_for(models, case, output)
        ours = run(jobs, tmp_path / "compiled", threads=1)
        assert ours == run(jobs, tmp_path / "torch", threads=1, use_compiled=False)


@compiled_only
def test_float32_output_is_the_same_to_the_last_bit(tmp_path):
    models = stored_models(tmp_path, dtype=torch.float32)
    for case in CASES:
        jobs = jobs_for(models, case, "float32")
        ours = run(jobs, tmp_path / "compiled", threads=2)
        assert ours == run(jobs, tmp_path / "torch", threads=2, use_compiled=False), case


def test_threads_change_no_byte_without_the_compiler_either(tmp_path):
    jobs = jobs_for(stored_models(tmp_path), "dare ties")
    one = run(jobs, tmp_path / "one", threads=1, use_compiled=False)
    assert one == run(jobs, tmp_path / "two", threads=2, use_compiled=False)


def test_another_device_gives_the_same_bytes_and_the_cpu_helps_out(tmp_path, monkeypatch):
    """cpu:0 takes the way of a GPU: whole tensors are moved there first."""
    jobs = jobs_for(stored_models(tmp_path), "ties of two")
    here = run(jobs, tmp_path / "cpu", threads=2, use_compiled=False)
    assert here == run(jobs, tmp_path / "moved", threads=2, use_compiled=False, device="cpu:0")

    def too_large(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(engine, "_moved", too_large)
    assert here == run(jobs, tmp_path / "full", threads=2, use_compiled=False, device="cpu:0")


@compiled_only
@pytest.mark.parametrize("values", ["all equal", "two values", "zeros", "one outlier"])
def test_thresholds_are_exact_where_a_sample_misleads(tmp_path, values):
    """Chunks that are sampled look like nothing else in the tensor."""
    num, chunk = 2_000_000, 4096
    delta = {
        "all equal": torch.full((num,), 0.5),
        "two values": torch.where(torch.arange(num) % 3 == 0, 0.5, 0.25),
        "zeros": torch.zeros(num),
        "one outlier": torch.arange(num) / num + 1.0,
    }[values]
    if values == "one outlier":
        for start in range(0, num, num // chunk // 64 * chunk):
            delta[start : start + chunk] = 1e-6
    save_file({"t": torch.zeros(num)}, tmp_path / "base")
    save_file({"t": delta}, tmp_path / "other")
    models = [{p.name: p for p in read_header(tmp_path / name)} for name in ("base", "other")]
    jobs = jobs_for(models, "ties of one", "float32")
    ours = run(jobs, tmp_path / "compiled", threads=2)
    assert ours == run(jobs, tmp_path / "torch", threads=1, use_compiled=False)
    kept = load_file(tmp_path / "compiled")["t"].count_nonzero()
    assert kept == (0 if values == "zeros" else num // 2)


@pytest.mark.parametrize("use_compiled", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused_by_name_unless_allowed(tmp_path, value, use_compiled):
    models = stored_models(tmp_path, sizes=(63, 12_345), num=2)
    tensors = load_file(tmp_path / "model1.safetensors")
    tensors["t12345"][12_000] = value
    save_file(tensors, tmp_path / "model1.safetensors")
    for case in ("linear", "slerp", "task arithmetic", "ties of one", "dare"):
        jobs = jobs_for(models, case)
        with pytest.raises(ModelError, match=r"model1\.safetensors: t12345 holds NaN or infinity"):
            run(jobs, tmp_path / "out", use_compiled=use_compiled)
    run(jobs, tmp_path / "out", use_compiled=use_compiled, allow_non_finite=True)
    assert not load_file(tmp_path / "out")["t12345"].isfinite().all()
    assert load_file(tmp_path / "out")["t63"].isfinite().all()


@pytest.mark.parametrize("use_compiled", [True, False])
def test_results_beyond_the_range_of_their_type_are_refused(tmp_path, use_compiled):
    save_file({"t": torch.full((100,), 40_000.0)}, tmp_path / "a")
    (place,) = read_header(tmp_path / "a")
    inputs = (Input("a", place, {"weight": 1.0}),) * 2
    job = Job(TensorSpec("t", (100,), "float16"), "linear", None, inputs, {"normalize": False})
    with pytest.raises(ModelError, match=r"t has values beyond the range of float16; set dtype"):
        run([job], tmp_path / "out", use_compiled=use_compiled)


@compiled_only
@pytest.mark.parametrize("case", ["ties of two", "dare, same norm"])
def test_nan_is_found_in_the_model_that_has_it(tmp_path, case):
    models = stored_models(tmp_path)
    method, options, numbers = CASES[case]
    numbers = [*numbers, *numbers][:2]
    tensors = load_file(tmp_path / "model2.safetensors")
    tensors["t12345"][12_000] = math.nan
    save_file(tensors, tmp_path / "model2.safetensors")
    jobs = [
        Job(
            TensorSpec(name, place.shape, "bfloat16"),
            method,
            Input("base", place),
            tuple(Input("", m[name], n) for m, n in zip(models[1:], numbers, strict=True)),
            options,
        )
        for name, place in models[0].items()
    ]
    with pytest.raises(ModelError, match=r"model2\.safetensors: t12345 holds NaN"):
        run(jobs, tmp_path / "out")


@compiled_only
def test_a_file_that_is_cut_off_on_the_way_is_named(tmp_path):
    jobs = jobs_for(stored_models(tmp_path), "ties of two")
    os.truncate(tmp_path / "model1.safetensors", 1000)
    with pytest.raises(ModelError, match=r"model1\.safetensors: ends before .* changed while"):
        run(jobs, tmp_path / "out")


def test_files_are_closed_when_their_tensors_are_done(tmp_path):
    jobs = jobs_for(stored_models(tmp_path), "ties of two")
    places = {p.name: p for p in lay_out(tmp_path / "out", [job.output for job in jobs])}
    with Engine(seed=7) as engine:
        list(engine.run(jobs, places))
        assert not engine._files


def test_another_seed_drops_other_elements(tmp_path):
    jobs = jobs_for(stored_models(tmp_path, sizes=(12_345,)), "dare")
    outputs = []
    for seed in (1, 2):
        places = {p.name: p for p in lay_out(tmp_path / "out", [job.output for job in jobs])}
        with Engine(seed=seed) as engine:
            list(engine.run(jobs, places))
        outputs.append((tmp_path / "out").read_bytes())
    assert outputs[0] != outputs[1]


def test_the_number_of_threads_is_that_of_openmp_if_given(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert available_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "none")
    assert available_threads() >= 1
