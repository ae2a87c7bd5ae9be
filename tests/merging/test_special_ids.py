"""Configs after a change of the vocabulary: ids name the tokens they named before."""

from __future__ import annotations

import pytest

from biomistral.merging.special_ids import id_changes, vocabulary_changes

SAME = {"vocab_size": 10, "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 4}


def moved_by_three(index):
    return index + 3 if index != 7 else None


def test_nothing_changes_where_the_tokenizer_stays():
    assert vocabulary_changes(SAME, SAME, lambda index: index, 10) == {}


def test_the_size_follows():
    assert vocabulary_changes(SAME, SAME, lambda index: index, 12) == {"vocab_size": 12}


def test_ids_are_those_of_the_model_whose_tokenizer_is_taken():
    source = {"bos_token_id": 0, "eos_token_id": [3, 4], "pad_token_id": 5}
    assert vocabulary_changes(SAME, source, moved_by_three, 10) == {
        "bos_token_id": 0,
        "eos_token_id": [3, 4],
        "pad_token_id": 5,
    }


@pytest.mark.parametrize(
    ("old", "new"), [(1, 4), ([1, 2], [4, 5]), ([1, 7], [4]), (7, None), ([7], None), (None, None)]
)
def test_ids_that_the_source_does_not_state_move_with_their_tokens(old, new):
    changes = id_changes({"pad_token_id": old}, {}, moved_by_three, 10)
    assert changes == ({} if new == old else {"pad_token_id": new})


@pytest.mark.parametrize(("old", "new"), [(9, 9), (10, None), ([2, 10], [2]), ([10], None)])
def test_an_id_without_a_row_is_dropped(old, new):
    config = {"pad_token_id": old}
    assert id_changes(config, config, lambda index: index, 10).get("pad_token_id", old) == new


def test_the_text_part_of_a_config_is_changed_in_its_place():
    config = {"text_config": {"vocab_size": 10, "eos_token_id": 2, "hidden_size": 4}}
    assert vocabulary_changes(config, {}, moved_by_three, 16) == {
        "text_config": {"vocab_size": 16, "eos_token_id": 5, "hidden_size": 4}
    }
