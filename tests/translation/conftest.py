from __future__ import annotations

import json
from typing import Any

import pytest

from biomistral.recipe.translating import TranslateSettings
from biomistral.records import Question, Task

FRENCH = {
    "Which of these lowers a fever of 39 °C?": "Lequel de ceux-ci abaisse une fièvre de 39 °C ?",
    "Which tea do the people of the valley drink?": "Quel thé boivent les gens de la vallée ?",
    "Bark": "Écorce",
    "Water": "Eau",
    "Rest": "Repos",
    "A walk along the river.": "Une promenade le long de la rivière.",
}


@pytest.fixture
def task() -> Task:
    return Task("valley", "Valley medicine", "medical", "own", "CC0")


@pytest.fixture
def questions() -> list[Question]:
    def of(number: int, stem: str, split: Any = "test", context: str = "") -> Question:
        return Question(
            f"q{number}", "valley", "en", split, stem, ("Bark", "Water", "Rest"), 1, context
        )

    fever, tea = list(FRENCH)[:2]
    walk = "A walk along the river."
    return [of(1, fever), of(2, tea, context=walk), of(3, tea, "train")]


def translated(text: str) -> str:
    """As a good translator does; of a text of several lines, line by line."""
    return "\n".join(FRENCH.get(line, line) for line in text.split("\n"))


@pytest.fixture
def interpreter(serve):
    """Return a function: faults by number of request -> a server that translates into French."""

    def start(spoil=lambda answer, body: answer):
        def answer(path, body):
            shown = json.loads(body["messages"][1]["content"])
            options = {key: FRENCH[text] for key, text in shown["options"].items()}
            good = {"question": FRENCH[shown["question"]], "options": options}
            if "context" in shown:
                good["context"] = FRENCH[shown["context"]]
            text = spoil(good, body)
            text = text if isinstance(text, str) else f"```json\n{json.dumps(text)}\n```"
            usage = {"prompt_tokens": 100, "completion_tokens": 50}
            message = {"role": "assistant", "content": text}
            return 200, {}, {"choices": [{"message": message}], "usage": usage}

        return serve(answer)

    return start


@pytest.fixture
def settings_for():
    def of(server, **changes) -> TranslateSettings:
        given = {"languages": ["fr"], "translator": server.settings(), **changes}
        return TranslateSettings(**given)

    return of
