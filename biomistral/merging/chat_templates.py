"""The chat template of a merged model: how turns of a conversation become one text.

Templates are compared as texts; whether one fits the model is not known here. Format: a Jinja text
in ``chat_template.jinja``, or as Transformers before 4.50 wrote it, in ``tokenizer_config.json``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biomistral.errors import RecipeError
from biomistral.models.checkpoints import TOKENIZER_CONFIG, Checkpoint, read_json

TEMPLATE = "chat_template.jinja"
_KEY = "chat_template"


def choose_chat_template(setting: str, models: Mapping[str, Checkpoint], base: str) -> str | None:
    """Return the template a configuration asks for; None if ``auto`` finds none in any model.

    ``auto`` is the most frequent among the models; of equally frequent ones the base's, else that
    of the first model that has one of them. Any other setting must be a Jinja text: raises
    ``RecipeError`` for a name.
    """
    if setting != "auto":
        check_chat_template(setting)
        return setting
    in_order = [base, *(name for name in models if name != base)]
    found = [text for name in in_order if (text := read_chat_template(models[name].folder))]
    return Counter(found).most_common(1)[0][0] if found else None


def check_chat_template(setting: str) -> None:
    """Raise ``RecipeError`` unless the setting is ``auto`` or a Jinja text."""
    if setting != "auto" and "{" not in setting:
        problem = (
            f"chat_template {setting!r} is a name, and templates have no names here; allowed are "
            "auto (the most frequent among the models) and the text of a template itself (Jinja, "
            "with {{ }} or {% %} in it)"
        )
        raise RecipeError("merge", [problem])


def read_chat_template(folder: Path) -> str | None:
    """Return the template of a model as Transformers finds it, without blanks around it."""
    if (folder / TEMPLATE).is_file():
        template: Any = (folder / TEMPLATE).read_text(encoding="utf-8")
    elif (folder / TOKENIZER_CONFIG).is_file():
        template = read_json(folder / TOKENIZER_CONFIG).get(_KEY)
    else:
        return None
    if isinstance(template, list):  # several by name
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    return template.strip() or None if isinstance(template, str) else None


def write_chat_template(template: str, folder: Path) -> None:
    """Give the model in ``folder`` this template and no other."""
    (folder / TEMPLATE).write_text(template, encoding="utf-8")
    (folder / "chat_template.json").unlink(missing_ok=True)
    path = folder / TOKENIZER_CONFIG
    if path.is_file() and _KEY in (config := read_json(path)):
        del config[_KEY]
        path.write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")
