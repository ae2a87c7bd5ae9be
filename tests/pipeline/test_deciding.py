from __future__ import annotations

from biomistral.pipeline import deciding
from biomistral.recipe.settings import CorpusSettings, EvaluateSettings


def test_a_tokenizer_depends_on_texts_and_not_on_rows():
    one = CorpusSettings(texts=["a.txt"], sequence_length=64)
    assert deciding.of_texts(one) == deciding.of_texts(
        one.model_copy(update={"sequence_length": 9})
    )
    for change in (
        {"minimum_words": 3},
        {"text_column": "t"},
        {"exclude_overlap_with": "benchmark"},
    ):
        assert deciding.of_texts(one) != deciding.of_texts(one.model_copy(update=change))


def test_an_option_that_is_not_used_leaves_older_corpora_as_they_are():
    assert "exclude_overlap_with" not in deciding.of_corpus(CorpusSettings(texts=["a.txt"]))


def test_data_may_be_moved():
    here, there = (CorpusSettings(texts=[f"{place}/a.txt"]) for place in ("here", "there"))
    assert deciding.of_corpus(here) == deciding.of_corpus(there)
    assert deciding.of_texts(here) == deciding.of_texts(there)


def test_which_questions_are_asked_is_no_setting_of_the_answers():
    fields = set(EvaluateSettings.model_fields)
    assert fields > deciding.NOT_OF_ANSWERS
    # A new setting must be thought about: does a change of it make answers of another kind?
    assert fields - deciding.NOT_OF_ANSWERS == {
        *("batch_tokens", "engine", "example_language", "examples", "long_prompts"),
        *("permutations", "precision", "prompt_language", "scoring", "seeds", "shots"),
        *("template", "validation"),
    }
