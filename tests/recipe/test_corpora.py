from __future__ import annotations

import pytest
from pydantic import ValidationError

from biomistral.recipe.corpora import CorpusSettings


def test_a_corpus_names_a_source_and_one_pattern_needs_no_list() -> None:
    assert CorpusSettings.model_validate({"texts": "a.txt"}).texts == ["a.txt"]
    with pytest.raises(ValidationError, match="names no source"):
        CorpusSettings.model_validate({"name": "c"})


def test_a_licence_against_commerce_never_enters_by_default() -> None:
    licences = CorpusSettings.model_validate({"texts": "a.txt"}).licences
    assert not [licence for licence in licences if "NC" in licence]
