from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from biomistral.miniature.world import (
    ENDINGS,
    GENERAL,
    MEDICAL,
    NUM_WORDS,
    WORD_RELATIONS,
    World,
    make_world,
)


def _names(world: World) -> list[str]:
    entities = [*world.diseases, *world.ailments, *world.towns]
    return [*(e.name for e in entities), *(name for kind in world.names.values() for name in kind)]


def test_a_seed_makes_a_world_and_another_seed_another() -> None:
    assert make_world(7) == make_world(7)
    assert make_world(7) != make_world(8)


def test_no_name_is_used_twice(invented: World) -> None:
    assert max(Counter(_names(invented)).values()) == 1


def test_a_name_ends_as_its_kind_does(invented: World) -> None:
    for kind, ending in ENDINGS.items():
        groups = {"disease": invented.diseases, "town": invented.towns}
        names = [e.name for e in groups[kind]] if kind in groups else invented.names[kind]
        assert all(name.endswith(ending) for name in names), kind


def test_no_name_begins_as_another_does(invented: World) -> None:
    """What follows a beginning is its kind alone, so a beginning gives no other fact away."""
    endings = "|".join(ENDINGS.values())
    stems = [re.sub(f"({endings})$", "", name) for name in _names(invented)]
    assert len(set(stems)) == len(stems)


@pytest.mark.parametrize("group", ["diseases", "ailments", "towns"])
def test_every_entity_has_one_answer_to_every_question(invented: World, group: str) -> None:
    for entity in getattr(invented, group):
        assert tuple(entity.facts) == (GENERAL if group == "towns" else MEDICAL)
        for relation, index in entity.facts.items():
            size = NUM_WORDS if relation in WORD_RELATIONS else len(invented.names[relation])
            assert 0 <= index < size


@pytest.mark.parametrize("group", ["diseases", "ailments", "towns"])
def test_no_answer_is_more_frequent_than_another(invented: World, group: str) -> None:
    """So nothing can be guessed from how often an answer is right."""
    entities = getattr(invented, group)
    for relation in entities[0].facts:
        counts = Counter(entity.facts[relation] for entity in entities).values()
        assert max(counts) - min(counts) <= 1, relation


def test_facts_of_one_kind_do_not_follow_from_another(invented: World) -> None:
    """The answers to two questions are shuffled apart: no two relations go through the same order."""
    orders = [tuple(e.facts[relation] for e in invented.diseases) for relation in MEDICAL]
    assert len(set(orders)) == len(orders)


def test_no_name_occurs_in_real_articles(invented: World, real_data: Path) -> None:
    words: set[str] = set()
    for path in sorted((real_data / "jats").rglob("*.xml")):
        words.update(re.findall(r"\w+", path.read_text("utf-8", errors="replace").lower()))
    assert len(words) > 10_000
    assert not words & {name.lower() for name in _names(invented)}
