"""Tokenizers as files: which token has which id, and the tokens of several united in one.

Reads and makes what ``AutoTokenizer`` reads, from JSON alone: ``tokenizer.json`` of the tokenizers
library, and beside it the special tokens that only ``tokenizer_config.json`` or older files name
(Transformers appends those when it loads the tokenizer). A folder that has only a sentencepiece
model goes through Transformers. Knows nothing about models or their weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral.errors import ModelError
from biomistral.models.checkpoints import TOKENIZER_CONFIG

TOKENIZER = "tokenizer.json"
SPECIAL_TOKENS = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"

_NEEDING_CONVERSION = ("tokenizer.model", "tokenizer.model.v3", "spiece.model", "vocab.json")

# In the order in which Transformers appends those that the vocabulary lacks.
_NAMED_SPECIAL = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_LISTED_SPECIAL = ("additional_special_tokens", "extra_special_tokens")

_NAMED_DIFFERENCES = 3  # shown in a message; the rest is counted


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer that a folder holds."""

    folder: Path
    state: Mapping[str, Any]  # what tokenizer.json says, or would say
    ids: Mapping[str, int]  # of every token, added ones included
    changed: bool = False  # whether ``state`` says more than the files of the folder
    # Whether Transformers made ``state``: the ids are right, but release 5 has been seen to lose the
    # blank that sentencepiece puts in front of a text, so it is not good enough to be written.
    converted: bool = False

    @property
    def added(self) -> dict[str, dict[str, Any]]:
        """The tokens that texts are searched for before they are cut, by their text."""
        return {entry["content"]: entry for entry in self.state.get("added_tokens") or []}


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """Return the tokenizer of a checkpoint folder, or None if there is none.

    Raises ``ModelError`` if its files cannot be read.
    """
    try:
        if (folder / TOKENIZER).is_file():
            return _from_json(folder)
        if any((folder / name).is_file() for name in _NEEDING_CONVERSION):
            return _converted(folder)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ModelError(
            f"{folder}: its tokenizer files are not of a known form ({error!r}); fetch them again"
        ) from None
    return None


def content_digest(folder: Path) -> str:
    """SHA-256 over the files that ``read_tokenizer`` reads; equal for copies of one tokenizer."""
    digest = hashlib.sha256()
    beside = (TOKENIZER_CONFIG, SPECIAL_TOKENS, ADDED_TOKENS, "merges.txt")
    for name in (TOKENIZER, *beside, *_NEEDING_CONVERSION):
        content = (folder / name).read_bytes() if (folder / name).is_file() else b""
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def unite(base: Tokenizer, others: Sequence[Tokenizer]) -> tuple[Tokenizer, list[str]]:
    """Return the base's tokenizer with the added tokens of the others, and warnings.

    The base's tokens keep their ids; the new ones follow, in the order of ``others`` and their ids.
    Of a token that several add with other properties (such as stripping) the first one's count.
    Raises ``ModelError`` if the tokenizers differ by more than added tokens: two sets of merges
    make no third that cuts texts as either did.
    """
    warnings: list[str] = []
    entries = base.added
    ids = dict(base.ids)
    for other in others:
        if other.state is base.state:
            continue
        _check_same_pieces(base, other)
        warnings += _other_rules(base, other)
        for token, entry in sorted(other.added.items(), key=lambda item: int(item[1]["id"])):
            if token not in ids:
                ids[token] = max(ids.values(), default=-1) + 1
            if token not in entries:
                entries[token] = {**entry, "id": ids[token]}
            elif _properties(entries[token]) != _properties(entry):
                warnings.append(
                    f"{other.folder.name} adds the token {token!r} with other properties than "
                    "a model before it, whose are taken"
                )
    if len(entries) == len(base.added):
        return base, warnings
    if base.converted:
        raise ModelError(
            f"{base.folder}: has no {TOKENIZER} that tokens could be added to; fetch that of the "
            "same model from the hub, or name a tokenizer_source that needs no new tokens"
        )
    united = {**base.state, "added_tokens": sorted(entries.values(), key=lambda e: int(e["id"]))}
    _check_loads_as(united, ids, base.folder)
    return Tokenizer(base.folder, united, ids, changed=True), warnings


def rendered_files(tokenizer: Tokenizer) -> dict[str, str]:
    """Return the texts of those files of the folder that must change to hold the tokenizer."""
    if not tokenizer.changed:
        return {}
    files = {TOKENIZER: json.dumps(tokenizer.state, ensure_ascii=False, indent=2)}
    config = _read_json_if_there(tokenizer.folder / TOKENIZER_CONFIG)
    config.pop("auto_map", None)  # names code that is not copied
    # Where this key is, classes with code of their own believe it and not tokenizer.json.
    if "added_tokens_decoder" in config:
        config["added_tokens_decoder"] = {
            str(entry["id"]): _properties(entry) for entry in tokenizer.added.values()
        }
        files[TOKENIZER_CONFIG] = json.dumps(config, ensure_ascii=False, indent=2)
    if (tokenizer.folder / ADDED_TOKENS).is_file():
        ids = {token: entry["id"] for token, entry in tokenizer.added.items()}
        files[ADDED_TOKENS] = json.dumps(ids, ensure_ascii=False, indent=2)
    return files


# --- reading --------------------------------------------------------------------------------------


def _from_json(folder: Path) -> Tokenizer:
    state = _read_json(folder / TOKENIZER)
    ids = _ids(state)
    implied: list[dict[str, Any]] = []
    for token in _named_elsewhere(folder):
        if token["content"] not in ids:
            ids[token["content"]] = max(ids.values(), default=-1) + 1
            implied.append({**token, "id": ids[token["content"]]})
    if implied:
        state = {**state, "added_tokens": [*(state.get("added_tokens") or []), *implied]}
    return Tokenizer(folder, state, ids, changed=bool(implied))


def _ids(state: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = state["model"]["vocab"]
    if isinstance(vocabulary, list):  # unigram models: [piece, score] by id
        vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    added = state.get("added_tokens") or []
    return {**vocabulary, **{entry["content"]: int(entry["id"]) for entry in added}}


def _named_elsewhere(folder: Path) -> Iterator[dict[str, Any]]:
    """Tokens of the files beside tokenizer.json, in the order in which Transformers adds them."""
    config = _read_json_if_there(folder / TOKENIZER_CONFIG)
    decoder = config.get("added_tokens_decoder")
    if decoder is not None:
        yield from (_entry(decoder[index]) for index in sorted(decoder, key=int))
    else:
        config |= _read_json_if_there(folder / SPECIAL_TOKENS)
        added = _read_json_if_there(folder / ADDED_TOKENS)
        special = {entry["content"] for entry in _special(config)}
        for token in sorted(added, key=lambda token: int(added[token])):
            yield {**_entry(token), "special": token in special, "normalized": token not in special}
    yield from _special(config)


def _special(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    values = [config.get(f"{name}_token") for name in _NAMED_SPECIAL]
    for key in _LISTED_SPECIAL:
        listed = config.get(key) or []
        values += listed.values() if isinstance(listed, dict) else listed
    for value in values:
        if value:
            yield {**_entry(value), "special": True}


def _entry(token: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return an added token as tokenizer.json writes it, but for the id."""
    given = {"content": token} if isinstance(token, str) else token
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    wanted = {"content": "", **flags, "special": False}
    return {key: given.get(key, default) for key, default in wanted.items()}


def _properties(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "id"}


def _converted(folder: Path) -> Tokenizer:
    """Let Transformers make a tokenizer.json of the files there are."""
    from transformers import AutoTokenizer

    try:
        loaded: Any = AutoTokenizer.from_pretrained(folder)
        state = json.loads(loaded.backend_tokenizer.to_str())
    except (ImportError, ValueError, OSError, AttributeError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"{folder}: has no {TOKENIZER}, and Transformers cannot make one of the files there "
            f"({reason}); install what it asks for (pip install sentencepiece protobuf), or save "
            "the tokenizer once: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        ) from None
    return Tokenizer(folder, state, _ids(state), converted=True)


def _read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise TypeError(f"{path.name} holds a {type(value).__name__} instead of an object")
    return value


def _read_json_if_there(path: Path) -> dict[str, Any]:
    return _read_json(path) if path.is_file() else {}


# --- uniting --------------------------------------------------------------------------------------


def _check_same_pieces(base: Tokenizer, other: Tokenizer) -> None:
    """Raise ``ModelError`` unless both cut texts into the same pieces by the same merges."""
    ours, theirs = base.state["model"], other.state["model"]
    added = {*base.added, *other.added}
    our_pieces, their_pieces = _pieces(ours, added), _pieces(theirs, added)
    problem = ""
    if ours.get("type") != theirs.get("type"):
        problem = f"one is a {theirs.get('type')}, the other a {ours.get('type')}"
    elif our_pieces != their_pieces:
        differing = sorted({piece for piece, _ in our_pieces.items() ^ their_pieces.items()})
        shown = ", ".join(map(repr, differing[:_NAMED_DIFFERENCES]))
        problem = f"{len(differing)} tokens that are not added ones differ ({shown}, ...)"
    elif ours.get("merges") != theirs.get("merges") and _merges(ours) != _merges(theirs):
        problem = "their tokens are the same and their merges are not"
    if problem:
        raise ModelError(
            f"{other.folder}: its tokenizer cannot be united with that of {base.folder}: {problem}. "
            "A union takes tokenizers that differ by added tokens only; no union of others cuts "
            "texts as either did. Name the tokenizer to keep: tokenizer_source: base, or a model"
        )


def _pieces(model: Mapping[str, Any], added: set[str]) -> dict[str, float]:
    """Tokens that come from cutting texts, with their scores if they have any."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        return {piece: 0.0 for piece in vocabulary if piece not in added}
    return {piece: score for piece, score in vocabulary if piece not in added}


def _merges(model: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Merges in order; old files write a pair as one text with a blank in it."""
    merges = model.get("merges") or []
    return [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges]


def _other_rules(base: Tokenizer, other: Tokenizer) -> Iterator[str]:
    def rules(tokenizer: Tokenizer) -> dict[str, Any]:
        model = tokenizer.state["model"]
        names = ("normalizer", "pre_tokenizer", "decoder")
        rest = {key: value for key, value in model.items() if key not in {"vocab", "merges"}}
        return {**{name: tokenizer.state.get(name) for name in names}, **rest}

    ours, theirs = rules(base), rules(other)
    differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    if differing:
        yield (
            f"the tokenizer of {other.folder.name} has another {', '.join(differing)} than that of "
            f"{base.folder.name}, which is kept: it may cut some texts otherwise"
        )


def _check_loads_as(state: Mapping[str, Any], ids: Mapping[str, int], folder: Path) -> None:
    """Raise ``ModelError`` unless the tokenizers library gives each token the id it should have.

    The library counts added tokens on from the size of the vocabulary, whatever ids they state.
    """
    import tokenizers

    made = tokenizers.Tokenizer.from_str(json.dumps(state)).get_vocab(with_added_tokens=True)
    differing = sorted(token for token, index in ids.items() if made.get(token) != index)
    if differing:
        token = differing[0]
        raise ModelError(
            f"{folder}: its tokenizer cannot take more tokens: {token!r} would get the id "
            f"{made.get(token)} instead of {ids[token]}, for its ids have gaps; name another "
            "tokenizer_source"
        )
