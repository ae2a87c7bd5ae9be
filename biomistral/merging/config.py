"""Read mergekit's YAML, strictly: what would have no effect there is refused here, by name.

Levels of parameters, gradients and filters are those of mergekit; arithmetic is always in float32,
so that ``dtype`` and ``out_dtype`` say only how the result is stored. All problems of a file are
found at once. Knows nothing about the models themselves.

Format: https://github.com/arcee-ai/mergekit (0.1.5), and ``docs/merging.md``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biomistral.errors import InputError, RecipeError, did_you_mean
from biomistral.merging.catalogue import METHODS, OTHER_METHODS, Method
from biomistral.merging.chat_templates import check_chat_template
from biomistral.merging.configuration import (
    MergeConfig,
    Settings,
    Slice,
    Source,
    TokenizerChoice,
    from_settings,
)
from biomistral.merging.references import Reference, identity, read_reference
from biomistral.merging.setting_values import Level, read_settings
from biomistral.recipe.yaml_text import read_yaml

__all__ = ["MergeConfig", "from_settings", "load_config", "parse_config"]

_DTYPES = ("bfloat16", "float16", "float32")
_KEYS = (
    "merge_method",
    "models",
    "slices",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
)
# Keys of mergekit that are not taken over, by where they stand.
_REFUSED = {
    "modules": "several modules (text and images) are not supported; merge each on its own",
    "residual_weight": "is not implemented; mergekit 0.1.5 reads it and does nothing with it",
    "tokens": "embeddings of single tokens cannot be chosen; leave it out (see docs/merging.md)",
}


def load_config(path: Path) -> MergeConfig:
    """Read a configuration.

    Raises ``InputError`` if the file cannot be read, ``RecipeError`` with every problem found.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{path}: there is no such configuration; see the folder recipes/mergekit/"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a configuration ({error})") from None
    return parse_config(text, str(path))


def parse_config(text: str, source: str = "configuration") -> MergeConfig:
    """Do what ``load_config`` does, on a configuration given as text."""
    value = read_yaml(text, source)
    if not isinstance(value, dict):
        raise RecipeError(source, ["is not a mapping of keys; start with `merge_method: ...`"])
    problems: list[str] = []
    _check_keys(value, _KEYS, "", problems)
    rules = _rules(value.get("merge_method"), problems)
    if rules is None:
        raise RecipeError(source, problems)
    reader = _Reader(value["merge_method"], rules, problems)
    config = reader.config(value, source)
    if problems:
        raise RecipeError(source, problems)
    return config


def _rules(method: Any, problems: list[str]) -> Method | None:
    if isinstance(method, str) and method in METHODS:
        return METHODS[method]
    listed = ", ".join(METHODS)
    if method is None:
        problems.append(f"merge_method: is missing; it is one of {listed}")
    elif str(method) in OTHER_METHODS:
        problems.append(
            f"merge_method: {method} is a method of mergekit that is not implemented here; "
            f"{OTHER_METHODS[str(method)]}; there are {listed}"
        )
    else:
        hint = did_you_mean(str(method), METHODS)
        problems.append(f"merge_method: {method!r} is not one of {listed}{hint}")
    return None


def _check_keys(
    value: Mapping[Any, Any], allowed: Iterable[str], where: str, problems: list[str]
) -> None:
    """Note keys that mean nothing in a mapping."""
    for key in value:
        if key in _REFUSED and key not in allowed:
            problems.append(f"{where}{key}: {_REFUSED[key]}")
        elif key not in allowed:
            hint = did_you_mean(str(key), allowed) or f"; allowed are {', '.join(allowed)}"
            problems.append(f"{where}{key}: unknown key{hint}")


@dataclass
class _Reader:
    """Reads one configuration; what is wrong with it is noted in ``problems``."""

    method: str
    rules: Method
    problems: list[str]
    warnings: list[str] = field(default_factory=list)
    references: dict[str, Reference] = field(default_factory=dict)
    names: dict[Reference, str] = field(default_factory=dict)  # the first name of each model

    def config(self, value: dict[str, Any], source: str) -> MergeConfig:
        """Read the whole; the result means something only if there are no problems."""
        base = self._model(value.get("base_model"), "base_model", needed=False)
        settings = self._settings(value, "", Level.ALL)
        slices = self._slices(value, base)
        for place in slices:
            if self.rules.base == "required" and place.base is None:
                if "base_model" not in value:
                    self.problems.append(f"base_model: is missing; {self.method} needs one")
                break
            self._check_slice(place, settings)
        return MergeConfig(
            where=source,
            method=self.method,
            slices=tuple(slices),
            references=self.references,
            donor=base or next(iter(self.references), ""),
            base=base,
            settings=settings,
            dtype=self._dtype(value),
            tokenizer=self._tokenizer(value),
            chat_template=self._chat_template(value),
            warnings=tuple(self.warnings),
        )

    # --- models and slices ---

    def _slices(self, value: Mapping[str, Any], base: str | None) -> list[Slice]:
        if ("models" in value) == ("slices" in value):
            what = "there are models and slices" if "models" in value else "names no models"
            self.problems.append(f"{what}; a configuration has either models or slices")
            return []
        if "models" in value:
            return [self._whole(value, base)]
        return [self._slice(entry, where, base) for entry, where in self._entries(value, "slices")]

    def _whole(self, value: Mapping[str, Any], base: str | None) -> Slice:
        """Read ``models``: one slice of all layers."""
        sources = [
            self._source(entry, where, layered=False)
            for entry, where in self._entries(value, "models")
        ]
        listed = {source.model for source in sources}
        counts_too = self.rules.base == "none" and self.method != "passthrough"
        if counts_too and base is not None and base not in listed:
            sources.append(Source(base, "base_model"))
            self.warnings.append(
                f"base_model is not among the models, and {self.method} takes it as one more "
                "of them, as mergekit does; leave base_model out if that is not meant"
            )
        return self._with_base(sources, base, "models", {})

    def _slice(self, value: Any, where: str, base: str | None) -> Slice:
        if not isinstance(value, dict):
            self.problems.append(f"{where}: is not a mapping; a slice has sources")
            return Slice(where, None, ())
        _check_keys(value, ("sources", "base_model", "parameters"), f"{where}.", self.problems)
        own = self._model(value.get("base_model"), f"{where}.base_model", needed=False)
        if own is not None and self.rules.base == "none":
            self.warnings.append(f"{where}.base_model has no effect: {self.method} takes no base")
        sources = [
            self._source(entry, place, layered=True)
            for entry, place in self._entries(value, "sources", f"{where}.")
        ]
        lengths = {source.layers[1] - source.layers[0] for source in sources if source.layers}
        if len(lengths) > 1:
            listed = " and ".join(str(length) for length in sorted(lengths))
            self.problems.append(
                f"{where}: its sources have {listed} layers; all sources of a slice have as many"
            )
        settings = self._settings(value, f"{where}.", Level.SLICE)
        return self._with_base(sources, own or base, where, settings)

    def _with_base(
        self, sources: list[Source], base: str | None, where: str, settings: Settings
    ) -> Slice:
        """Tell the base from the other sources; it has their layers where it is not listed."""
        if self.rules.base == "none" or base is None:
            return Slice(where, None, tuple(sources), settings)
        others = tuple(source for source in sources if source.model != base)
        of_base = [source for source in sources if source.model == base]
        listed = of_base[0] if of_base else None
        if len(of_base) > 1:
            self.problems.append(f"{where}: the base {base} is named twice; once is enough")
        if listed is None:
            ranges = {source.layers for source in sources}
            if len(ranges) > 1:
                self.problems.append(
                    f"{where}: its sources are different layers, and the base {base} is not among "
                    "them; list it with the layers that are meant"
                )
            listed = Source(base, f"{where}.base_model", next(iter(ranges), None))
        elif listed.settings:
            keys = ", ".join(listed.settings)
            self.warnings.append(
                f"{listed.where}.parameters: {keys} of the base have no effect: "
                f"{self.method} has none for its base"
            )
        return Slice(where, listed, others, settings)

    def _source(self, value: Any, where: str, *, layered: bool) -> Source:
        if not isinstance(value, dict):
            self.problems.append(f"{where}: is not a mapping; write `- model: ...`")
            return Source("", where)
        keys = ("model", "layer_range", "parameters") if layered else ("model", "parameters")
        _check_keys(value, keys, f"{where}.", self.problems)
        model = self._model(value.get("model"), f"{where}.model", needed=True)
        layers = self._layers(value.get("layer_range"), f"{where}.layer_range") if layered else None
        return Source(model or "", where, layers, self._settings(value, f"{where}.", Level.MODEL))

    def _model(self, value: Any, where: str, *, needed: bool) -> str | None:
        if value is None and not needed:
            return None
        if not isinstance(value, str | dict) or not (isinstance(value, dict) or value.strip()):
            told = "is missing" if value is None else f"{value!r} is no text"
            self.problems.append(f"{where}: {told}; name a folder or a hub repository owner/name")
            return None
        try:
            reference = read_reference(value)
        except ValueError as error:
            self.problems.append(f"{where}: {error}")
            return None
        name = self.names.setdefault(identity(reference), reference.text)
        self.references.setdefault(name, reference)
        return name

    def _layers(self, value: Any, where: str) -> tuple[int, int] | None:
        whole = isinstance(value, list) and all(type(number) is int for number in value)
        if not whole or len(value) != 2 or not 0 <= value[0] < value[1]:
            told = "is missing" if value is None else f"{value!r} is no range of layers"
            self.problems.append(
                f"{where}: {told}; give [first, one past the last], such as [0, 32]"
            )
            return None
        return value[0], value[1]

    def _entries(
        self, value: Mapping[str, Any], key: str, where: str = ""
    ) -> list[tuple[Any, str]]:
        """Items of a list, each with its place."""
        items = value.get(key)
        if not isinstance(items, list) or not items:
            self.problems.append(f"{where}{key}: is no list of entries; write `- ...`")
            return []
        return [(item, f"{where}{key}[{index}]") for index, item in enumerate(items)]

    def _check_slice(self, place: Slice, settings: Settings) -> None:
        """Note models that are too few, too many or twice, and parameters that are missing."""
        models = [source.model for source in place.sources]
        for model in dict.fromkeys(model for model in models if models.count(model) > 1):
            self.problems.append(f"{place.where}: {model} is named twice; once is enough")
        least, most = self.rules.models
        if not least <= len(models) <= (len(models) if most is None else most):
            besides = " besides the base" if place.base else ""
            allowed = f"exactly {least}" if least == most else f"at least {least}"
            self.problems.append(
                f"{place.where}: {self.method} takes {allowed} models{besides}, not {len(models)}"
            )
        for parameter in self.rules.parameters:
            own = place.sources if parameter in self.rules.per_model else [place]
            for where, given in ((each.where, each.settings) for each in own):
                levels = (settings, place.settings, given)
                if parameter.default is None and not any(parameter.field in s for s in levels):
                    self.problems.append(
                        f"{where}.parameters.{parameter.key}: is missing; {self.method} needs one"
                    )

    # --- the rest ---

    def _settings(self, value: Mapping[str, Any], where: str, level: Level) -> Settings:
        return read_settings(
            value.get("parameters"), f"{where}parameters", (self.method, level), self
        )

    def _dtype(self, value: Mapping[str, Any]) -> str | None:
        """Type of the output: ``out_dtype``, else ``dtype``."""
        found = {}
        for key in ("dtype", "out_dtype"):
            text = self._text(value, key)
            found[key] = text and text.removeprefix("torch.")
            if found[key] is not None and found[key] not in _DTYPES:
                hint = did_you_mean(str(found[key]), _DTYPES)
                self.problems.append(f"{key}: {text!r} is not one of {', '.join(_DTYPES)}{hint}")
        return found["out_dtype"] or found["dtype"]

    def _tokenizer(self, value: Mapping[str, Any]) -> TokenizerChoice | None:
        source = self._text(value, "tokenizer_source")
        whole = value.get("tokenizer")
        if whole is None:
            return None if source is None else TokenizerChoice(self._token_source(source))
        if source is not None:
            self.problems.append("tokenizer_source and tokenizer say the same; give one of them")
        if not isinstance(whole, dict):
            self.problems.append("tokenizer: is not a mapping; it has source, pad_to_multiple_of")
            return None
        _check_keys(whole, ("source", "pad_to_multiple_of"), "tokenizer.", self.problems)
        multiple = whole.get("pad_to_multiple_of")
        if multiple is not None and (type(multiple) is not int or not 1 <= multiple <= 65_536):
            self.problems.append(
                f"tokenizer.pad_to_multiple_of: {multiple!r} is no number of rows; give 1 to 65536"
            )
        source = self._text(whole, "source", "tokenizer.") or "union"
        return TokenizerChoice(self._token_source(source), multiple)

    def _token_source(self, source: str) -> str:
        """Read the older form ``model:NAME``, too."""
        name = source.removeprefix("model:")
        known = ("union", "base", *self.references)
        if source not in known:
            with contextlib.suppress(ValueError):
                name = self.names.get(identity(read_reference(name)), name)
        if source not in known and name not in self.references:
            self.problems.append(
                f"tokenizer_source: {source!r} is not union, base or a model of this merge"
                f"{did_you_mean(name, known)}"
            )
        return source if source in known else name

    def _chat_template(self, value: Mapping[str, Any]) -> str | None:
        text = self._text(value, "chat_template")
        try:
            check_chat_template(text or "auto")
        except RecipeError as error:
            self.problems += error.problems
        return text

    def _text(self, value: Mapping[str, Any], key: str, where: str = "") -> str | None:
        text = value.get(key)
        if text is not None and not (isinstance(text, str) and text):
            self.problems.append(f"{where}{key}: {text!r} is no text")
            return None
        return text
