"""Scoring questions: this package, lm-evaluation-harness and the published scripts' way, side by side.

    python benchmarks/bench_evaluate.py WORK --data FOLDER [--lm-eval PYTHON] [--repeats 3]
        [--questions 96 40] [--result FILE.md]

A random Mistral-shaped model of 142 million parameters with the tokenizer of Mistral 7B v0.1 (from
the package mistral-common; sentencepiece and protobuf read it) gets real questions from FOLDER (see
docs/benchmark.md) with three worked examples, in bfloat16, on one thread. --lm-eval names the Python
of an environment with lm_eval. Each engine is a process that loads the model once; they take turns,
and what is compared is the least CPU time of the repeats, without start-up. All get the same prompts
and give the log-probability of each letter, which are compared with a float32 run of the plain model.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TASKS = {"mmlu_clinical_knowledge": "MMLU-style", "pubmedqa": "PubMedQA"}
SHAPE = {
    "hidden_size": 768,
    "intermediate_size": 2688,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "vocab_size": 32_000,
    "max_position_embeddings": 8192,
    "sliding_window": 4096,
}
Prompts = dict[str, list[dict[str, Any]]]  # by task: prompt and letters of each question
Logprobs = list[list[float]]


# --- what is scored -------------------------------------------------------------------------------


def make_model(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    import mistral_common
    import torch
    from transformers import LlamaTokenizerFast, MistralConfig, MistralForCausalLM

    source = Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"
    with tempfile.TemporaryDirectory() as held:
        (Path(held) / "tokenizer.model").write_bytes(source.read_bytes())
        LlamaTokenizerFast.from_pretrained(held).save_pretrained(folder)
    torch.manual_seed(0)
    MistralForCausalLM(MistralConfig(**SHAPE)).bfloat16().save_pretrained(folder)
    return folder


def make_prompts(data: Path, numbers: list[int]) -> Prompts:
    """Questions of each task with shared examples, and the first task with examples of their own."""
    from biomistral.benchmark import build_requests, load_questions
    from biomistral.recipe.settings import BenchmarkSettings, EvaluateSettings
    from biomistral.records import Question, read_records

    with tempfile.TemporaryDirectory() as held:
        load_questions(BenchmarkSettings(data=str(data)), list(TASKS), ["en"], Path(held) / "q")
        questions = list(read_records(Path(held) / "q" / "questions.parquet", Question))
    found: Prompts = {}
    for (task, label), number in zip(TASKS.items(), numbers, strict=True):
        rng = random.Random(0)
        seeds = [1, *range(2, number + 1)] if label == "MMLU-style" else [1]
        settings = EvaluateSettings(models=["m"], tasks=[task], shots=3, seeds=seeds)
        requests = [r for r in build_requests(questions, settings) if r.task == task]
        by_seed = {seed: [r for r in requests if r.seed == seed] for seed in seeds}
        chosen = rng.sample(range(len(by_seed[1])), number)
        found[f"{label}, shared examples"] = [as_prompt(by_seed[1][index]) for index in chosen]
        if len(seeds) > 1:
            own = [as_prompt(by_seed[s][i]) for s, i in zip(seeds, chosen, strict=True)]
            found[f"{label}, examples drawn per question"] = own[: number // 3]
    return found


def as_prompt(request: Any) -> dict[str, Any]:
    return {"prompt": request.prompt, "letters": list(request.continuations)}


# --- engines: each a function that makes a scorer -------------------------------------------------


def biomistral_engine(model: Path, dtype: str = "bfloat16") -> Callable[[list[Any]], Logprobs]:
    from biomistral.models.continuations import TextEncoder
    from biomistral.models.loading import load_model, load_tokenizer
    from biomistral.models.scoring import score_requests
    from biomistral.records import Request

    encoder = TextEncoder(load_tokenizer(model))
    loaded = load_model(model, precision=dtype)

    def score(prompts: list[Any]) -> Logprobs:
        requests = [
            Request(str(i), "t", "en", 3, 1, "letter", p["prompt"], tuple(p["letters"]), 0)
            for i, p in enumerate(prompts)
        ]
        return [list(row) for row in score_requests(loaded, encoder, requests).logprobs]

    return score


def lm_eval_engine(model: Path) -> Callable[[list[Any]], Logprobs]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    loaded = HFLM(pretrained=str(model), dtype="bfloat16", batch_size=1, device="cpu")

    def score(prompts: list[Any]) -> Logprobs:
        instances = [
            Instance("loglikelihood", {}, (p["prompt"], letter), index)
            for p in prompts
            for index, letter in enumerate(p["letters"])
        ]
        found = iter(loaded.loglikelihood(instances, disable_tqdm=True))
        return [[float(next(found)[0]) for _ in p["letters"]] for p in prompts]

    return score


def published_engine(model: Path, *, decodes: bool = True) -> Callable[[list[Any]], Logprobs]:
    """The steps of the published script for English tasks, one for one, on a CPU.

    One prompt at a time through ``generate`` with nothing but its ids; then, for every 14 questions
    anew, a tokenizer is loaded and each question's 32,000 probabilities are sorted, and decoded token
    by token from tensors of one number. The script hands these fourteens to processes; here they
    follow each other, so starting processes and sending them 128 kB a question is left out. Without
    ``decodes`` only ``generate`` is timed, and letters are looked up by id.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()

    def generated(prompt: str) -> Any:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            made = loaded.generate(
                ids, max_new_tokens=1, output_scores=True, return_dict_in_generate=True
            )
        return made.scores[0]  # (1, V), float32

    def by_id(prompts: list[Any]) -> Logprobs:
        rows = []
        for p in prompts:
            logprobs = generated(p["prompt"])[0].log_softmax(dim=-1)
            full = tokenizer([p["prompt"] + letter for letter in p["letters"]])["input_ids"]
            rows.append([float(logprobs[ids[-1]]) for ids in full])
        return rows

    def by_text(prompts: list[Any]) -> Logprobs:
        scores = [generated(p["prompt"]).to("cpu") for p in prompts]
        rows = []
        for start in range(0, len(prompts), 14):
            own = AutoTokenizer.from_pretrained(model)
            for p, row in zip(prompts[start : start + 14], scores[start:], strict=False):
                probabilities = row.softmax(dim=-1)
                top = torch.topk(probabilities, probabilities.size(dim=1))
                values = top.values[0].cpu()
                texts = [own.decode(top.indices[0].cpu()[i]) for i in range(len(values))]
                best: dict[str, float] = {}
                for value, text in zip(values, texts, strict=True):
                    if text in p["letters"]:
                        best.setdefault(text, value.item())
                rows.append([math.log(best[letter]) for letter in p["letters"]])
        return rows

    return by_text if decodes else by_id


def exact_engine(model: Path) -> Callable[[list[Any]], Logprobs]:
    """Whole float32 forward passes, one prompt at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def score(prompts: list[Any]) -> Logprobs:
        rows = []
        for p in prompts:
            ids = tokenizer(p["prompt"], return_tensors="pt")["input_ids"]
            full = tokenizer([p["prompt"] + letter for letter in p["letters"]])["input_ids"]
            with torch.no_grad():
                logits = loaded(ids, logits_to_keep=1).logits[0, -1]
            rows.append([float(logits.log_softmax(dim=-1)[each[-1]]) for each in full])
        return rows

    return score


ENGINES = {
    "biomistral": biomistral_engine,
    "lm_eval": lm_eval_engine,
    "published": published_engine,
    "published, generate only": lambda model: published_engine(model, decodes=False),
    "float32": exact_engine,
    "biomistral float32": lambda model: biomistral_engine(model, "float32"),
}


def serve(name: str, model: Path) -> None:
    """Answer each line with prompts by a line with log-probabilities and CPU seconds."""
    import torch

    torch.set_num_threads(1)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is not a reply
    score = ENGINES[name](model)
    for line in sys.stdin:
        start = time.process_time()
        found = score(json.loads(line))
        replies.write(json.dumps([found, time.process_time() - start]) + "\n")
        replies.flush()


class Engine:
    """A process that scores."""

    def __init__(self, name: str, python: str, model: Path) -> None:
        self._process = subprocess.Popen(
            [python, __file__, "--serve", name, str(model)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def score(self, prompts: list[Any]) -> tuple[Logprobs, float]:
        """Return log-probabilities and the CPU seconds they took."""
        self._process.stdin.write(json.dumps(prompts) + "\n")
        self._process.stdin.flush()
        found, seconds = json.loads(self._process.stdout.readline())
        return found, seconds


# --- the comparison -------------------------------------------------------------------------------


def compare(engines: dict[str, Engine], prompts: Prompts, repeats: int) -> list[str]:
    lines = []
    for label, questions in prompts.items():
        names = [name for name in engines if "float32" not in name]
        if "per question" in label:
            names = [name for name in names if not name.startswith("published")]
        seconds: dict[str, list[float]] = {name: [] for name in names}
        answers: dict[str, Logprobs] = {}
        for index in range(repeats):
            for name in names if index % 2 else reversed(names):
                answers[name], cost = engines[name].score(questions)
                seconds[name].append(cost / len(questions))
                print(f"{label}: {name}: {cost / len(questions):.4f} CPU s a question", flush=True)
        for name in ("float32", "biomistral float32"):
            answers[name], _ = engines[name].score(questions)
        lines += table(label, len(questions), seconds, answers)
    return lines


def table(
    label: str, number: int, seconds: dict[str, list[float]], answers: dict[str, Logprobs]
) -> list[str]:
    lines = [
        f"{label}, {number} questions:",
        "",
        "| | CPU s a question | ratio | mean distance to float32 | largest | same letter | ties |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    exact = answers["float32"]
    for name, found in answers.items():
        if name == "float32":
            continue
        off = [
            abs(a - b)
            for row, other in zip(found, exact, strict=True)
            for a, b in zip(row, other, strict=True)
        ]
        same = [best(row) == best(other) for row, other in zip(found, exact, strict=True)]
        ties = sum(row.count(max(row)) > 1 for row in found)
        cost = ratio = ""
        if name in seconds:
            cost = f"{min(seconds[name]):.4f}"
            ratio = f"{min(seconds[name]) / min(seconds['biomistral']):.1f}"
        lines.append(
            f"| {name} | {cost} | {ratio} | {statistics.mean(off):.5f} | {max(off):.5f} "
            f"| {statistics.mean(same):.1%} | {ties} |"
        )
    return [*lines, ""]


def best(row: list[float]) -> int:
    return row.index(max(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lm-eval", help="a Python that has lm_eval")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--questions", type=int, nargs=2, default=[96, 40])
    parser.add_argument("--result", type=Path)
    given = parser.parse_args()
    model = make_model(given.work / "mistral-142m")
    prompts = make_prompts(given.data, given.questions)
    pythons = dict.fromkeys(ENGINES, sys.executable)
    if given.lm_eval:
        pythons["lm_eval"] = given.lm_eval
    else:
        del pythons["lm_eval"]
    engines = {name: Engine(name, python, model) for name, python in pythons.items()}
    lines = compare(engines, prompts, given.repeats)
    print("\n".join(lines))
    if given.result:
        given.result.write_text("\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
