"""Data sets of the hub, out of a cache that was filled by hand; nothing is fetched."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from biomistral.benchmark.catalogue import read_catalogue
from biomistral.benchmark.hub import HUB, fetched
from biomistral.benchmark.questions import find_question_files
from biomistral.benchmark.tasks import TASKS
from biomistral.errors import InputError
from biomistral.recipe.settings import BenchmarkSettings, HubDataset

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return a function that puts files of a data set into the cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(name: str, files: dict[str, list[dict]]) -> HubDataset:
        folder = tmp_path / "hub" / f"datasets--{name.replace('/', '--')}" / "snapshots" / COMMIT
        for path, rows in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            if path.endswith(".parquet"):
                pq.write_table(pa.Table.from_pylist(rows), folder / path)
            else:
                (folder / path).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return HubDataset(id=name, revision=COMMIT)

    return put


MEDQA = {"question": "Next?", "options": {"A": "x", "B": "y"}, "answer_idx": "A"}


def test_a_data_set_brings_its_task_without_a_data_folder(cache):
    dataset = cache(
        "GBaker/MedQA-USMLE-4-options",
        {"phrases_no_exclude_test.jsonl": [MEDQA], "phrases_no_exclude_train.jsonl": [MEDQA]},
    )
    catalogue = read_catalogue("nowhere", [dataset])
    assert list(catalogue.tasks) == ["medqa"]
    found = find_question_files(BenchmarkSettings(data="nowhere", hub=[dataset]), ["medqa"], ["en"])
    assert [name for name, _ in found] == [
        "hub/GBaker/MedQA-USMLE-4-options/phrases_no_exclude_test.jsonl",
        "hub/GBaker/MedQA-USMLE-4-options/phrases_no_exclude_train.jsonl",
    ]


def test_the_folder_comes_first_and_examples_alone_join_its_test_set(cache, data):
    row = {
        "pubid": 1,
        "question": "Does moss help?",
        "context": {"contexts": ["So."]},
        "final_decision": "no",
    }
    dataset = cache("qiaojin/PubMedQA", {"pqa_labeled/train-00000-of-00001.parquet": [row]})
    files = read_catalogue(str(data), [dataset]).files["pubmedqa", "en"]
    assert [(file.split, file.format) for file in files] == [
        ("test", "pubmedqa"),
        ("train", "pubmedqa_hub"),
    ]


def test_what_is_not_in_the_cache_and_cannot_be_fetched_names_the_folder_instead(cache):
    with pytest.raises(InputError, match=r"cais/mmlu at 0123.*cannot be fetched.*benchmark\.data"):
        fetched(HubDataset(id="cais/mmlu", revision=COMMIT))


def test_scripts_are_never_run():
    with pytest.raises(InputError, match=r"bigbio/med_qa makes its data with a Python script.*use"):
        fetched(HubDataset(id="bigbio/med_qa", revision=COMMIT))


def test_an_unknown_data_set_is_refused_with_those_that_are_known():
    with pytest.raises(InputError, match=r'none of the known.*did you mean "cais/mmlu"'):
        fetched(HubDataset(id="cais/mmlux", revision=COMMIT))


def test_the_table_names_published_tasks_only():
    assert {task for files in HUB.values() for task in files} <= set(TASKS)
    assert len(HUB["cais/mmlu"]) == 6
