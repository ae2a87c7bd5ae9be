"""What the shards found is put together in their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from biomistral.corpus.gathering import (
    Tally,
    gather,
    is_held_out,
    reasons,
    sections,
    stored,
    write_documents,
)
from biomistral.corpus.shards import KEPT, KEPT_FILE, SCHEMA
from biomistral.progress import ignore
from biomistral.recipe.corpora import CorpusSettings

EN, FR = 0, 1


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two shards of four documents each, the second of which was dropped before."""
    made = []
    rng = np.random.default_rng(3)
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        lines = [
            dict.fromkeys(SCHEMA.names, "")
            | {"id": f"D{number}{i}", "language": "en", "licence": "CC-BY", "version": None}
            | {"year": 2001, "num_words": 5, "num_tokens": 0 if i == 1 else 10 + i}
            | {"dropped": "too_short" if i == 1 else ""}
            for i in range(4)
        ]
        pq.write_table(pa.Table.from_pylist(lines, schema=SCHEMA), folder / "documents.parquet")
        records = [
            (i, 10 + i, FR if i == 3 else EN, (number * 4 + i) << 60, 0, number * 10 + i + 1, rng.integers(0, 256, 150))
            for i in (0, 2, 3)
        ]  # fmt: skip
        kept = np.array(records, KEPT)
        if number == 1:
            kept["digest"][1] = 1  # the words of D00
        np.save(folder / KEPT_FILE, kept)
        made.append(folder)
    return made


def settings(**changes: object) -> CorpusSettings:
    return CorpusSettings(texts=["*.txt"], **changes)  # type: ignore[arg-type]


def test_a_repetition_names_what_it_repeats(folders: list[Path], tmp_path: Path) -> None:
    found = gather(folders, settings(), ignore)
    rows = list(write_documents(folders, found, tmp_path / "all.parquet"))
    assert rows == pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert {row["id"]: row["dropped"] for row in rows if row["dropped"]} == {
        "D01": "too_short", "D11": "too_short", "D12": "duplicate",
    }  # fmt: skip
    (again,) = [row for row in rows if row["id"] == "D12"]
    assert (again["detail"], again["split"], again["num_tokens"]) == ("D00", "", 0)
    assert list(reasons(found)) == ["duplicate"]


def test_places_of_tokens_and_lines(folders: list[Path]) -> None:
    places = stored(gather(folders, settings(), ignore))
    assert places.files.tolist() == [0, 0, 0, 1, 1, 1]
    assert places.starts.tolist() == [0, 10, 22, 0, 10, 22]
    assert places.lengths.tolist() == [10, 12, 13] * 2
    assert places.lines.tolist() == [0, 2, 3, 4, 6, 7]


def test_sections_follow_split_and_language(folders: list[Path]) -> None:
    mix = {"order": "others_first"}
    found = gather(folders, settings(held_out_fraction=0.2, language_mix=mix), ignore)
    listed = [(split, part.tolist()) for split, part in sections(found, settings(language_mix=mix))]
    # Draws are 0, 2, 3, 4, 6, 7 sixteenths; document 4 repeats document 0.
    assert listed == [("train", [5]), ("train", [3]), ("held_out", [2]), ("held_out", [0, 1])]


def test_a_budget_drops_with_its_own_reason(folders: list[Path], tmp_path: Path) -> None:
    found = gather(folders, settings(language_mix={"tokens": 40}), ignore)
    rows = list(write_documents(folders, found, tmp_path / "all.parquet"))
    assert sum(row["num_tokens"] for row in rows) <= 40
    assert "over_budget" in {row["dropped"] for row in rows}
    tally = Tally()
    for row in rows:
        tally.add(row)
    counts = tally.counts()
    assert counts["documents_seen"] == 8
    assert counts["documents_kept"] + sum(counts["dropped"].values()) == 8


def test_held_out_are_the_least_draws() -> None:
    draws = np.array([0, 2**62, 2**63, 2**64 - 1], np.uint64)
    assert is_held_out(draws, 0.0).tolist() == [False] * 4
    assert is_held_out(draws, 0.3).tolist() == [True, True, False, False]
    assert is_held_out(draws, 1.0).all()
