"""What ``datasets`` reads is what the rows hold."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from biomistral.corpus import build_corpus, export, export_rows
from biomistral.errors import InputError
from biomistral.models.rows import PackedRows
from biomistral.recipe.corpora import CorpusSettings


@pytest.fixture
def tokens(articles_folder: Path, tokenizer, tmp_path: Path) -> Path:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    settings = CorpusSettings(
        articles=[f"{articles_folder}/**/*.xml", f"{articles_folder}/**/*.nxml"],
        sequence_length=128, minimum_words=20, near_duplicates=None, held_out_fraction=0.5,
    )  # fmt: skip
    return build_corpus(settings, tmp_path / "tokenizer", tmp_path / "tokens", seed=3)


def test_datasets_reads_the_rows_without_padding(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(export, "ROWS_A_FILE", 2)
    monkeypatch.setattr(export, "_ROWS_AT_A_TIME", 1)
    out = export_rows(tokens, tmp_path / "dataset")
    read = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert set(read) == {"train", "held_out"}
    for split in read:
        packed = PackedRows(tokens, split)
        assert len(read[split]) == len(packed) > 0
        for (ids, lengths), row in zip(packed, read[split], strict=True):
            assert row["input_ids"] == ids[: sum(lengths)].tolist()
            assert row["seq_lengths"] == list(lengths)
            assert len(row["documents"]) == len(row["licences"]) == len(lengths)
            assert set(row["licences"]) == {"CC-BY"}
            assert all(name.startswith("PMC") for name in row["documents"])
    assert len(list(out.glob("data/train-*-of-*.parquet"))) == -(-len(read["train"]) // 2)
    assert (out / "ATTRIBUTION.txt").read_bytes() == (tokens / "ATTRIBUTION.txt").read_bytes()
    assert (out / "DATASHEET.md").is_file()


def test_without_held_out_rows_there_is_one_split(
    articles_folder: Path, tokenizer, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    settings = CorpusSettings(articles=[f"{articles_folder}/**/*.xml"], sequence_length=128)
    tokens = build_corpus(settings, tmp_path / "tokenizer", tmp_path / "tokens")
    out = export_rows(tokens, tmp_path / "dataset")
    assert {path.name.split("-")[0] for path in (out / "data").iterdir()} == {"train"}
    assert "held_out" not in (out / "README.md").read_text()


def test_two_exports_are_the_same_bytes(tokens: Path, tmp_path: Path) -> None:
    first, second = (export_rows(tokens, tmp_path / name) for name in ("one", "two"))
    for path in sorted((first / "data").iterdir()):
        assert path.read_bytes() == (second / "data" / path.name).read_bytes()


def test_a_folder_without_rows_and_the_rows_themselves_are_refused(
    tokens: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no packed tokens"):
        export_rows(tmp_path / "empty", tmp_path / "dataset")
    with pytest.raises(InputError, match="is the input 'tokens'"):
        export_rows(tokens, tokens)


def test_rows_of_an_older_version_are_named(tokens: Path, tmp_path: Path) -> None:
    table = pq.read_table(tokens / "documents.parquet")
    pq.write_table(pa.table({"id": table["id"]}), tokens / "documents.parquet")
    with pytest.raises(InputError, match=r"has no column pmcid; .* make them again"):
        export_rows(tokens, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()
