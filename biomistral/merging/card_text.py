"""A configuration as a model card shows it: with names of models instead of the paths to them.

Knows nothing about what the configuration means, beyond where it names models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from biomistral.merging.references import Reference, identity, labels, read_reference
from biomistral.recipe.yaml_text import read_yaml

_NAME_MODELS = ("model", "base_model", "tokenizer_source")


def shown_configuration(text: str, references: Mapping[str, Reference]) -> str:
    """Return a configuration that has been read without problems, in YAML, without any path.

    ``references`` are its models by name. Comments are left out: they may say anything.
    """
    own = labels(list(references))
    by_model = {identity(reference): own[name] for name, reference in references.items()}

    def label(value: Any) -> Any:
        prefix = "model:" if isinstance(value, str) and value.startswith("model:") else ""
        try:
            model = read_reference(value.removeprefix(prefix) if prefix else value)
        except ValueError:
            return value
        found = by_model.get(identity(model))
        return value if found is None else prefix + found

    shown = _renamed(read_yaml(text, "configuration"), label)
    if isinstance(shown.get("tokenizer"), dict) and "source" in shown["tokenizer"]:
        shown["tokenizer"]["source"] = label(shown["tokenizer"]["source"])
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, default_flow_style=None)


def _renamed(value: Any, label: Callable[[Any], Any]) -> Any:
    """Return a copy of a value in which every model has its label."""
    if isinstance(value, list):
        return [_renamed(item, label) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: label(item) if key in _NAME_MODELS else _renamed(item, label)
        for key, item in value.items()
    }
