"""The laws of DESIGN.md that no linter holds: floors, light doors, mirrored tests, small files."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "biomistral"

GROUND, PLUMBING, ROOM, STAIRS, DOOR = range(5)
FLOORS = {
    **dict.fromkeys(
        ("errors", "disk", "languages", "records", "artifacts", "versions", "hashing"), GROUND
    ),
    **dict.fromkeys(("recipe", "advisory", "progress", "ngrams", "workers"), GROUND),
    "models": PLUMBING,
    **dict.fromkeys(("corpus", "training", "merging", "quantization"), ROOM),
    **dict.fromkeys(("benchmark", "translation", "evaluation", "reporting"), ROOM),
    "miniature": ROOM,
    "pipeline": STAIRS,
    **dict.fromkeys(("cli", "serving"), DOOR),
}
ROOMS = sorted(
    name for name, floor in FLOORS.items() if floor == ROOM and (PACKAGE / name).is_dir()
)
HEAVY = ("torch", "transformers", "datasets", "matplotlib")
MAX_LINES = 400


def _modules() -> dict[str, Path]:
    """Dotted name of every module below the package, and its file."""
    files = {path.relative_to(REPOSITORY).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in files.items()}


MODULES = _modules()


def _imports(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and name of every import of this package in a source, those in functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inside = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else base for name in inside]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "biomistral")


def _top(module: str) -> str:
    """First name below the package, or an empty text for the package itself."""
    return [*module.split("."), ""][1]


def _wrong_way(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Each import that goes up or across, as a sentence."""
    wrong = []
    for line, imported in _imports(source, module, is_package=is_package):
        own, other = _top(module), _top(imported)
        if not other or own == other:
            continue
        if FLOORS[other] > FLOORS[own]:
            rule = f"imports go down only (floor {FLOORS[own]} -> {FLOORS[other]})"
        elif FLOORS[own] == FLOORS[other] == ROOM:
            rule = "rooms never import rooms"
        else:
            continue
        wrong.append(f"{module}, line {line}: imports {imported}; rule 1: {rule}")
    return wrong


def test_every_module_has_a_floor() -> None:
    unknown = sorted({_top(module) for module in MODULES} - {"", "__main__", *FLOORS})
    assert not unknown, f"{unknown}: on no floor; rule 1: say in DESIGN.md and in FLOORS which"


def test_imports_go_down_only_and_rooms_never_import_rooms() -> None:
    wrong = [
        sentence
        for module, path in MODULES.items()
        if _top(module) in FLOORS
        for sentence in _wrong_way(
            path.read_text("utf-8"), module, is_package=path.name == "__init__.py"
        )
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        ("biomistral.merging.x", "def f():\n    from biomistral.corpus import y", "rooms never"),
        ("biomistral.models.x", "import biomistral.training.z", "down only"),
        ("biomistral.recipe.x", "from biomistral import models", "down only"),
        ("biomistral.merging.x", "from ..evaluation import metrics", "rooms never"),
        ("biomistral.pipeline.x", "if TYPE_CHECKING:\n    from biomistral.cli import app", "down"),
    ],
)
def test_a_wrong_import_is_seen_wherever_it_stands(module: str, source: str, rule: str) -> None:
    sentences = _wrong_way(source, module)
    assert len(sentences) == 1
    assert module in sentences[0]
    assert rule in sentences[0]


def test_no_modules_import_each_other_in_a_circle() -> None:
    uses = {
        module: {
            name
            for _, name in _imports(
                path.read_text("utf-8"), module, is_package=path.name == "__init__.py"
            )
            if name != module
        }
        for module, path in MODULES.items()
    }
    while free := [module for module, used in uses.items() if not used & uses.keys()]:
        for module in free:
            del uses[module]
    knots = {module: sorted(used & uses.keys()) for module, used in uses.items()}
    assert not knots, f"modules that import each other in a circle: {knots}"


def _loaded_after(code: str) -> dict[str, list[str]]:
    """Run code in a new process; it fills ``seen`` with what is loaded after each of its stages."""
    program = (
        "import io, json, sys, contextlib\n"
        "seen = {}\n"
        f"def note(stage): seen[stage] = [m for m in {HEAVY!r} if m in sys.modules]\n"
        f"{code}\n"
        "print(json.dumps(seen))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert finished.returncode == 0, finished.stderr
    seen: dict[str, list[str]] = json.loads(finished.stdout.splitlines()[-1])
    return seen


def test_rooms_are_light_to_import() -> None:
    names = ["biomistral", "biomistral.pipeline", *(f"biomistral.{room}" for room in ROOMS)]
    seen = _loaded_after("\n".join(f"import {name}; note({name!r})" for name in names))
    for name, heavy in seen.items():
        assert not heavy, f"import {name}: loads {heavy}; rule 3: doors and rooms are light"


def test_the_command_line_and_its_help_are_light() -> None:
    seen = _loaded_after(
        "import biomistral.cli; note('import biomistral.cli')\n"
        "for words in (['--help'], ['run', '--help'], ['recipe', 'schema']):\n"
        "    sys.argv = ['biomistral', *words]\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        biomistral.cli.main()\n"
        "    note('biomistral ' + ' '.join(words))"
    )
    assert len(seen) == 4
    for stage, heavy in seen.items():
        assert not heavy, f"{stage}: loads {heavy}; rule 3: the command line answers at once"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if MODULES[m].stem[:2] != "__"))
def test_every_module_has_a_test_at_the_mirrored_path(module: str) -> None:
    path = MODULES[module].relative_to(PACKAGE)
    mirrored = REPOSITORY / "tests" / path.parent / f"test_{path.name}"
    assert mirrored.is_file(), f"{module}: rule 4 wants a test at {mirrored}"


def test_no_module_is_long() -> None:
    lengths = {m: len(path.read_text("utf-8").splitlines()) for m, path in MODULES.items()}
    long = {module: length for module, length in lengths.items() if length > MAX_LINES}
    assert not long, f"longer than {MAX_LINES} lines, so wants to be two modules: {long}"
