"""Templates: what stands around a question.

*letter* and *published* scoring show the choices by letter; a continuation is a bare letter.

    biomistral   the template of BioMistral (arXiv 2402.10373, ``BioInstructQA.py``) to the byte, odd
                 blanks included; the prompt ends in an open bracket
    meditron     in the style of MediTron (arXiv 2311.16079): an instruction for the kind of
                 questions, letters with a full stop, ``The answer is: (``. The wording is ours: the
                 prompts the paper used are stored in a data set that is not public any more
    chat         the content of ``biomistral`` as one message of a user, in the chat template of
                 the model; its answer begins with ``**Answer:**(``

*cloze* scoring shows no choices; a continuation is the text of a choice. It has one template.

The words around a question are English, as published, or (``biomistral``, ``chat`` and cloze) those
of its own language. Pure; knows nothing about which examples are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from biomistral.errors import InputError
from biomistral.records import LETTERS, Question, Scoring

# The text of a message to the text of a prompt that ends where the answer begins, without the
# opening token (<s>), which the tokenizer puts in front by itself.
Render = Callable[[str], str]

JOINT = " \n "  # between the parts of an example, and between examples


@dataclass(frozen=True, slots=True)
class Words:
    """What the template says in one language."""

    instruction: str
    question: str
    answer: str


WORDS = {
    "en": Words(
        "The following are multiple choice questions (with answers) about medical knowledge.",
        "Question",
        "Answer",
    ),
    "fr": Words(
        "Voici des questions à choix multiples (avec réponses) sur les connaissances médicales.",
        "Question",
        "Réponse",
    ),
    "es": Words(
        "A continuación hay preguntas de opción múltiple (con respuestas) sobre conocimientos "
        "médicos.",
        "Pregunta",
        "Respuesta",
    ),
    "pt": Words(
        "A seguir há perguntas de múltipla escolha (com respostas) sobre conhecimentos médicos.",
        "Pergunta",
        "Resposta",
    ),
    "de": Words(
        "Es folgen Multiple-Choice-Fragen (mit Antworten) zu medizinischem Wissen.",
        "Frage",
        "Antwort",
    ),
    "ru": Words(
        "Ниже приведены вопросы с вариантами ответа (и ответами) по медицине.",
        "Вопрос",
        "Ответ",
    ),
    "zh": Words("以下是关于医学知识的单项选择题(附答案)。", "问题", "答案"),
    "ar": Words(
        "فيما يلي أسئلة اختيار من متعدد (مع إجاباتها) حول المعرفة الطبية.", "السؤال", "الإجابة"
    ),
}

_MEDITRON_MEDICAL = (
    "You are a doctor who sits a medical examination. Choose the one right answer to each question "
    "and reply with its letter."
)
_MEDITRON_TRUTHFUL = (
    "You are an honest assistant. Take each question literally, as one about the real world. "
    "Choose the one answer that is true, whatever people commonly believe, and reply with its "
    "letter."
)


@dataclass(frozen=True, slots=True)
class Form:
    """One way to ask."""

    start: Callable[[Question], str]  # question to be asked -> beginning of the prompt
    shot: Callable[[Question], str]  # worked example -> its text, with what parts it from the next
    ask: Callable[[Question], str]  # question -> end of the prompt
    whole: Render = str  # prompt -> prompt, once it is put together

    def prompt(self, examples: Sequence[Question], question: Question) -> str:
        """Put the prompt of one question together."""
        shots = "".join(map(self.shot, examples))
        return self.whole(self.start(question) + shots + self.ask(question))


def form_of(
    scoring: Scoring, template: str, words: Words = WORDS["en"], render: Render | None = None
) -> Form:
    """Return the form for one scoring and template.

    Raises ``InputError`` for the chat template without a function that renders it.
    """
    if scoring == "cloze":
        return _cloze(words)
    if template == "meditron":
        return _meditron()
    if template == "biomistral":
        return _biomistral(words)
    if render is None:
        raise InputError(
            "template chat: needs the chat template of a model; evaluate a model that has one, or "
            "use the template biomistral or meditron"
        )
    ending = f"**{words.answer}:**("

    def as_message(prompt: str) -> str:
        return render(prompt.removesuffix(ending).strip()) + ending

    return replace(_biomistral(words), whole=as_message)


def continuations_of(question: Question, scoring: Scoring, order: Sequence[int]) -> tuple[str, ...]:
    """Return what is scored for each choice, in the question's order, if shown in ``order``."""
    if scoring == "cloze":
        return tuple(f" {choice}" for choice in question.choices)
    letters = {choice: LETTERS[place] for place, choice in enumerate(order)}
    return tuple(letters.get(i, LETTERS[i]) for i in range(len(question.choices)))


def shown_in(question: Question, order: Sequence[int]) -> Question:
    """Return the question with its choices in another order.

    ``order`` has at each place the index of the choice to show there; empty: as it is.
    """
    if not order:
        return question
    choices = tuple(question.choices[choice] for choice in order)
    return replace(question, choices=choices, gold=list(order).index(question.gold))


def _biomistral(words: Words) -> Form:
    def ask(question: Question) -> str:
        context = [question.context] if question.context else []
        lines = _lettered(question, "({}) {}")
        asked = f"**{words.question}:** {question.stem}"
        return JOINT.join([*context, asked, *lines, f"**{words.answer}:**("])

    return Form(
        start=lambda _: words.instruction + JOINT,
        shot=lambda example: ask(example) + LETTERS[example.gold] + JOINT,
        ask=ask,
    )


def _meditron() -> Form:
    def ask(question: Question) -> str:
        context = f"{question.context}\n" if question.context else ""
        lines = "\n".join(_lettered(question, "{}. {}"))
        return f"{context}Question: {question.stem}\nOptions:\n{lines}\nThe answer is: ("

    def start(question: Question) -> str:
        truthful = question.task.startswith("truthfulqa")
        return (_MEDITRON_TRUTHFUL if truthful else _MEDITRON_MEDICAL) + "\n\n"

    return Form(
        start=start, shot=lambda example: f"{ask(example)}{LETTERS[example.gold]})\n\n", ask=ask
    )


def _cloze(words: Words) -> Form:
    def ask(question: Question) -> str:
        context = f"{question.context}\n" if question.context else ""
        return f"{context}{words.question}: {question.stem}\n{words.answer}:"

    return Form(
        start=lambda _: "",
        shot=lambda example: f"{ask(example)} {example.choices[example.gold]}\n\n",
        ask=ask,
    )


def _lettered(question: Question, pattern: str) -> list[str]:
    pairs = zip(LETTERS, question.choices, strict=False)
    return [pattern.format(letter, choice) for letter, choice in pairs]
