"""The miniature benchmark: ten medical tasks and a general one, as questions in eight languages.

Eight tasks ask for one fact of a disease, one does so with five options instead of four, and one
gives a trial report to be read and answered by yes, no or maybe (as PubMedQA does). The general
task asks about towns. No wording of a question occurs in any text of the world.
Knows nothing about files.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from biomistral.miniature.texts import answer_names, phrases, relation_phrases, trial_report
from biomistral.miniature.world import GENERAL, MEDICAL, OUTCOMES, Entity, World
from biomistral.records import Question, Split

FIVE_OPTIONS = "treatment_5_options"
TRIAL = "trial"
TOWNS = "towns"
NUM_TRIALS = {"train": 9, "validation": 3, "test": 24}


def task_titles() -> dict[str, tuple[str, str]]:
    """Task name -> (title, group), in the order of the tables."""
    table = phrases()
    medical = {relation: (table["medical"][relation]["title"], "medical") for relation in MEDICAL}
    return {
        **medical,
        FIVE_OPTIONS: ("Treatment, 5 options", "medical"),
        TRIAL: (table["trial"]["title"], "medical"),
        TOWNS: ("Towns", "general"),
    }


def questions(world: World, task: str, language: str) -> list[Question]:
    """All questions of one task in one language, of all splits, in a fixed order."""
    if task == TRIAL:
        return list(_trial_questions(world, language))
    if task == TOWNS:
        return list(_fact_questions(world, task, language, GENERAL, world.towns, num_choices=4))
    relation, num_choices = ("treatment", 5) if task == FIVE_OPTIONS else (task, 4)
    return list(
        _fact_questions(world, task, language, (relation,), world.diseases, num_choices=num_choices)
    )


def _fact_questions(
    world: World,
    task: str,
    language: str,
    relations: Sequence[str],
    entities: Sequence[Entity],
    *,
    num_choices: int,
) -> Iterator[Question]:
    """Ask for facts; choices and their order are the same in every language."""
    for relation in relations:
        names = answer_names(world, relation, language)
        for wording_index, wording in enumerate(relation_phrases(relation, language)["test"]):
            for index, entity in enumerate(entities):
                identifier = f"{relation}-{index:02}-{wording_index}"
                rng = random.Random(f"{world.seed} {task} {identifier}")
                gold = entity.facts[relation]
                others = [other for other in range(len(names)) if other != gold]
                chosen = [*rng.sample(others, num_choices - 1), gold]
                rng.shuffle(chosen)
                yield Question(
                    id=identifier,
                    task=task,
                    language=language,
                    split=_split(index, len(entities)),
                    stem=wording.format(d=entity.name),
                    choices=tuple(names[choice] for choice in chosen),
                    gold=chosen.index(gold),
                )


def _split(index: int, total: int) -> Split:
    """Split by entity: no fact that is asked in one split is asked in another."""
    if index < total // 5:
        return "train"
    return "validation" if index < total // 5 + total // 10 else "test"


def _trial_questions(world: World, language: str) -> Iterator[Question]:
    answers = tuple(phrases()["trial"][language]["answers"][outcome] for outcome in OUTCOMES)
    number = 0
    split: Split
    for split in ("train", "validation", "test"):
        for _ in range(NUM_TRIALS[split]):
            rng = random.Random(f"{world.seed} trial {number}")
            gold = number % len(OUTCOMES)
            disease, drug = rng.choice(world.diseases).name, rng.choice(world.names["treatment"])
            report, stem, _ = trial_report(
                disease, drug, OUTCOMES[gold], language, rng, style="test"
            )
            yield Question(
                id=f"trial-{number:02}",
                task=TRIAL,
                language=language,
                split=split,
                stem=stem,
                choices=answers,
                gold=gold,
                context=report,
            )
            number += 1
