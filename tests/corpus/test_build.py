"""From files to the artefact, and every document accounted for."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from biomistral import artifacts
from biomistral.corpus import build_corpus, iterate_texts, source_files
from biomistral.corpus.gathering import is_held_out
from biomistral.corpus.shards import draw_of
from biomistral.corpus.tokens import load_tokenizer
from biomistral.errors import InputError, ModelError
from biomistral.models.rows import PackedRows
from biomistral.ngrams import WIDTH, Runs, write_runs
from biomistral.recipe.settings import CorpusSettings
from biomistral.workers import run_all


@pytest.fixture(scope="session")
def tokenizer_folder(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


def settings_for(folder: Path, **changes: object) -> CorpusSettings:
    values = {
        "articles": [f"{folder}/**/*.xml", f"{folder}/**/*.nxml"],
        "sequence_length": 128,
        "minimum_words": 20,
        "near_duplicates": None,  # the articles repeat one sentence
    }
    return CorpusSettings(**{**values, **changes})


@pytest.fixture
def built(articles_folder: Path, tokenizer_folder: Path, tmp_path: Path) -> Path:
    return build_corpus(settings_for(articles_folder), tokenizer_folder, tmp_path / "tokens")


def documents_of(folder: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(folder / "documents.parquet").to_pylist()
    return rows


def counts_of(folder: Path) -> dict[str, object]:
    manifest = artifacts.read_manifest(folder)
    assert manifest is not None
    counts: dict[str, object] = manifest["counts"]
    return counts


def tokens_by_document(folder: Path, split: str = "train") -> dict[str, list[int]]:
    """Documents put together again from their pieces, which lie in order in the rows or not."""
    rows = PackedRows(folder, split)  # type: ignore[arg-type]
    pieces: dict[str, list[list[int]]] = {}
    for index, (ids, lengths) in enumerate(rows):
        ends = np.cumsum(lengths)
        for document, end, length in zip(rows.documents(index), ends, lengths, strict=True):
            pieces.setdefault(document, []).append(ids[end - length : end].tolist())
    # The piece with </s> is the last; of the others, the one with <s> is the first.
    return {
        document: [
            i for piece in sorted(parts, key=lambda p: (p[-1] == 2, p[0] != 1)) for i in piece
        ]
        for document, parts in pieces.items()
    }


def test_every_document_seen_is_kept_or_dropped_with_a_reason(built: Path) -> None:
    reasons = {row["id"]: row["dropped"] for row in documents_of(built)}
    assert reasons == {
        "PMC1": "", "PMC2": "", "PMC3": "", "PMC4": "", "PMC5": "", "PMC5#1": "",
        "6-broken.xml": "not_well_formed", "PMC7": "too_short", "PMC8": "duplicate",
        "9-nc.xml": "licence_not_allowed",
    }  # fmt: skip
    counts = counts_of(built)
    assert counts["articles_read"] == 9
    assert counts["documents_seen"] == 10
    assert counts["documents_kept"] == 6
    assert sum(counts["dropped"].values()) + 6 == 10  # type: ignore[attr-defined]
    assert counts["by_language"] == {"en": 5, "pt": 1}
    assert counts["by_licence"] == {"CC-BY": 6}


def test_a_drop_is_explained(built: Path) -> None:
    (broken,) = [row for row in documents_of(built) if row["id"] == "6-broken.xml"]
    assert "Premature end" in str(broken["detail"])
    assert (broken["num_tokens"], broken["split"]) == (0, "")


def test_rows_hold_exactly_the_tokens_of_the_kept_texts(
    built: Path, articles_folder: Path, tokenizer_folder: Path
) -> None:
    texts = list(iterate_texts(settings_for(articles_folder)))
    ids = [str(row["id"]) for row in documents_of(built) if not row["dropped"]]
    plain = load_tokenizer(tokenizer_folder).plain
    expected = {id_: [*plain(text)["input_ids"], 2] for id_, text in zip(ids, texts, strict=True)}
    found = tokens_by_document(built)
    assert {k: sorted(v) for k, v in found.items()} == {k: sorted(v) for k, v in expected.items()}
    short = [k for k, v in expected.items() if len(v) <= 256]  # at most two pieces: order is known
    assert short
    assert all(found[k] == expected[k] for k in short)


def test_the_files_and_the_manifest_agree(built: Path, tokenizer_folder: Path) -> None:
    facts = json.loads((built / "tokens.json").read_text())
    counts = counts_of(built)
    tokens = sum(int(row["num_tokens"]) for row in documents_of(built))  # type: ignore[call-overload]
    assert facts["num_tokens"] == counts["tokens"] == tokens
    assert facts["dtype"] == "uint16"
    assert facts["tokenizer_sha256"] == load_tokenizer(tokenizer_folder).parts.sha256
    assert (built / "tokens.bin").stat().st_size == facts["num_rows"] * 128 * 2
    assert counts["padding_fraction"] == pytest.approx(1 - tokens / (facts["num_rows"] * 128))


def test_text_that_spells_a_control_token_stays_text(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("The river </s> and <s> the valley of the fever with bark.")
    settings = CorpusSettings(texts=[f"{tmp_path}/a.txt"], minimum_words=1, sequence_length=256)
    out = build_corpus(settings, tokenizer_folder, tmp_path / "tokens")
    (ids, lengths) = PackedRows(out)[0]
    assert Counter(ids[: lengths[0]].tolist())[2] == Counter(ids.tolist())[1] == 1
    assert set(ids[lengths[0] :].tolist()) == {2}


@pytest.mark.parametrize("packing", ["best_fit", "concatenate"])
def test_a_second_build_gives_the_same_bytes(
    packing: str, articles_folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    settings = settings_for(articles_folder, packing=packing, held_out_fraction=0.4)
    first = build_corpus(settings, tokenizer_folder, tmp_path / "one")
    second = build_corpus(settings, tokenizer_folder, tmp_path / "two")
    assert artifacts.content_digest(first) == artifacts.content_digest(second)
    assert str(tmp_path) not in (first / "documents.parquet").read_bytes().decode("latin-1")
    leftovers = {path.name for path in first.iterdir()}
    assert leftovers == {
        "tokens.bin", "rows.parquet", "documents.parquet", "tokens.json", "manifest.json",
        "ATTRIBUTION.txt", "DATASHEET.md",
    }  # fmt: skip


@pytest.mark.slow
def test_the_result_does_not_depend_on_threads(
    articles_folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from biomistral.corpus import build_corpus; "
        "from biomistral.recipe.settings import CorpusSettings; from biomistral import artifacts; "
        "s = CorpusSettings.model_validate_json(sys.argv[1]); "
        "print(artifacts.content_digest(build_corpus(s, sys.argv[2], Path(sys.argv[3]))))"
    )
    settings = settings_for(articles_folder).model_dump_json()
    digests = set()
    for threads, hash_seed in (("1", "1"), ("4", "2")):
        run = subprocess.run(
            [sys.executable, "-c", code, settings, str(tokenizer_folder), str(tmp_path / threads)],
            env={"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": hash_seed, "PATH": "", "HF_HUB_OFFLINE": "1"},
            capture_output=True, text=True, check=True,
            cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip
        digests.add(run.stdout)
    assert len(digests) == 1


def test_held_out_documents_share_no_row_with_training(
    articles_folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    settings = settings_for(articles_folder, held_out_fraction=0.5)
    out = build_corpus(settings, tokenizer_folder, tmp_path / "tokens", seed=3)
    train, held_out = (set(tokens_by_document(out, split)) for split in ("train", "held_out"))
    assert train
    assert held_out
    assert not train & held_out
    declared = {row["id"]: row["split"] for row in documents_of(out) if not row["dropped"]}
    assert declared == dict.fromkeys(train, "train") | dict.fromkeys(held_out, "held_out")
    assert declared["PMC5"] == declared["PMC5#1"]  # a translation goes with its article
    splits = pq.read_table(out / "rows.parquet")["split"].to_pylist()
    assert splits == sorted(splits, key=["train", "held_out"].index)


def test_the_split_follows_the_id_the_seed_and_the_fraction() -> None:
    def held_out_of(fraction: float, seed: int) -> list[bool]:
        draws = [draw_of(f"PMC{i}", seed) for i in range(2000)]
        return list(is_held_out(np.array(draws, np.uint64), fraction).tolist())

    held_out = held_out_of(0.1, 42)
    assert 150 < sum(held_out) < 250
    assert held_out != held_out_of(0.1, 43)
    assert all(b for a, b in zip(held_out, held_out_of(0.2, 42), strict=True) if a)
    assert not any(held_out_of(0.0, 1))
    assert all(held_out_of(1.0, 1))


@pytest.mark.parametrize(
    ("fraction", "which"), [(1.0, "none to train on"), (1e-9, "none held out")]
)
def test_an_empty_split_is_an_error(
    fraction: float, which: str, articles_folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    settings = settings_for(articles_folder, held_out_fraction=fraction)
    with pytest.raises(InputError, match=f"leaves {which} of 6 documents"):
        build_corpus(settings, tokenizer_folder, tmp_path / "tokens")


def test_an_empty_corpus_lists_why(
    articles_folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    settings = settings_for(articles_folder, licences=["CC0"])
    message = (
        r"no document is left; of 10 seen, dropped for: licence_not_allowed 9, not_well_formed 1; "
    )
    with pytest.raises(InputError, match=message):
        build_corpus(settings, tokenizer_folder, tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()
    with pytest.raises(InputError, match=message):
        list(iterate_texts(settings))


def test_articles_and_texts_make_one_corpus(
    articles_folder: Path, tokenizer_folder: Path, tmp_path: Path, prose: str
) -> None:
    (tmp_path / "mine.txt").write_text(prose * 2 + "Mine.")
    settings = settings_for(articles_folder, texts=[f"{tmp_path}/*.txt"])
    out = build_corpus(settings, tokenizer_folder, tmp_path / "tokens")
    last = documents_of(out)[-1]
    assert (last["id"], last["part"], last["licence"], last["dropped"]) == (
        "mine.txt",
        "text",
        "",
        "",
    )
    assert list(source_files(settings))[-1] == ("mine.txt", tmp_path / "mine.txt")


def test_progress_and_fingerprint(
    articles_folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    calls: list[tuple[float, float | None, str]] = []
    settings = settings_for(articles_folder)
    prints = set()
    for seed in (1, 1, 2):
        out = build_corpus(
            settings, tokenizer_folder, tmp_path / "t", seed=seed,
            progress=lambda done, total, text: calls.append((done, total, text)),
        )  # fmt: skip
        manifest = artifacts.read_manifest(out)
        assert manifest is not None
        prints.add(manifest["fingerprint"])
    assert calls[:2] == [(0, 1, "shards"), (1, 1, "articles-00000")]
    assert len(prints) == 2


def test_importing_the_room_is_light() -> None:
    code = "import sys, biomistral.corpus; print(sorted({'torch', 'transformers', 'lxml', 'pyarrow'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[2])  # fmt: skip
    assert run.stdout.strip() == "[]"


@pytest.mark.slow
def test_every_real_article_is_kept_or_dropped_with_a_reason(
    real_data: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    folder = real_data / "jats"
    settings = CorpusSettings(
        articles=[f"{folder}/*.xml", f"{folder}/*.nxml"],
        sequence_length=2048,
        held_out_fraction=0.05,
    )
    out = build_corpus(settings, tokenizer_folder, tmp_path / "tokens")
    counts, documents = counts_of(out), documents_of(out)
    files = {path.name for path in folder.iterdir() if path.suffix in {".xml", ".nxml"}}
    assert {row["file"] for row in documents} == files
    assert counts["articles_read"] == len(files)
    assert counts["documents_kept"] + sum(counts["dropped"].values()) == len(documents)  # type: ignore[attr-defined, operator]
    assert all(row["licence"] in settings.licences for row in documents if not row["dropped"])
    assert counts["documents_kept"] > 460  # type: ignore[operator]
    assert counts["padding_fraction"] < 0.005  # type: ignore[operator]


def test_documents_with_words_of_a_test_question_are_dropped_and_counted(
    articles_folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    settings = settings_for(articles_folder)
    text = next(iter(iterate_texts(settings)))
    write_runs(tmp_path / "runs.parquet", [Runs().of(text)[:1]], WIDTH)
    whole = build_corpus(settings, tokenizer_folder, tmp_path / "whole")
    build_corpus(settings, tokenizer_folder, tmp_path / "part", excluded=tmp_path / "runs.parquet")
    dropped = counts_of(tmp_path / "part")["dropped"]["benchmark_overlap"]
    assert dropped >= 1
    kept = counts_of(tmp_path / "part")["documents_kept"]
    assert kept < counts_of(whole)["documents_kept"]
    texts = list(iterate_texts(settings, tmp_path / "runs.parquet"))
    assert len(texts) == kept
    assert text not in texts


# --- near duplicates, languages, workers, interruptions -------------------------------------------


def many_articles(folder: Path, count: int, article) -> None:
    """Articles of different words in files of their own; every tenth is a slightly edited copy."""
    rng = random.Random(11)
    vocabulary = ["".join(rng.choices("abcdeilmnorst", k=rng.randint(2, 8))) for _ in range(900)]
    vocabulary += [
        "the",
        "of",
        "and",
        "with",
        "was",
        "for",
        "that",
        "which",
        "were",
        "from",
    ] * 60  # reads as English
    folder.mkdir()
    words: list[str] = []
    for number in range(count):
        if number % 10 == 9:
            words[rng.randrange(len(words))] = "edited"
        else:
            words = rng.choices(vocabulary, k=rng.randint(150, 400))
        text = f"The patients were treated with the bark and {' '.join(words)}"
        data = article(f"<p>{text}</p>", title=f"Bark {number}", pmcid=f"PMC{number + 100}",
                       attributes='article-type="research-article" xml:lang="en"')  # fmt: skip
        (folder / f"{number:03d}.xml").write_bytes(data)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards and parts of a size that makes many of few articles; always with processes."""
    monkeypatch.setattr("biomistral.corpus.sources.SHARD_FILES", 7)
    monkeypatch.setattr("biomistral.corpus.layout.PART_DOCUMENTS", 8)
    monkeypatch.setattr("biomistral.corpus.build._SMALL_BYTES", 0)
    monkeypatch.setattr("biomistral.corpus.build._FEW_ROWS", 0)


@pytest.mark.usefixtures("small_shards")
def test_the_bytes_do_not_depend_on_the_number_of_workers(
    article, tokenizer_folder: Path, tmp_path: Path
) -> None:
    many_articles(tmp_path / "pmc", 40, article)
    digests, prints = set(), set()
    for workers in (1, 2, 3):
        settings = settings_for(tmp_path / "pmc", articles=[f"{tmp_path}/pmc/*.xml"], workers=workers, near_duplicates=0.65)  # fmt: skip
        out = build_corpus(settings, tokenizer_folder, tmp_path / f"with-{workers}")
        manifest = artifacts.read_manifest(out)
        assert manifest is not None
        digests.add(manifest["content_sha256"])
        prints.add(manifest["fingerprint"])
        dropped = {row["id"]: row["detail"] for row in documents_of(out) if row["dropped"]}
        assert dropped == {f"PMC{n + 100}": f"PMC{n + 99}" for n in (9, 19, 29, 39)}
    assert len(digests) == len(prints) == 1


@pytest.mark.usefixtures("small_shards")
def test_a_shard_of_another_setting_or_content_is_never_taken(
    article, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_articles(tmp_path / "pmc", 20, article)
    settings = settings_for(tmp_path / "pmc", articles=[f"{tmp_path}/pmc/*.xml"], workers=1)
    whole = build_corpus(settings, tokenizer_folder, tmp_path / "whole")
    with monkeypatch.context() as patch:  # stop after the shards: they are kept
        patch.setattr("biomistral.corpus.build.gather", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_corpus(settings, tokenizer_folder, tmp_path / "tokens")
        (work,) = tmp_path.glob(".tokens.*.partial/.work/shards")
        assert len(list(work.glob("articles-*"))) == 3
    fewer = settings_for(tmp_path / "pmc", articles=[f"{tmp_path}/pmc/*.xml"], workers=1, minimum_words=250)  # fmt: skip
    out = build_corpus(fewer, tokenizer_folder, tmp_path / "tokens")
    assert 0 < counts_of(out)["documents_kept"] < counts_of(whole)["documents_kept"]  # type: ignore[operator]
    assert not work.exists()  # swept away with what it was for


@pytest.mark.usefixtures("small_shards")
def test_documents_over_the_budget_are_dropped_with_that_reason(
    articles_folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    plain = build_corpus(settings_for(articles_folder), tokenizer_folder, tmp_path / "plain")
    total = int(counts_of(plain)["tokens"])  # type: ignore[call-overload]
    mix = {"order": "others_first", "tokens": total // 2}
    out = build_corpus(
        settings_for(articles_folder, language_mix=mix), tokenizer_folder, tmp_path / "mixed"
    )
    counts = counts_of(out)
    assert counts["tokens"] <= total // 2  # type: ignore[operator]
    assert counts["dropped"]["over_budget"] > 0  # type: ignore[index]
    first = PackedRows(out).documents(0)
    assert first == ("PMC5#1",) * len(first)  # Portuguese, before all English


def test_every_row_leads_to_articles_and_licences(built: Path) -> None:
    documents = documents_of(built)
    for row in pq.read_table(built / "rows.parquet").to_pylist():
        for index in row["documents"]:
            assert documents[index]["licence"] == "CC-BY"
            assert documents[index]["pmcid"].startswith("PMC")
    attributed = (built / "ATTRIBUTION.txt").read_text().splitlines()
    assert sum(line.endswith(". CC-BY.") for line in attributed) == 6
    assert "6 documents" in (built / "DATASHEET.md").read_text()


def test_a_tokenizer_that_does_not_match_is_refused(
    articles_folder: Path, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids that were written are compared with those of Transformers, in every build."""
    real = load_tokenizer(tokenizer_folder)

    class Other:
        def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
            return {"input_ids": real.plain(text, add_special_tokens=False)["input_ids"][::-1]}

    other = dataclasses.replace(real, plain=Other())
    monkeypatch.setattr("biomistral.corpus.build.load_tokenizer", lambda _: other)
    with pytest.raises(ModelError, match="gives other tokens than Transformers, first at place 0"):
        build_corpus(settings_for(articles_folder), tokenizer_folder, tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()


_KILLED = """
import sys, time
from pathlib import Path
from biomistral.corpus import build, build_corpus, sources
from biomistral.recipe.settings import CorpusSettings
if __name__ == "__main__":
    sources.SHARD_FILES = 5
    build._SMALL_BYTES = 0
    def slow(done, total, text):
        print(done, text, flush=True)
        if done == 3:
            time.sleep(60)
    settings = CorpusSettings.model_validate_json(sys.argv[1])
    build_corpus(settings, sys.argv[2], Path(sys.argv[3]), progress=slow)
"""


def test_a_killed_build_goes_on_with_the_shards_it_had(
    article, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_articles(tmp_path / "pmc", 30, article)
    settings = settings_for(tmp_path / "pmc", articles=[f"{tmp_path}/pmc/*.xml"])
    script = tmp_path / "killed.py"
    script.write_text(_KILLED)
    out = tmp_path / "tokens"
    run = subprocess.Popen(
        [sys.executable, script, settings.model_copy(update={"workers": 2}).model_dump_json(), tokenizer_folder, out],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("3 "):
            break
    run.kill()  # SIGKILL: nothing is tidied up
    run.wait()
    assert not out.exists()
    (work,) = tmp_path.glob(".tokens.*.partial/.work/shards")
    finished = {path.name: path.stat().st_ino for path in work.glob("articles-*")}
    assert len(finished) >= 3
    monkeypatch.setattr("biomistral.corpus.sources.SHARD_FILES", 5)
    made = []
    monkeypatch.setattr(
        "biomistral.corpus.build.run_all",
        lambda function, items, workers: made.append(list(items)) or run_all(function, items, 1),
    )
    build_corpus(settings, tokenizer_folder, out)
    assert len(made[0]) == 6 - len(finished)
    undisturbed = build_corpus(settings, tokenizer_folder, tmp_path / "undisturbed")
    assert artifacts.content_digest(out) == artifacts.content_digest(undisturbed)


def test_a_full_disk_is_told_and_the_finished_shards_are_kept(
    articles_folder: Path, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("biomistral.corpus.build.write_part", full)
        with pytest.raises(InputError, match="no space left on the disk; free some"):
            build_corpus(settings_for(articles_folder), tokenizer_folder, tmp_path / "tokens")
    assert list(tmp_path.glob(".tokens.*.partial/.work/shards/articles-*"))
    build_corpus(settings_for(articles_folder), tokenizer_folder, tmp_path / "tokens")


def test_rows_that_were_handed_over_and_lost_are_written_again(
    articles_folder: Path, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between handing rows over and publishing them empties the draft."""
    whole = build_corpus(settings_for(articles_folder), tokenizer_folder, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.hardlink_to", full_of_errors)  # a disk without hard links
        patch.setattr("biomistral.corpus.build._write_datasheet", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_corpus(settings_for(articles_folder), tokenizer_folder, tmp_path / "tokens")
    out = build_corpus(settings_for(articles_folder), tokenizer_folder, tmp_path / "tokens")
    assert artifacts.content_digest(out) == artifacts.content_digest(whole)


def full_of_errors(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")
