"""A corpus from the command line, without a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def tokenizer_folder(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(4):
        words = " ".join(f"The fever of valley {number} was treated {i} times." for i in range(20))
        (folder / f"{number}.txt").write_text(words)
    (folder / "short.txt").write_text("The fever was gone.")
    return folder


def test_a_corpus_is_built_and_exported(
    command, texts: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tokens"
    finished = command(
        "corpus", "build", out, "--tokenizer", tokenizer_folder, "--texts", texts,
        "--sequence-length", "64", "--set", "minimum_words=10", "--set", "near_duplicates=null",
    )  # fmt: skip
    assert finished.status == 0, finished.err
    assert "4 of 5 documents" in finished.out
    assert "dropped: too_short 1" in finished.out
    assert (out / "ATTRIBUTION.txt").is_file()
    finished = command("corpus", "export", out, tmp_path / "dataset")
    assert finished.status == 0, finished.err
    assert "datasets.load_dataset" in finished.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "corpus build: corpus[0]: names no source; give articles, texts or both"),
        (["--texts", "nowhere/*.txt"], "the pattern 'nowhere/*.txt' matches no files"),
        (["--texts", "x", "--set", "langages=[en]"], 'unknown key; did you mean "languages"?'),
        (["--texts", "x", "--sequence-length", "3"], "corpus[0].sequence_length"),
        (["--texts", "x", "--set", "language_mix.temperature=2"], "give tokens, too"),
    ],
)
def test_bad_options_are_told_on_one_line(
    command, words: list[str], said: str, tokenizer_folder: Path, tmp_path: Path
) -> None:
    finished = command("corpus", "build", tmp_path / "out", "--tokenizer", tokenizer_folder, *words)
    assert finished.status == 2
    assert said in finished.err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_one_readable_article_is_told(
    command, tokenizer_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "pmc").mkdir()
    (tmp_path / "pmc/a.xml").write_text("<article><front>")
    finished = command(
        "corpus", "build", tmp_path / "out", "--tokenizer", tokenizer_folder, "--articles", tmp_path / "pmc"
    )  # fmt: skip
    assert finished.status == 2
    assert "no document is left; of 1 seen, dropped for: not_well_formed 1" in finished.err


def test_a_place_without_a_tokenizer_is_told(command, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished = command("corpus", "build", out, "--tokenizer", texts, "--texts", texts)
    assert finished.status == 2
    assert "no tokenizer can be loaded" in finished.err
