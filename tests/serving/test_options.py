from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.errors import InputError
from biomistral.serving.options import ServeOptions, check_backend, is_local

KEY = "a-key-of-some-length"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_this_machine_needs_no_key(host) -> None:
    assert is_local(host)
    assert ServeOptions(host=host).api_key is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "10.0.0.1"])
def test_elsewhere_a_key_is_needed(host) -> None:
    with pytest.raises(InputError, match="there is no key; add --api-key KEY"):
        ServeOptions(host=host)
    assert ServeOptions(host=host, api_key=KEY).api_key == KEY


@pytest.mark.parametrize(
    "key", ["", "short", "with a blank in it", "schlüssel-lang", "tab\tin-it-12"]
)
def test_a_key_that_cannot_be_sent_or_is_guessed_is_refused(key) -> None:
    with pytest.raises(InputError, match="openssl rand"):
        ServeOptions(api_key=key)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"port": 70000}, "--port 70000"),
        ({"max_batch": 0}, "--max-batch 0"),
        ({"queue": -1}, "--queue -1"),
        ({"timeout_seconds": 0}, "--timeout 0"),
        ({"max_body_bytes": 5}, "--max-body 5"),
        ({"questions": Path("x")}, "--questions: are shown by the page"),
        ({"precision": "int7"}, "--precision 'int7'"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(change, words) -> None:
    with pytest.raises(InputError, match=words):
        ServeOptions(**change)


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r'did you mean "vllm".*own, vllm, llama.cpp'):
        check_backend("vlm")
