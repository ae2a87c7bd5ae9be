"""Strangers' XML: a tree, or one reason why not; hostile files are in ``test_jats``."""

from __future__ import annotations

import pytest

from biomistral.corpus.files import UnreadableError
from biomistral.corpus.parsing import is_faultless, parse


def test_the_namespace_of_the_article_is_taken_off_and_no_other() -> None:
    data = b'<article xmlns="urn:jats" xmlns:m="urn:m"><body><m:p/></body></article>'
    assert [element.tag for element in parse(data).iter()] == ["article", "body", "{urn:m}p"]


def test_what_is_no_article_is_refused_by_its_name() -> None:
    with pytest.raises(UnreadableError, match="the outermost element is <html>"):
        parse(b"<html/>")


@pytest.mark.parametrize(
    ("data", "is_good"),
    [
        (b"<article><body/></article>", True),
        (b"<article><body></article>", False),
        (b"<article><p>&bark;</p></article>", False),
        (b"<article><a:p/></article>", False),  # an error, though the file is well-formed
        (b"<article a='1' a='2'/>", False),
        (b"\xff\xfe<", False),
        (b"", False),
    ],
)
def test_the_parser_has_nothing_to_say_of_a_good_file_only(data: bytes, is_good: bool) -> None:
    assert is_faultless(data) == is_good
