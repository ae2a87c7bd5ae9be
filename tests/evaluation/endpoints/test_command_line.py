"""``biomistral evaluate`` on a served model: the estimate first, then the answers, none twice."""

from __future__ import annotations

import io

import pytest

from biomistral.cli import evaluating
from biomistral.errors import InputError, RecipeError
from biomistral.recipe import load_recipe


@pytest.fixture
def evaluate(serve, completions, miniature_world, tmp_path):
    """Return a function that evaluates a served model, and its server."""
    server = serve(completions)

    def run(*, seeds="1", yes=True, api=()):
        asked = evaluating.Asked(
            str(miniature_world / "benchmark"), "gene", "en", 1, seeds, "letter", 4, None
        )
        way = evaluating.Way(yes=yes, api=["retries=1", *api])
        evaluating.run([f"gpt={server.url}#served"], tmp_path / "out", asked, way, changes=[])

    return run, server


def test_a_served_model_is_measured_and_asked_nothing_twice(evaluate, capsys, tmp_path):
    run, server = evaluate
    run(api=["input_price=1", "output_price=1"])
    said = capsys.readouterr().out
    assert said.startswith("gpt: ")
    assert "requests, about" in said.splitlines()[0]
    assert "cost about 0.00" in said.splitlines()[0]
    assert "random choice" in said
    first = len(server.seen)
    run(yes=False)  # nothing is left to ask, so nobody is asked
    assert "gpt: 0 requests" in capsys.readouterr().out
    assert len(server.seen) == first
    run(seeds="1,2")
    told = int(capsys.readouterr().out.split()[1])
    assert len(server.seen) == first + told
    assert told >= 4
    assert len(set(server.prompts)) == len(server.prompts)
    assert load_recipe(tmp_path / "out/recipe.yaml").models["gpt"].model == "served"


def test_where_nobody_can_be_asked_nothing_is_sent_without_yes(evaluate, monkeypatch, tmp_path):
    run, server = evaluate
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(InputError, match=r"[0-9]+ requests are to be sent.*say --yes to send them"):
        run(yes=False)
    assert not server.seen
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("answer", "is_sent"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_at_a_terminal_is_asked(evaluate, monkeypatch, capsys, answer, is_sent):
    run, server = evaluate
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    run(yes=False)
    assert bool(server.seen) == is_sent
    assert "Send them? [y/N]" in capsys.readouterr().out


def test_a_field_that_is_not_there_is_named(evaluate):
    with pytest.raises(RecipeError, match="input_prise"):
        evaluate[0](api=["input_prise=1"])
