"""Articles to packed rows: this package and datatrove, one processor each, in one run.

    python benchmarks/bench_corpus.py ARTICLES TOKENIZER [--copies 4] [--datatrove PYTHON]

Then with two workers, and beside that what the machine itself gives to two processes that have nothing
to do with each other: two whole builds at once against one.

ARTICLES is a folder of JATS XML (.xml, .nxml), TOKENIZER a folder with tokenizer.json. ``--copies``
makes the folder larger by copies in which a third of the words is replaced by words of other
articles, so that they are new documents; ``--datatrove`` names the Python of an environment with
``pip install 'datatrove[processing]' lxml py3langid tokenizers``. What is counted is processor time
(of the process and its children), which other programs disturb less than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LICENCES = ("licenses/by/", "licenses/by-sa/", "licenses/by-nd/", "publicdomain/zero/")


def processor_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in used)


def most_memory_mb() -> float:
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in whose) / 1e3


# --- this package ---------------------------------------------------------------------------------


def ours(articles: Path, tokenizer: Path, out: Path, workers: int) -> dict[str, float]:
    from biomistral import artifacts
    from biomistral.corpus import build_corpus
    from biomistral.recipe.corpora import CorpusSettings

    settings = CorpusSettings(articles=[str(articles)], workers=workers)
    before, clock = processor_seconds(), time.perf_counter()
    build_corpus(settings, tokenizer, out)
    manifest = artifacts.read_manifest(out)
    assert manifest is not None
    counts = manifest["counts"]
    return {
        "articles": counts["articles_read"],
        "kept": counts["documents_kept"],
        "tokens": counts["tokens"],
        "seconds": processor_seconds() - before,
        "clock": time.perf_counter() - clock,
        "megabytes": most_memory_mb(),
    }


# --- datatrove ------------------------------------------------------------------------------------


def theirs(articles: Path, tokenizer: Path, work: Path) -> dict[str, float]:
    """Run with the Python that has datatrove; the stages that its own examples have."""
    import py3langid
    from datatrove.data import Document, DocumentsPipeline
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.base import PipelineStep
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig
    from lxml import etree

    class Articles(PipelineStep):
        name = "JATS"
        type = "reader"

        def run(self, *_: object, **__: object) -> DocumentsPipeline:
            for path in sorted(p for p in articles.rglob("*") if p.suffix in {".xml", ".nxml"}):
                try:
                    tree = etree.fromstring(path.read_bytes())
                except etree.XMLSyntaxError:
                    continue
                if not any(mark in etree.tostring(tree).decode() for mark in LICENCES):
                    continue
                blocks = tree.xpath("//article-title|//abstract//p|//body//title|//body//p")
                text = "\n\n".join(" ".join("".join(b.itertext()).split()) for b in blocks)
                if py3langid.classify(text[:3000])[0] in {"en", "fr", "es", "pt", "de"}:
                    yield Document(text=text, id=path.name)

    def run(name: str, steps: list[object], tasks: int = 1) -> float:
        before = processor_seconds()
        folder = str(work / "logs" / name)
        LocalPipelineExecutor(pipeline=steps, tasks=tasks, workers=1, logging_dir=folder).run()
        return processor_seconds() - before

    config = MinhashConfig(
        hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8
    )
    place = {name: str(work / name) for name in ("read", "sig", "buckets", "ids", "kept", "tokens")}
    seconds = {"read": run("read", [Articles(), JsonlWriter(place["read"])])}
    seconds["minhash"] = (
        run("sig", [JsonlReader(place["read"]), MinhashDedupSignature(place["sig"], config)])
        + run("buckets", [MinhashDedupBuckets(place["sig"], place["buckets"], config=config)], 14)
        + run("cluster", [MinhashDedupCluster(place["buckets"], place["ids"], config=config)])
        + run(
            "filter",
            [
                JsonlReader(place["read"]),
                MinhashDedupFilter(place["ids"]),
                JsonlWriter(place["kept"]),
            ],
        )
    )
    seconds["tokenize"] = run(
        "tokens",
        [
            JsonlReader(place["kept"]),
            DocumentTokenizer(
                place["tokens"],
                tokenizer_name_or_path=str(tokenizer / "tokenizer.json"),
                eos_token="</s>",
            ),
        ],
    )
    count = sum(1 for p in articles.rglob("*") if p.suffix in {".xml", ".nxml"})
    return {"articles": count, **seconds, "seconds": sum(seconds.values())}


# --- the run --------------------------------------------------------------------------------------


def copy_articles(source: Path, target: Path, copies: int, step: int = 1) -> None:
    """The articles, and copies that share less than half of their runs of words with them."""
    files = sorted(p for p in source.rglob("*") if p.suffix in {".xml", ".nxml"})
    sample = b" ".join(
        m for p in files[::10] for m in re.findall(rb">([^<]{50,})<", p.read_bytes())
    )
    words = [word for word in sample.split() if word.isalpha()]
    rng = random.Random(1)

    def edited(match: re.Match[bytes]) -> bytes:
        found = match[0][1:-1].split(b" ")
        changed = [rng.choice(words) if rng.random() < 0.33 and w.isalpha() else w for w in found]
        return b">" + b" ".join(changed) + b"<"

    for copy in range(copies):
        for path in files[::step]:
            data = path.read_bytes()
            if copy:
                front, body, rest = data.partition(b"<body")
                head = re.sub(
                    rb'(pub-id-type="(?:pmc|pmcid|doi)">[^<]*)', rb"\g<1>%d" % copy, front
                )
                data = head + body + re.sub(rb">[^<]{20,}<", edited, rest)
            (target / f"{copy}-{path.name}").write_bytes(data)


def started(mode: str, python: str, *arguments: object) -> subprocess.Popen[str]:
    command = [python, __file__, "--mode", mode, *map(str, arguments)]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def result_of(run: subprocess.Popen[str]) -> dict[str, float]:
    printed, _ = run.communicate()
    if run.returncode:
        sys.exit(f"{' '.join(map(str, run.args))}: ended with {run.returncode}")
    values: dict[str, float] = json.loads(printed.splitlines()[-1])
    return values


def measured(mode: str, python: str, *arguments: object) -> dict[str, float]:
    return result_of(started(mode, python, *arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("articles", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--datatrove", metavar="PYTHON")
    parser.add_argument(
        "--peer-step", type=int, default=1, help="give datatrove every so manieth article only"
    )
    parser.add_argument("--mode", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.mode == "ours":
        print(json.dumps(ours(given.articles, given.tokenizer, given.work, given.workers)))
        return
    if given.mode == "theirs":
        print(json.dumps(theirs(given.articles, given.tokenizer, given.work)))
        return
    with tempfile.TemporaryDirectory() as name:
        compare(given, Path(name))


def compare(given: argparse.Namespace, scratch: Path) -> None:
    (scratch / "articles").mkdir()
    copy_articles(given.articles, scratch / "articles", given.copies)
    place = (scratch / "articles", given.tokenizer, "--work")
    peer = None
    if given.datatrove:
        (scratch / "peer").mkdir()
        copy_articles(given.articles, scratch / "peer", 1, given.peer_step)
        peer = measured("theirs", given.datatrove, scratch / "peer", *place[1:], scratch / "dt")
        rate = peer["articles"] / peer["seconds"]
        print(f"datatrove: {rate:.1f} articles/s ({peer})")
    clocks = {}
    for workers in (1, 2):
        run = measured(
            "ours", sys.executable, *place, scratch / f"out-{workers}", "--workers", workers
        )
        rate = run["articles"] / run["seconds"]
        clocks[workers] = run["clock"]
        print(
            f"biomistral, {workers} worker(s): {rate:.0f} articles/s of processor time, "
            f"{run['articles'] / run['clock']:.0f} by the clock, "
            f"{run['tokens'] / run['seconds'] / 1e6:.2f} million tokens/s, {run['megabytes']:.0f} MB "
            f"a process ({run})"
        )
        if peer:
            print(f"  {rate / (peer['articles'] / peer['seconds']):.1f} times datatrove")
    pair = [
        started("ours", sys.executable, *place, scratch / f"pair-{n}", "--workers", 1)
        for n in (1, 2)
    ]
    slower = max(result_of(run)["clock"] for run in pair)
    print(
        f"by the clock: two workers {clocks[1] / clocks[2]:.2f} times one; two builds at once "
        f"{2 * clocks[1] / slower:.2f} times one, which is all that this machine gives"
    )


if __name__ == "__main__":
    main()
