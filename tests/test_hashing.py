from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from biomistral.hashing import canonical, digest_of, file_digest


def test_a_value_has_one_form_whatever_the_order_of_its_keys() -> None:
    assert canonical({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'.encode()
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1})
    assert digest_of([1]) == hashlib.sha256(b"[1]").hexdigest()


def test_what_is_no_number_has_no_form() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(float("nan"))


def test_a_file_counts_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"abc" * 1000).hexdigest()
