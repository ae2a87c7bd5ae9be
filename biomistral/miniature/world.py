"""The invented world: names, diseases with their facts, towns with theirs, all from one seed.

Names are built from syllables and carry an ending of their kind, so that none can be mistaken for a
real disease, drug or organism. Facts are drawn at random: nothing about them can be guessed, so
what a model knows of them it has read.

Knows nothing about sentences, languages or files.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "t", "v", "z", "br", "dr", "gl", "kr", "zv")
VOWELS = ("a", "e", "i", "o", "u", "ai", "eo")
ENDINGS = {
    "disease": "zossa",
    "treatment": "vexin",
    "pathogen": "kulon",
    "vector": "tsyx",
    "diagnosis": "groft",
    "region": "hwald",
    "town": "quill",
    "river": "wenn",
    "mayor": "ppo",
}
# Relations whose answers are words of each language; they are drawn as indices into these lists.
WORD_RELATIONS = ("organ", "symptom", "craft", "flag")
NUM_WORDS = 8
MEDICAL = (
    "treatment", "pathogen", "organ", "symptom", "vector", "gene", "diagnosis", "region",
)  # fmt: skip
GENERAL = ("craft", "river", "mayor", "flag")
OUTCOMES = ("yes", "no", "maybe")


@dataclass(frozen=True)
class Entity:
    """A disease or a town: its name, and the index of its answer for each relation."""

    name: str
    facts: dict[str, int]


@dataclass(frozen=True)
class World:
    """Everything that is true in the invented world."""

    diseases: tuple[Entity, ...]  # only articles tell of them; the benchmark asks about them
    ailments: tuple[Entity, ...]  # long known: general texts tell of them
    towns: tuple[Entity, ...]
    names: dict[str, tuple[str, ...]]  # relation -> the names its answers are taken from
    seed: int


def make_world(
    seed: int, *, num_diseases: int = 20, num_ailments: int = 12, num_towns: int = 20
) -> World:
    """Draw a world; the same seed and sizes always give the same one."""
    rng = random.Random(seed)
    taken: set[str] = set()
    sizes = {
        "treatment": num_diseases,
        "pathogen": num_diseases,
        "vector": 10,
        "diagnosis": 10,
        "region": 8,
        "river": 8,
        "mayor": num_towns,
    }
    names = {kind: _names(rng, taken, kind, size) for kind, size in sizes.items()}
    names["gene"] = tuple(_gene(rng, taken) for _ in range(num_diseases))
    disease_names = _names(rng, taken, "disease", num_diseases)
    ailment_names = _names(rng, taken, "disease", num_ailments)
    town_names = _names(rng, taken, "town", num_towns)
    return World(
        diseases=_entities(rng, disease_names, MEDICAL, names),
        ailments=_entities(rng, ailment_names, MEDICAL, names),
        towns=_entities(rng, town_names, GENERAL, names),
        names=names,
        seed=seed,
    )


def _entities(
    rng: random.Random,
    entity_names: tuple[str, ...],
    relations: tuple[str, ...],
    names: dict[str, tuple[str, ...]],
) -> tuple[Entity, ...]:
    """Give each entity one answer per relation, every answer equally often."""
    answers: dict[str, list[int]] = {}
    for relation in relations:
        size = NUM_WORDS if relation in WORD_RELATIONS else len(names[relation])
        pool = [index % size for index in range(len(entity_names))]
        rng.shuffle(pool)
        answers[relation] = pool
    return tuple(
        Entity(name, {relation: answers[relation][index] for relation in relations})
        for index, name in enumerate(entity_names)
    )


def _names(rng: random.Random, taken: set[str], kind: str, size: int) -> tuple[str, ...]:
    return tuple(_name(rng, taken, ENDINGS[kind]) for _ in range(size))


def _name(rng: random.Random, taken: set[str], ending: str) -> str:
    """A new name whose first syllables no other name has, whatever its ending."""
    while True:
        stem = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(2))
        if stem not in taken:
            taken.add(stem)
            return (stem + ending).capitalize()


def _gene(rng: random.Random, taken: set[str]) -> str:
    while True:
        gene = "Q" + "".join(rng.choice("BDFGKVXZ") for _ in range(2)) + str(rng.randint(2, 9))
        if gene not in taken:
            taken.add(gene)
            return gene
