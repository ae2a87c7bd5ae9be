"""Every kind of bad input: one clear line, status 2, nothing half-written."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from biomistral import artifacts
from biomistral.artifacts import read_manifest

ARTICLE = """<?xml version="1.0"?>
<article xmlns:xlink="http://www.w3.org/1999/xlink" xml:lang="en"><front><article-meta>
<article-id pub-id-type="pmc">PMC{number}</article-id>
<title-group><article-title>On valleys {number}</article-title></title-group>
<permissions><license xlink:href="https://creativecommons.org/licenses/by/4.0/"/></permissions>
</article-meta></front><body><sec><title>Results</title>
<p>The fever of the valley number {number} passes when the rain comes and the bark is dry.</p>
</sec></body></article>
"""


@pytest.fixture
def fails(command, tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs a recipe into ``runs``, which must fail, and gives its message."""

    def fails(*words: str | Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        finished = command("run", *words, "--out", tmp_path / "runs")
        assert finished.status == 2, finished.err
        assert finished.err.startswith("error: ")
        assert finished.err.count("\n") == 1, "one line"
        new = set(tmp_path.rglob("*")) - set(before)
        whole = {path for path in new if read_manifest(path) is not None}
        known = {"recipe.yaml", "digests.volatile.json"}  # beside the artefacts, written at once
        # Finished shards outlive a failure, below a hidden draft that is no artefact.
        files = (
            p for p in new if p.is_file() and p.name not in known and artifacts.WORK not in p.parts
        )
        rest = [p for p in files if not whole.intersection(p.parents)]
        assert rest == [], "nothing half-written"
        return str(finished.err)

    return fails


def _corpus(tokenizer: Path, pattern: str | Path, more: str = "") -> str:
    return (
        f"name: small\nmodels: {{a: {{path: {tokenizer}}}}}\n"
        f"corpus: {{articles: '{pattern}', minimum_words: 5, sequence_length: 64{more}}}\n"
    )


def _evaluation(model: Path, data: Path) -> str:
    return (
        f"name: small\nmodels: {{a: {{path: {model}}}}}\nbenchmark: {{data: {data}}}\n"
        "evaluate: {models: [a], shots: 1, seeds: [1], precision: float32}\n"
    )


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Folder of a benchmark of one task with a train and a test question."""
    folder = tmp_path / "benchmark" / "rivers"
    (folder / "en").mkdir(parents=True)
    (folder / "task.yaml").write_text(
        "name: rivers\ntitle: Rivers\ngroup: general\nsource: invented\nlicence: CC0-1.0\n"
    )
    for split in ("train", "test"):
        line = {"id": "1", "stem": f"Where ({split})?", "choices": ["here", "there"], "gold": 1}
        (folder / "en" / f"{split}.jsonl").write_text(json.dumps(line) + "\n")
    return folder


# --- the recipe -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("merge:", "merg:", 'merg: unknown key; did you mean "merge"?'),
        ("method: slerp", "method: slurp", "merge[0]: method 'slurp' is not one of linear"),
        ("t: 0.5", "t: 1.5", "merge[0].t: 1.5 is outside [0, 1]"),
        ("base: a", "base: c", "merge[0]: there is no model 'c'"),
        ("name: small", "name: small\nname: big", "the key 'name' is given twice (line 2)"),
    ],
)
def test_a_wrong_recipe(old: str, new: str, message: str, fails, write, merge_text: str) -> None:
    assert message in fails(write(merge_text.replace(old, new, 1)))


def test_a_missing_recipe(fails, tmp_path: Path) -> None:
    assert "gone.yaml: there is no such recipe" in fails(tmp_path / "gone.yaml")


# --- models ---------------------------------------------------------------------------------------


def test_a_missing_model(fails, write, merge_text: str, tmp_path: Path) -> None:
    message = fails(write(merge_text), "--set", f"models.b.path={tmp_path}/gone")
    assert f"{tmp_path}/gone: there is no such model folder" in message


def test_models_whose_shapes_do_not_match(fails, write, merge_text: str, make_model) -> None:
    other = make_model(0, intermediate_size=96)
    message = fails(write(merge_text), "--set", f"models.b.path={other}")
    assert "128" in message
    assert "96" in message


def test_a_tokenizer_larger_than_its_embedding(
    fails, write, tiny_model: Path, task: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([f"<new-{index}>" for index in range(100)])
    tokenizer.save_pretrained(model)
    message = fails(write(_evaluation(model, task.parent)))
    assert "embedding" in message
    assert "'<new-99>'" in message


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors"])
def test_a_model_with_a_broken_file(
    broken: str, fails, write, merge_text: str, tiny_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / broken).write_bytes((model / broken).read_bytes()[:50])
    message = fails(write(merge_text), "--set", f"models.b.path={model}")
    assert str(model) in message


# --- questions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"id": "1", "stem": "Where?", "choices": ["a", "b"]}, "gold"),
        ({"id": "1", "stem": "Where?", "choices": ["a", "b"], "gold": 2}, "gold"),
        ({"id": "1", "stem": "Where?", "choices": ["a"], "gold": 0}, "choices"),
        ("no JSON", "JSON"),
    ],
)
def test_a_question_that_cannot_be_asked(
    line: object, message: str, fails, write, tiny_model: Path, task: Path
) -> None:
    path = task / "en" / "test.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    path.write_text(path.read_text() + text + "\n")
    said = fails(write(_evaluation(tiny_model, task.parent)))
    assert str(path) in said
    assert message in said


def test_an_unknown_task(fails, write, tiny_model: Path, task: Path) -> None:
    text = _evaluation(tiny_model, task.parent).replace("seeds", "tasks: [river], seeds")
    assert 'did you mean "rivers"' in fails(write(text))


# --- articles -------------------------------------------------------------------------------------


def test_an_unreadable_article_is_dropped_and_counted(
    command, write, tiny_model: Path, tmp_path: Path
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.xml").write_text(ARTICLE.format(number=number))
    (tmp_path / "broken.xml").write_text(ARTICLE.format(number=9)[:300])
    recipe = write(_corpus(tiny_model, tmp_path / "*.xml"))
    assert command("run", recipe, "--out", tmp_path / "runs").status == 0
    tokens = tmp_path / "runs/small/tokens/corpus"
    manifest = read_manifest(tokens)
    assert manifest is not None
    assert manifest["counts"]["documents_kept"] == 3
    assert sum(manifest["counts"]["dropped"].values()) == 1
    lines = pq.read_table(tokens / "documents.parquet").to_pylist()
    (dropped,) = [line for line in lines if line["dropped"]]
    assert dropped["file"] == "broken.xml"


def test_a_corpus_of_which_nothing_is_left(fails, write, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.xml").write_text(ARTICLE[:300])
    message = fails(write(_corpus(tiny_model, tmp_path / "*.xml")))
    assert "corpus 'corpus': no document is left; of 1 seen, dropped for: " in message


def test_a_pattern_that_matches_nothing(fails, write, tiny_model: Path, tmp_path: Path) -> None:
    assert "matches no files" in fails(write(_corpus(tiny_model, tmp_path / "gone/*.xml")))


def test_rows_longer_than_the_context(fails, write, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "1.xml").write_text(ARTICLE.format(number=1))
    text = _corpus(tiny_model, tmp_path / "*.xml").replace("length: 64", "length: 1024")
    message = fails(write(text + "pretrain: [{name: p, model: a, precision: float32}]"))
    assert "1024" in message
    assert "512" in message


# --- disks ----------------------------------------------------------------------------------------


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow past 50 kB, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.usefixtures("small_files")
def test_no_space_on_the_disk(fails, write, merge_text: str) -> None:
    assert "no space left on the disk; free some" in fails(write(merge_text))


def test_a_place_that_cannot_be_written(command, write, merge_text: str, tmp_path: Path) -> None:
    recipe = write(merge_text)
    for out in (recipe, Path("/sys/biomistral-test")):
        finished = command("run", recipe, "--out", out)
        assert finished.status == 2
        assert "cannot be used" in finished.err
        assert finished.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_folder_of_somebody_else(command, write, merge_text: str, tmp_path: Path) -> None:
    place = tmp_path / "runs/small/model/m"
    place.mkdir(parents=True)
    (place / "thesis.txt").write_text("one")
    finished = command("run", write(merge_text), "--out", tmp_path / "runs")
    assert finished.status == 2
    assert "was not made by biomistral" in finished.err
    assert [path.name for path in place.iterdir()] == ["thesis.txt"]
