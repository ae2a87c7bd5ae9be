from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from biomistral import __version__, artifacts
from biomistral.cli import app, running
from biomistral.cli.app import INTERRUPTED
from biomistral.errors import ModelError
from biomistral.recipe import parse_recipe


def test_the_version_is_that_of_the_package(command) -> None:
    assert command("--version").out == f"biomistral {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["run", "-h"], ["recipe", "--help"]])
def test_help_is_no_error(words: list[str], command) -> None:
    finished = command(*words)
    assert finished.status == 0
    assert "Usage" in finished.out


def test_help_says_that_this_is_for_research_only(command) -> None:
    assert "For research only" in command("--help").out


@pytest.mark.parametrize("words", [["rnu"], ["run"], ["run", "x.yaml", "--ot", "y"]])
def test_a_wrong_command_line_ends_with_2(words: list[str], command) -> None:
    finished = command(*words)
    assert finished.status == 2
    assert "Traceback" not in finished.err


# --- how errors leave -----------------------------------------------------------------------------


def test_what_a_user_can_mend_is_one_line_and_status_2(command, tmp_path: Path) -> None:
    finished = command("recipe", "check", tmp_path / "gone.yaml")
    assert finished.status == 2
    assert finished.out == ""
    assert finished.err.startswith(f"error: {tmp_path}/gone.yaml: there is no such recipe")
    assert finished.err.count("\n") == 1


@pytest.mark.parametrize("place", [0, 3])
def test_traceback_shows_the_rest_wherever_it_stands(place: int, tmp_path: Path) -> None:
    words = ["recipe", "check", str(tmp_path / "gone.yaml")]
    words.insert(place, "--traceback")
    finished = subprocess.run(
        [sys.executable, "-c", "from biomistral.cli import main; main()", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr
    assert "there is no such recipe" in finished.stderr


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(running, "run", fail)
    monkeypatch.setattr(sys, "argv", ["biomistral", "run", str(tmp_path)])
    with pytest.raises(ZeroDivisionError):
        app.main()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, f"\n{INTERRUPTED}\n"),
        (ModelError("a: is broken"), 2, "error: a: is broken\n"),
    ],
)
def test_each_end_has_its_status(
    error: BaseException, status: int, said: str, command, monkeypatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(running, "run", fail)
    finished = command("run", tmp_path)
    assert (finished.status, finished.err) == (status, said)


def test_a_closed_pipe_is_no_traceback() -> None:
    program = "from biomistral.cli import main; main()"
    reader, writer = os.pipe()
    os.close(reader)
    finished = subprocess.run(
        [sys.executable, "-c", program, "recipe", "schema"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert "Traceback" not in finished.stderr


# --- recipe ---------------------------------------------------------------------------------------


def test_check_says_that_a_recipe_is_well_formed(command, write, merge_text: str) -> None:
    path = write(merge_text)
    finished = command("recipe", "check", path)
    assert (finished.status, finished.out) == (
        0,
        f"{path}: the recipe small is well formed (its files are not looked at)\n",
    )


def test_check_tells_all_problems(command, write) -> None:
    finished = command("recipe", "check", write("nam: x\nseed: -1"))
    assert finished.status == 2
    assert finished.err.count("\n  - ") == 3


def test_explain_prints_a_recipe_that_is_the_same(command, write, merge_text: str) -> None:
    finished = command("recipe", "explain", write(merge_text), "--set", "seed=9")
    assert parse_recipe(finished.out) == parse_recipe(merge_text, changes=["seed=9"])


def test_the_schema_is_json_and_the_reference_is_a_page(command) -> None:
    assert json.loads(command("recipe", "schema").out)["title"] == "biomistral recipe"
    assert command("recipe", "reference").out.startswith("# The recipe, field by field\n")


# --- miniature ------------------------------------------------------------------------------------


def test_the_miniature_is_made_once(command, tmp_path: Path) -> None:
    out = tmp_path / "world"
    assert command("miniature", out).out.startswith(f"{out}: the miniature world of seed 7")
    made = (out / artifacts.MANIFEST).stat().st_mtime_ns
    assert command("miniature", out).status == 0
    assert (out / artifacts.MANIFEST).stat().st_mtime_ns == made, "the second time it is kept"


def test_the_miniature_replaces_no_folder_of_somebody_else(command, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("one")
    finished = command("miniature", tmp_path)
    assert finished.status == 2
    assert "was not made by biomistral" in finished.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
