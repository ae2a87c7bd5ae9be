from __future__ import annotations

import json

import pytest

TASK = "name: herbs\ntitle: Herbs\nsource: invented\nlicence: CC0\n"
FRENCH = {
    "Which tea do the people of the valley drink?": "Quel thé boivent les gens de la vallée ?",
    "Bark": "Écorce",
    "Water": "Eau",
}


@pytest.fixture
def data(tmp_path):
    rows = [
        {"id": f"q{i}", "stem": next(iter(FRENCH)), "choices": ["Bark", "Water"], "gold": i % 2}
        for i in range(4)
    ]
    folder = tmp_path / "data" / "herbs"
    (folder / "en").mkdir(parents=True)
    (folder / "en" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.yaml").write_text(TASK)
    return tmp_path / "data"


@pytest.fixture
def server(serve):
    def answer(path, body):
        shown = json.loads(body["messages"][1]["content"])
        options = {key: FRENCH[text] for key, text in shown["options"].items()}
        text = json.dumps({"question": FRENCH[shown["question"]], "options": options})
        return 200, {}, {"choices": [{"message": {"content": text}}]}

    return serve(answer)


def translate(command, data, server, out, *words):
    return command(
        "translate",
        data,
        "--to",
        "fr",
        "--out",
        out,
        "--endpoint",
        server.url,
        "--model",
        "m",
        *words,
    )


def test_questions_are_translated_reviewed_measured_and_used(command, data, server, tmp_path):
    out = tmp_path / "fr"
    finished = translate(command, data, server, out)
    assert finished.status == 0, finished.out
    assert "herbs fr: 4 translated, 0 failed" in finished.out
    assert "1 requests" in finished.err  # four questions with one text are asked once

    assert command("translate", "sheet", out, tmp_path / "sheet.csv").status == 0
    reviewed = command("translate", "apply", out, tmp_path / "sheet.csv", tmp_path / "reviewed")
    assert reviewed.status == 0, reviewed.err
    drawn = command("translate", "quality", out, "--out", tmp_path / "quality")
    assert drawn.status == 0, drawn.err
    assert "Quel thé" in (tmp_path / "quality.html").read_text(encoding="utf-8")

    words = ("--data", data, "--language", "fr", "--shots", "0", "--translations", out)
    shown = command("evaluate", "show", "herbs", *words)
    assert "Quel thé boivent" in shown.out


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ([], "name who translates"),
        (["--endpoint", "http://localhost/v1"], "--endpoint needs --model"),
        (["--local", "a/b", "--to", "en"], "in en already"),
        (["--local", "a/b", "--to", "xx"], "languages"),
        (["--local", "a/b", "--to", "fr,xx"], "languages.1: 'xx' is not one of en, fr"),
        (["--local", "a/b", "--set", "attempts"], "must be of the form"),
        (["--local", "a/b", "--set", "atempts=2"], 'atempts: unknown key; did you mean "attempts"'),
        (["--local", "a/b", "--set", "translator.beams=0"], "equal to 1, not 0"),
        (["--local", "a/b", "--model", "m"], "--model m is for --endpoint"),
        (["--endpoint", "http://a/v1", "--model", "m", "--allow-pickle"], "is for --local"),
        (["--endpoint", "nowhere", "--model", "m"], "translator.endpoint: 'nowhere' is no address"),
        (
            ["--endpoint", "http://a/v1", "--model", "m", "--set", "translator.concurency=2"],
            'translate: translator.concurency: unknown key; did you mean "concurrency"?\n',
        ),
        (["--local", "a/b", "--tasks", "herb"], "did you mean"),
    ],
)
def test_what_cannot_be_meant_is_one_line(command, data, tmp_path, words, wrong):
    finished = command("translate", data, "--out", tmp_path / "fr", *words)
    assert finished.status == 2
    assert wrong in finished.err
    assert not (tmp_path / "fr").exists()
