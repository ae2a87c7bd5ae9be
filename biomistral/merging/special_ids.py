"""What configs must say when a model gets another vocabulary: its size, and ids of special tokens.

Knows nothing about files or rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

VOCABULARY_SIZE = "vocab_size"
_NESTED = "text_config"  # where models of several modalities keep what concerns text


def vocabulary_changes(
    config: Mapping[str, Any],
    source: Mapping[str, Any],
    moved: Callable[[int], int | None],
    size: int,
) -> dict[str, Any]:
    """Return the top-level keys of ``config`` that change, with their new values.

    ``source`` is the config of the model whose tokenizer is taken: it knows its special tokens
    best. An id that only ``config`` has is ``moved`` (None: the tokenizer lacks the token).
    """
    changes = id_changes(config, source, moved, size)
    nested = config.get(_NESTED)
    if isinstance(nested, dict):
        theirs = source.get(_NESTED)
        inner = id_changes(nested, theirs if isinstance(theirs, dict) else {}, moved, size)
        changes[_NESTED] = {**nested, **inner}
        if VOCABULARY_SIZE in nested:
            changes[_NESTED][VOCABULARY_SIZE] = size
    if VOCABULARY_SIZE in config or not isinstance(nested, dict):
        changes[VOCABULARY_SIZE] = size
    return {
        key: value for key, value in changes.items() if key not in config or config[key] != value
    }


def id_changes(
    config: Mapping[str, Any],
    source: Mapping[str, Any],
    moved: Callable[[int], int | None],
    size: int,
) -> dict[str, Any]:
    """Return the new values of those keys for ids of tokens that change; None for no such token."""
    changes = {}
    for key in {**config, **source}:
        if not key.endswith("_token_id"):
            continue
        old = config.get(key)
        new = _within(source[key], size) if key in source else _moved(old, moved, size)
        if new != old or key not in config:
            changes[key] = new
    return changes


def _moved(value: Any, moved: Callable[[int], int | None], size: int) -> Any:
    """Apply ``moved`` to an id or a list of ids."""
    if isinstance(value, list):
        return _within([moved(index) for index in value], size)
    return _within(moved(value), size) if isinstance(value, int) else None


def _within(value: Any, size: int) -> Any:
    """Leave out ids that have no row."""
    if isinstance(value, list):
        return [index for index in value if index is not None and index < size] or None
    return value if isinstance(value, int) and value < size else None
