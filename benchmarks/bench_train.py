"""Training on packed articles: this package, the plain Trainer and TRL, side by side.

    python benchmarks/bench_train.py [--steps 3] [--rounds 2] [--threads 1] [--result FILE.md]

A random Mistral-shaped model of 34 million parameters learns random articles (lengths log-normal, median 350
tokens, at most a row; or of 256 tokens) in bfloat16. Ways:

    ours           packed rows, attention inside documents, the loss in blocks
    concatenated   plain Trainer on rows of joined articles, which see each other
    dense mask     plain Trainer on packed rows with the library's document mask (position_ids restart)
    padded         plain Trainer, one article a row, filled up to the longest of its batch; as many articles
                   a step as the packed rows hold
    trl            TRL's SFTTrainer on the articles, packing=True (best fit, no leak), if installed
    trl joined     the same with packing_strategy="wrapped" (articles see each other)

Each is a process of its own that trains for one step to warm up and then for --steps steps; ways take turns.
Counted is the CPU time of the process in those steps, per token that is not padding; best of the rounds. The share
of peak is model operations (6 per weight in a product and token, and causal attention inside documents) over
the rate of a 2048 x 2048 x 2048 product in the same process. Peak memory is the resident set of the process.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SHAPE = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 32_000,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
TOKENS_A_STEP = {1024: 2048, 4096: 4096}  # tokens that go through the model, padding included
WAYS = ("ours", "concatenated", "dense mask", "padded", "trl", "trl joined")
CASES = (("articles", 1024), ("256 tokens", 4096))


# --- what is learned ------------------------------------------------------------------------------


def articles(case: str, length: int, num_tokens: int) -> list[Any]:
    """Random articles of together at least ``num_tokens`` tokens."""
    import numpy as np

    rng = np.random.default_rng(0)
    made, total = [], 0
    while total < num_tokens:
        size = 256 if case == "256 tokens" else int(min(length, max(32, rng.lognormal(5.86, 0.7))))
        made.append(rng.integers(3, SHAPE["vocab_size"], size))
        total += size
    return made


def fill(documents: Sequence[Any], length: int) -> list[tuple[Any, tuple[int, ...]]]:
    """Rows of whole articles by first fit of the longest first, as (ids, lengths)."""
    import numpy as np

    rows: list[list[Any]] = []
    for document in sorted(documents, key=len, reverse=True):
        for row in rows:
            if sum(map(len, row)) + len(document) <= length:
                row.append(document)
                break
        else:
            rows.append([document])
    filled = []
    for row in rows:
        ids = np.full(length, 2)
        joined = np.concatenate(row)
        ids[: len(joined)] = joined
        filled.append((ids, tuple(map(len, row))))
    return filled


# --- the ways -------------------------------------------------------------------------------------


def one_way(way: str, case: str, length: int, steps: int) -> dict[str, Any]:
    """Train in one way; return CPU seconds, tokens, memory and the rate of a matrix product."""
    import torch
    import transformers
    from transformers import MistralConfig, MistralForCausalLM

    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SHAPE)).bfloat16().train()
    model.config.use_cache = False
    peak = matmul_rate()
    documents = articles(case, length, TOKENS_A_STEP[length] * (steps + 2))
    watch = Watch()
    with tempfile.TemporaryDirectory() as work:
        trainer = MAKERS[way](model, documents, length, steps + 1, Path(work), watch)
        trainer.add_callback(callback_of(watch))
        trainer.train()
    counted = sum(watch.tokens[1:])
    return {
        "tokens_per_second": counted / watch.seconds,
        "share_of_peak": operations(watch) / watch.seconds / peak,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "filled": counted / watch.places,
    }


class Watch:
    """CPU time after the first step, and the tokens of each."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.lengths: list[list[int]] = []
        self.places = 0
        self.begun = self.seconds = 0.0

    def saw(self, lengths: Sequence[int], places: int) -> None:
        """Note the articles of a batch."""
        self.tokens.append(sum(lengths))
        self.lengths.append(list(lengths))
        self.places += places if len(self.tokens) > 1 else 0


def callback_of(watch: Watch) -> Any:
    from transformers import TrainerCallback

    class Timer(TrainerCallback):
        def on_step_end(self, *event: Any, **_: Any) -> None:
            state = event[1]
            if state.global_step == 1:
                watch.begun = time.process_time()
            watch.seconds = time.process_time() - watch.begun

    return Timer()


def matmul_rate() -> float:
    """Operations a second of the best of 5 products in bfloat16."""
    import torch

    a = torch.randn(2048, 2048, dtype=torch.bfloat16)
    seconds = []
    for _ in range(5):
        begun = time.process_time()
        a @ a
        seconds.append(time.process_time() - begun)
    return 2 * 2048**3 / min(seconds)


def operations(watch: Watch) -> float:
    """Operations that a model needs for the articles after the first batch."""
    h, i, n = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["num_hidden_layers"]
    kv = h * SHAPE["num_key_value_heads"] // SHAPE["num_attention_heads"]
    weights = n * (2 * h * h + 2 * h * kv + 3 * h * i) + h * SHAPE["vocab_size"]
    lengths = [length for batch in watch.lengths[1:] for length in batch]
    attention = sum(6 * n * h * length**2 for length in lengths)  # half of the square, three times
    return 6 * weights * sum(lengths) + attention


def arguments_of(work: Path, rows: int, steps: int, cls: Any = None, **more: Any) -> Any:
    from transformers import TrainingArguments

    return (cls or TrainingArguments)(
        output_dir=str(work),
        per_device_train_batch_size=rows,
        max_steps=steps,
        learning_rate=1e-4,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        optim="adamw_torch_fused",
        logging_strategy="no",
        **more,
    )


def make_ours(model: Any, documents: Any, length: int, steps: int, work: Path, watch: Watch) -> Any:
    from biomistral.recipe.settings import PretrainSettings
    from biomistral.training.collation import collate
    from biomistral.training.schedule import Course
    from biomistral.training.trainer import make_trainer

    def noting(rows: Any) -> Any:
        watch.saw([n for _, lengths in rows for n in lengths], len(rows) * length)
        return collate(rows)

    num_rows = TOKENS_A_STEP[length] // length
    settings = PretrainSettings(
        name="bench", model="m", learning_rate=1e-4, rows_per_step=num_rows, precision="bfloat16"
    )
    rows: Any = fill(documents, length)
    course = Course(steps)
    return make_trainer(
        settings, model, rows, noting, course=course, work=work, seed=1, callbacks=[]
    )


def make_plain(
    model: Any, documents: Any, length: int, steps: int, work: Path, watch: Watch, *, way: str
) -> Any:
    """The Trainer of the library, with rows made in one of three ways."""
    import numpy as np
    import torch
    from transformers import Trainer

    def packed(rows: Any) -> Any:
        watch.saw([n for _, lengths in rows for n in lengths], len(rows) * length)
        ids = torch.from_numpy(np.stack([ids for ids, _ in rows]))
        positions = [
            np.concatenate([np.arange(n) for n in (*ns, length - sum(ns))]) for _, ns in rows
        ]
        return {
            "input_ids": ids,
            "labels": ids.clone(),
            "position_ids": torch.from_numpy(np.stack(positions)),
        }

    def joined(rows: Any) -> Any:
        watch.saw([length] * len(rows), len(rows) * length)
        ids = torch.from_numpy(np.stack(rows))
        return {"input_ids": ids, "labels": ids.clone()}

    def padded(rows: Any) -> Any:
        longest = max(map(len, rows))
        watch.saw([len(row) for row in rows], longest * len(rows))
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = labels[index, : len(row)] = torch.from_numpy(row)
            mask[index, : len(row)] = 1
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}

    num_rows = TOKENS_A_STEP[length] // length
    text = np.concatenate(documents)
    data: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "dense mask": (fill(documents, length), packed),
        "concatenated": (list(text[: len(text) // length * length].reshape(-1, length)), joined),
        "padded": (documents * 4, padded),
    }
    rows, collate = data[way]
    if way == "padded":
        num_rows = round(TOKENS_A_STEP[length] / (len(text) / len(documents)))
    return Trainer(
        model=model,
        args=arguments_of(work, num_rows, steps, remove_unused_columns=False),
        train_dataset=rows,
        data_collator=collate,
    )


def make_trl(
    model: Any, documents: Any, length: int, steps: int, work: Path, watch: Watch, *, strategy: str
) -> Any:
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    vocabulary = {f"t{index}": index for index in range(SHAPE["vocab_size"])}
    bare = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="t2", eos_token="t2")
    trainer = SFTTrainer(
        model=model,
        args=arguments_of(
            *(work, TOKENS_A_STEP[length] // length, steps, SFTConfig),
            max_length=length,
            packing=True,
            packing_strategy=strategy,
            gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": False},
        ),
        train_dataset=Dataset.from_dict({"input_ids": [d.tolist() for d in documents]}),
        processing_class=tokenizer,
    )
    inner = trainer.data_collator

    def noting(rows: Any) -> Any:
        batch = inner(rows)
        places = batch.get("position_ids")
        if places is None:
            lengths = [len(row["input_ids"]) for row in rows]
        else:
            starts = [*(places[0] == 0).nonzero()[:, 0].tolist(), places.shape[1]]
            lengths = [b - a for a, b in itertools.pairwise(starts)]
        watch.saw(lengths, batch["input_ids"].numel())
        return batch

    trainer.data_collator = noting
    return trainer


MAKERS: dict[str, Callable[..., Any]] = {
    "ours": make_ours,
    **{
        way: functools.partial(make_plain, way=way)
        for way in ("concatenated", "dense mask", "padded")
    },
    "trl": functools.partial(make_trl, strategy="bfd_split"),
    "trl joined": functools.partial(make_trl, strategy="wrapped"),
}


# --- taking turns ---------------------------------------------------------------------------------


def measured(way: str, case: str, length: int, steps: int, threads: int) -> dict[str, Any]:
    """Run one way in a process of its own."""
    command = [sys.executable, __file__, "--one", way, case, str(length), "--steps", str(steps)]
    root = Path(__file__).resolve().parent.parent
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(root),
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{way}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def compare(case: str, length: int, steps: int, rounds: int, threads: int) -> dict[str, Any]:
    """Best of the rounds of each way; ways take turns."""
    has_trl = importlib.util.find_spec("trl") is not None
    ways = [way for way in WAYS if has_trl or not way.startswith("trl")]
    best: dict[str, Any] = {}
    for index in range(rounds):
        for way in ways:
            found = measured(way, case, length, steps, threads)
            print(f"round {index + 1}, {case}, {way}: {found}", file=sys.stderr, flush=True)
            old = best.get(way)
            if old is None or found["tokens_per_second"] > old["tokens_per_second"]:
                best[way] = found
    return best


def table(case: str, length: int, best: dict[str, Any]) -> str:
    ours, plain = best["ours"], best["concatenated"]
    lines = [
        f"\nRows of {length:,} tokens, {case}:\n",
        "| | tokens per CPU second | ours is | share of peak | row filled | peak memory | of concatenated |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for way, found in best.items():
        speed = found["tokens_per_second"]
        lines.append(
            f"| {way} | {speed:,.0f} | {ours['tokens_per_second'] / speed:.2f} x | "
            f"{100 * found['share_of_peak']:.0f} % | {100 * found['filled']:.0f} % | "
            f"{found['peak_bytes'] / 1e9:.2f} GB | {found['peak_bytes'] / plain['peak_bytes']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--result", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("WAY", "CASE", "LENGTH"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        way, case, length = chosen.one
        print(json.dumps(one_way(way, case, int(length), chosen.steps)))
        return
    parts = [
        table(case, length, compare(case, length, chosen.steps, chosen.rounds, chosen.threads))
        for case, length in CASES
    ]
    text = "\n".join(parts)
    print(text)
    if chosen.result:
        chosen.result.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
