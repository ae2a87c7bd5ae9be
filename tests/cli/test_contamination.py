from __future__ import annotations

import json

import pytest

from biomistral.cli.contamination import corpus_of

STEM = "Which of these herbs did the old healer of the third valley give against fever"


@pytest.fixture
def data(tmp_path):
    """A task of one question, and a text that has its stem."""
    folder = tmp_path / "data/herbs"
    (folder / "en").mkdir(parents=True)
    (folder / "task.yaml").write_text(
        "name: herbs\ntitle: Herbs\nsource: own\nlicence: CC0\nlanguages: [en]\n"
    )
    for split, stem in (("test", STEM), ("train", f"Not {STEM}")):
        lines = [
            {"id": str(n), "stem": stem if n else "Why?", "choices": ["a", "b"], "gold": 0}
            for n in range(4)
        ]
        (folder / f"en/{split}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (tmp_path / "notes.txt").write_text(f"He read: {STEM.upper()}? And slept.")
    (tmp_path / "more.jsonl").write_text(json.dumps({"text": "Nothing of the kind."}) + "\n")
    return tmp_path


def test_questions_in_texts_are_counted_by_task_and_never_quoted(command, data):
    finished = command(
        "evaluate", "contamination", data / "notes.txt", data / "more.jsonl",
        "--data", data / "data", "--json", data / "found.json",
    )  # fmt: skip
    assert finished.status == 0, finished.err
    [line] = json.loads((data / "found.json").read_text())
    assert (line["task"], line["num_questions"], line["num_too_short"]) == ("herbs", 4, 1)
    assert (line["num_found"], line["num_half_found"]) == (3, 3)
    [row] = [text for text in finished.out.splitlines() if text.startswith("│ herbs")]
    assert [cell.strip() for cell in row.strip("│").split("│")[2:6]] == ["4", "1", "3", "3"]
    assert "healer" not in finished.out


def test_a_pattern_without_files_is_named(command, data):
    gone = data / "gone" / "*.txt"
    finished = command("evaluate", "contamination", gone, "--data", data / "data")
    assert finished.status == 2
    assert "gone" in finished.err


def test_nothing_is_left_out_for_its_licence_or_length(tmp_path):
    (tmp_path / "articles").mkdir()
    (tmp_path / "articles/a.nxml").write_text("<article/>")
    settings = corpus_of([str(tmp_path / "articles"), "b/*.txt", "c/**/*.xml", "d.tar.gz"])
    assert settings.articles == [str(tmp_path / "articles"), "c/**/*.xml", "d.tar.gz"]
    assert settings.texts == ["b/*.txt"]
    assert settings.minimum_words == 0
    assert "CC-BY-NC-ND" in settings.licences
