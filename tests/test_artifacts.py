"""An artefact is whole or absent, whatever happens while it is made."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from biomistral import __version__, artifacts
from biomistral.artifacts import Origin, create, read_manifest
from biomistral.errors import InputError

ORIGIN = Origin("tokens", "letters", {"size": 3}, {"files/letters": "abc"})
OTHER = Origin("tokens", "letters", {"size": 4}, {"files/letters": "abc"})


def _fill(draft: artifacts.Draft, text: str = "a") -> None:
    (draft.folder / "inner").mkdir()
    (draft.folder / "inner" / "letters.txt").write_text(text * 1000)
    (draft.folder / "facts.json").write_text("{}")
    draft.counts["letters"] = 1000


def _make(out: Path, origin: Origin = ORIGIN, text: str = "a") -> Path:
    with create(out, origin) as draft:
        _fill(draft, text)
    return out


def _fail(
    out: Path, error: BaseException, *, origin: Origin = ORIGIN, resume: bool = False
) -> None:
    """Begin an artefact, finish a part of it, and meet an error."""
    with create(out, origin, resume=resume) as draft:
        _fill(draft)
        if resume:
            (draft.work / "part").write_text("done")
        raise error


def _whole(out: Path) -> bool:
    manifest = read_manifest(out)
    return manifest is not None and manifest["content_sha256"] == artifacts.content_digest(out)


def _all_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# --- what an artefact says of itself --------------------------------------------------------------


def test_the_manifest_says_what_was_made_of_what_with_what(tmp_path: Path) -> None:
    with create(tmp_path / "letters", ORIGIN) as draft:
        _fill(draft)
        draft.device, draft.threads = "cuda", 4
        draft.not_deterministic = "order of additions"
    manifest = read_manifest(tmp_path / "letters")
    assert manifest is not None
    assert {key: manifest[key] for key in ("kind", "name", "settings", "inputs")} == {
        "kind": "tokens",
        "name": "letters",
        "settings": {"size": 3},
        "inputs": {"files/letters": "abc"},
    }
    assert manifest["fingerprint"] == ORIGIN.fingerprint
    assert manifest["content_sha256"] == artifacts.content_digest(tmp_path / "letters")
    assert manifest["counts"] == {"letters": 1000}
    assert (manifest["device"], manifest["threads"]) == ("cuda", 4)
    assert manifest["deterministic"] == "order of additions"
    assert manifest["bytes"] == 1002
    assert manifest["versions"]["biomistral"] == __version__
    assert manifest["seconds"] >= 0
    assert manifest["resumed"] is False
    assert {"made_at", "commit", "step_version"} <= manifest.keys()


def test_an_artefact_is_deterministic_unless_it_says_why_not(tmp_path: Path) -> None:
    manifest = read_manifest(_make(tmp_path / "letters"))
    assert manifest is not None
    assert manifest["deterministic"] is True


def test_only_the_artefact_is_left_at_its_place(tmp_path: Path) -> None:
    _make(tmp_path / "letters")
    assert _all_below(tmp_path) == [
        "letters",
        "letters/facts.json",
        "letters/inner",
        "letters/inner/letters.txt",
        "letters/manifest.json",
    ]


def test_the_name_is_no_part_of_the_fingerprint_and_everything_else_is() -> None:
    base: dict[str, Any] = {
        "kind": "model",
        "name": "a",
        "settings": {"t": 0.5},
        "inputs": {"m": "1"},
        "step_version": 1,
    }
    fingerprint = Origin(**base).fingerprint
    assert Origin(**{**base, "name": "b"}).fingerprint == fingerprint
    for key, value in {
        "kind": "tokens",
        "settings": {"t": 0.6},
        "inputs": {"m": "2"},
        "step_version": 2,
    }.items():
        assert Origin(**{**base, key: value}).fingerprint != fingerprint, key


def test_the_order_of_settings_does_not_matter() -> None:
    assert artifacts.digest_of({"a": 1, "b": [2]}) == artifacts.digest_of({"b": [2], "a": 1})
    assert artifacts.digest_of([1, 2]) != artifacts.digest_of([2, 1])


def test_the_content_digest_knows_bytes_and_names_but_not_manifest_and_timings(
    tmp_path: Path,
) -> None:
    folder = _make(tmp_path / "letters")
    digest = artifacts.content_digest(folder)
    (folder / "manifest.json").write_text("{}")
    (folder / "inner" / "speed.volatile.json").write_text("{}")
    assert artifacts.content_digest(folder) == digest
    (folder / "facts.json").rename(folder / "other.json")
    renamed = artifacts.content_digest(folder)
    (folder / "other.json").write_text("{ }")
    assert len({digest, renamed, artifacts.content_digest(folder)}) == 3


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"fingerprint"', "\xff"])
def test_what_is_no_manifest_is_no_artefact(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(content.encode("latin-1"))
    assert read_manifest(tmp_path) is None


# --- fingerprints of the user's files -------------------------------------------------------------


def test_files_count_by_name_order_and_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "1.txt", tmp_path / "2.txt"
    one.write_text("a")
    two.write_text("b")
    first = artifacts.fingerprint_of_files([one, two])
    assert artifacts.fingerprint_of_files([one, two]) == first
    assert artifacts.fingerprint_of_files([two, one]) != first
    os.utime(one, (1, 1))
    assert artifacts.fingerprint_of_files([one, two]) == first, "time is no content"
    one.write_text("c")
    assert artifacts.fingerprint_of_files([one, two]) != first


def test_many_files_have_the_fingerprint_of_their_list(tmp_path: Path) -> None:
    """However they are shared out among threads."""
    files = [tmp_path / f"{index}.txt" for index in range(300)]
    for file in files:
        file.write_text(file.name)
    expected = artifacts.digest_of([[f.name, artifacts.file_digest(f)] for f in files])
    with pytest.MonkeyPatch.context() as patch:
        for at_a_time in (1, 7, 128, 4096):
            patch.setattr(artifacts, "_FILES_AT_A_TIME", at_a_time)
            assert artifacts.fingerprint_of_files(iter(files)) == expected
    assert artifacts.fingerprint_of_files([]) == artifacts.digest_of([])


def test_a_label_counts_and_the_place_of_its_file_does_not(tmp_path: Path) -> None:
    for place in ("here/es", "here/fr", "there/es"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "test.jsonl").write_text("{}")

    def of(root: str, name: str) -> str:
        return artifacts.fingerprint_of_files([(name, tmp_path / root / name)])

    assert of("here", "es/test.jsonl") == of("there", "es/test.jsonl")
    assert of("here", "es/test.jsonl") != of("here", "fr/test.jsonl")


def test_a_folder_counts_by_its_files_wherever_it_lies(tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place / "model").mkdir(parents=True)
        (tmp_path / place / "model" / "config.json").write_text("{}")
    here, there = tmp_path / "here/model", tmp_path / "there/model"
    assert artifacts.fingerprint_of_files([here]) == artifacts.fingerprint_of_files([there])
    (there / "config.json").write_text("{ }")
    assert artifacts.fingerprint_of_files([here]) != artifacts.fingerprint_of_files([there])


def test_weights_count_by_size_and_time_of_change(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"0" * 10)
    first = artifacts.fingerprint_of_files([weights])
    status = weights.stat()
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert artifacts.fingerprint_of_files([weights]) != first


def test_an_artefact_among_the_inputs_counts_by_what_made_it(tmp_path: Path) -> None:
    one = artifacts.fingerprint_of_files([_make(tmp_path / "letters")])
    (tmp_path / "letters" / "facts.json").unlink()
    assert artifacts.fingerprint_of_files([tmp_path / "letters"]) == one
    assert artifacts.fingerprint_of_files([_make(tmp_path / "letters", OTHER)]) != one


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.txt: cannot be read"):
        artifacts.fingerprint_of_files([tmp_path / "gone.txt"])


# --- whole or absent ------------------------------------------------------------------------------


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        _fail(tmp_path / "a" / "letters", RuntimeError())
    assert _all_below(tmp_path) == ["a"]


def test_the_old_artefact_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    out = _make(tmp_path / "letters", text="old")
    with create(out, OTHER) as draft:
        _fill(draft, "new")
        assert _whole(out)
        assert (out / "inner/letters.txt").read_text().startswith("old")
    assert (out / "inner/letters.txt").read_text().startswith("new")
    with pytest.raises(RuntimeError):
        _fail(out, RuntimeError())
    assert (out / "inner/letters.txt").read_text().startswith("new")
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]


# Forks one child per instant; the child makes an artefact and dies by SIGKILL at its n-th call of
# the system (as Python's audit events tell them), until one child lives to its end.
KILLS = """
import json, os, shutil, signal, sys
from pathlib import Path
from biomistral import artifacts, versions
from biomistral.artifacts import Origin, create, read_manifest
artifacts.flush = lambda path: os.listdir(path) if path.is_dir() else None  # an event, no wait
versions.commit()  # its processes are no part of the story
root, replaces, resume = Path(sys.argv[1]), sys.argv[2] == "old", sys.argv[3] == "resume"
out = root / "letters"
def make(size, text):
    origin = Origin("tokens", "letters", {"size": size})
    with create(out, origin, resume=resume) as draft:
        for index in range(3):
            part = draft.work / f"{index}.part"
            if not part.exists():
                part.with_suffix(".tmp").write_text(text)
                part.with_suffix(".tmp").rename(part)
        (draft.folder / "inner").mkdir()
        for index in range(3):
            (draft.folder / "inner" / f"{index}.txt").write_text(text * 1000)
def state():
    manifest = read_manifest(out)
    if manifest is None:
        return "in pieces" if out.exists() else "absent"
    whole = manifest["content_sha256"] == artifacts.content_digest(out)
    return {3: "old", 4: "new"}[manifest["settings"]["size"]] if whole else "in pieces"
def die_at(instant):
    left = [instant]
    def hook(event, _):
        if event.split(".")[0] in ("open", "os", "shutil", "fcntl"):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    make(4, "new")
    os._exit(0)
states, parts, ready, killed, instant = [], [], [], True, 0
while killed:
    instant += 1
    if not resume:
        shutil.rmtree(root)
        root.mkdir()
    elif out.exists():
        shutil.rmtree(out)
    if replaces:
        make(3, "old")
    child = os.fork()
    if child == 0:
        die_at(instant)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    states.append(state())
    ready.append(states[-1] == "new" or any(root.glob(".*.partial/manifest.json")))
    parts.append(len(list(root.glob(".*.partial/.work/*.part"))))
left = sorted(os.listdir(root))
print(json.dumps({"states": states, "parts": parts, "ready": ready, "left": left}))
"""


@pytest.mark.parametrize("resume", ["resume", "anew"])
@pytest.mark.parametrize("before", ["old", "nothing"])
def test_a_kill_at_any_instant_leaves_an_artefact_that_is_whole_or_absent(
    before: str, resume: str, tmp_path: Path
) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", KILLS, tmp_path / "root", before, resume],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=(tmp_path / "root").mkdir,
    )
    assert finished.returncode == 0, finished.stderr
    seen = json.loads(finished.stdout)
    states = seen["states"]
    assert len(states) > 40, "so many instants were tried"
    assert "in pieces" not in states
    assert states[-1] == "new"
    # Between the two renames of a replacement there is nothing for a moment; before it is the old.
    first = "old" if before == "old" else "absent"
    assert states[:20] == [first] * 20
    assert seen["left"] == ["letters"]
    if resume == "resume":  # no finished part is lost again until the artefact is all there
        steps = zip(seen["parts"], seen["parts"][1:], seen["ready"][1:], strict=False)
        assert all(after >= before or ready for before, after, ready in steps)
        assert 3 in seen["parts"]


# --- work that outlives a kill --------------------------------------------------------------------


def _interrupted(out: Path, origin: Origin = ORIGIN) -> None:
    with pytest.raises(KeyboardInterrupt):
        _fail(out, KeyboardInterrupt(), origin=origin, resume=True)


def test_work_of_an_interrupted_run_is_handed_out_again(tmp_path: Path) -> None:
    out = tmp_path / "letters"
    _interrupted(out)
    assert not out.exists()
    with create(out, ORIGIN, resume=True) as draft:
        assert (draft.work / "part").read_text() == "done"
        assert _all_below(draft.folder) == [".work", ".work/part"], "what was half-made is gone"
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest["resumed"] is True
    assert _all_below(out) == ["manifest.json"], "work is no part of the artefact"


def test_work_is_not_handed_to_another_fingerprint_nor_without_asking(tmp_path: Path) -> None:
    out = tmp_path / "letters"
    _interrupted(out)
    for origin, resume in ((OTHER, True), (ORIGIN, False)):
        with contextlib.suppress(RuntimeError), create(out, origin, resume=resume) as draft:
            assert not any(draft.work.iterdir())
            raise RuntimeError


def test_work_is_kept_until_the_last_moment(tmp_path: Path, monkeypatch) -> None:
    """A disk that fills up while the manifest is written costs no finished part."""
    out = tmp_path / "letters"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "write_json", full)
        with pytest.raises(InputError), create(out, ORIGIN, resume=True) as draft:
            (draft.work / "part").write_text("done")
    with create(out, ORIGIN, resume=True) as draft:
        assert (draft.work / "part").read_text() == "done"


def test_leftovers_are_swept_and_those_of_a_longer_name_are_not(tmp_path: Path) -> None:
    _interrupted(tmp_path / "letters", OTHER)
    _interrupted(tmp_path / "letters.v2", OTHER)
    stranger = tmp_path / ".letters.mine.partial"
    stranger.mkdir()
    _make(tmp_path / "letters")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".letters.mine.partial",
        f".letters.v2.{OTHER.fingerprint[:12]}.partial",
        "letters",
    ]


# --- two processes --------------------------------------------------------------------------------

SECOND = """
import sys
from pathlib import Path
from biomistral.artifacts import Origin, create
from biomistral.errors import InputError
try:
    with create(Path(sys.argv[1]), Origin("tokens", "letters", {"size": 3}, {"files/letters": "abc"})):
        pass
except InputError as error:
    sys.exit(str(error))
"""


def _second_process(out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SECOND, out], capture_output=True, text=True, check=False
    )


def test_a_second_process_is_refused_while_the_first_works(tmp_path: Path) -> None:
    out = tmp_path / "letters"
    with create(out, ORIGIN) as draft:
        _fill(draft)
        second = _second_process(out)
        assert second.returncode == 1
        assert "another process is making this artefact; wait for it or stop it" in second.stderr
        assert (draft.folder / "facts.json").exists(), "the refused one touched nothing"
    assert _whole(out)
    assert _second_process(out).returncode == 0


def test_a_draft_that_was_published_while_one_waited_for_it_is_not_taken(
    tmp_path: Path,
    monkeypatch,
) -> None:
    out = tmp_path / "letters"
    lock = artifacts._lock

    def late(handle: int) -> bool:
        monkeypatch.setattr(artifacts, "_lock", lock)
        next(tmp_path.glob(".letters.*")).rename(out)  # as its holder would do now
        return lock(handle)

    monkeypatch.setattr(artifacts, "_lock", late)
    with pytest.raises(InputError, match="another process"):
        _make(out)
    assert out.is_dir()


# --- places that cannot be used -------------------------------------------------------------------


def test_a_folder_of_somebody_else_is_refused_and_untouched(tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.txt").write_text("one")
    with pytest.raises(InputError, match="thesis: already exists and was not made by biomistral"):
        _make(out)
    assert _all_below(tmp_path) == ["thesis", "thesis/chapter.txt"]


def test_a_file_in_the_way_is_refused_and_an_empty_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one")
    with pytest.raises(InputError, match="file: is a file, a folder is to be made there"):
        _make(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert _whole(_make(tmp_path / "empty"))


def test_an_artefact_of_another_kind_is_refused_and_untouched(tmp_path: Path) -> None:
    out = _make(tmp_path / "letters")
    model = Origin("model", "letters", {})
    with pytest.raises(InputError, match="letters: already exists and is of the kind tokens"):
        _make(out, model)
    assert _whole(out)


def test_the_folder_one_is_in_is_refused(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "here" / "inner").mkdir(parents=True)
    for folder in ("here", "here/inner"):
        monkeypatch.chdir(tmp_path / folder)
        for out in (Path(), tmp_path / "here"):
            with pytest.raises(InputError, match="name a folder that is not there yet"):
                _make(out)
    assert _all_below(tmp_path) == ["here", "here/inner"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "letters"
    link.symlink_to(tmp_path / "disk" / "real")
    for text in "ab":  # made, then replaced
        assert _whole(_make(link, text=text))
    assert link.is_symlink()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert (tmp_path / "disk" / "real" / "inner" / "letters.txt").read_text()[0] == "b"


def test_links_that_look_like_leftovers_are_let_be(tmp_path: Path) -> None:
    for name in (".letters.0123456789ab.partial", ".letters.123.old"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    assert _whole(_make(tmp_path / "letters"))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("out", "how"), [("a/b", "is"), ("a/b/c", "lies in"), ("a", "holds"), ("link/c", "lies in")]
)
def test_an_output_is_apart_from_its_inputs(tmp_path: Path, out: str, how: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    with pytest.raises(InputError, match=rf"{out}: {how} the input 'b', which is read"):
        artifacts.check_apart(tmp_path / out, {"b": tmp_path / "a" / "b"})
    artifacts.check_apart(tmp_path / "a" / "bc", {"b": tmp_path / "a" / "b"})


def test_too_many_open_files_are_one_line(tmp_path: Path) -> None:
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE), "shard")
    with pytest.raises(InputError, match="shard: cannot be opened, too many files are open"):
        _fail(tmp_path / "letters", error)


def _places_that_cannot_be_written(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "file").write_text("one")
    yield tmp_path / "file" / "letters"
    yield Path("/sys/biomistral-test/letters")  # refuses folders even from root


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    for out in _places_that_cannot_be_written(tmp_path):
        with pytest.raises(
            InputError, match=r"cannot be used .*; choose another output folder"
        ) as caught:
            _make(out)
        assert "\n" not in str(caught.value)
    assert _all_below(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_place_that_turns_read_only_leaves_nothing(number: int, tmp_path: Path) -> None:
    error = OSError(number, os.strerror(number), "letters.txt")
    with pytest.raises(InputError, match=r"letters.txt: cannot be used"):
        _fail(tmp_path / "letters", error)
    assert _all_below(tmp_path) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="no space left on the disk; free some") as caught,
        create(tmp_path / "letters", ORIGIN),
    ):
        Path("/dev/full").write_text("a letter")  # the file that is always full
    assert "\n" not in str(caught.value)
    assert _all_below(tmp_path) == []


def test_a_full_disk_told_in_words_only_is_understood(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no space left on the disk"):
        _fail(tmp_path / "letters", ValueError("I/O error: No space left on device (os error 28)"))
    assert _all_below(tmp_path) == []


@pytest.mark.parametrize("most_bytes", [500, 1500])
def test_a_limit_met_by_a_file_or_only_by_the_manifest_leaves_nothing(
    most_bytes: int, tmp_path: Path
) -> None:
    """The letters take 1000 bytes, the manifest more than 1500: it fails at the very end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        many = Origin("tokens", "letters", {"numbers": list(range(500))})
        with pytest.raises(InputError, match="no space left on the disk"):
            _make(tmp_path / "letters", many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert _all_below(tmp_path) == []


def test_an_error_of_ours_keeps_its_face(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), create(tmp_path / "letters", ORIGIN):
        (tmp_path / "nowhere").read_text()


# --- small things ---------------------------------------------------------------------------------


def test_json_has_one_order_and_refuses_what_is_no_number(tmp_path: Path) -> None:
    artifacts.write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "a": "é",\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(tmp_path / "a.json", float("nan"))


def test_size_is_the_sum_of_the_files(tmp_path: Path) -> None:
    out = _make(tmp_path / "letters")
    assert artifacts.size_bytes(out) == 1002 + (out / "manifest.json").stat().st_size
