"""Checkpoint folders on disk: read tensor by tensor, without making a model of them.

A checkpoint is what Transformers saves: ``config.json`` and safetensors files, one
(``model.safetensors``) or several with an index. Opening reads the config and the headers of the
files only, so a broken or unfit checkpoint is refused before a weight is touched. Knows nothing
about architectures beyond the names of their embeddings. PyTorch is loaded when values are asked for.

Format: that of ``save_pretrained`` in Transformers.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomistral.errors import ModelError
from biomistral.models.safetensors_files import StoredTensor, read_header

if TYPE_CHECKING:
    from torch import Tensor

    from biomistral.models.mapped import MappedFiles

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SINGLE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED_FILE = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"

# Files that travel with the weights when a checkpoint is made from another one.
COMPANIONS = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer.model.v3",
    TOKENIZER_CONFIG,
    "vocab.json",
    "vocab.txt",
)

# Ends of the names of tensors with a row per token: input embeddings, and heads that give logits.
EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)
HEADS = ("lm_head.weight", "lm_head.bias", "embed_out.weight", "embed_out.bias")

# --- reading --------------------------------------------------------------------------------------


class Checkpoint:
    """An opened checkpoint folder: ``config``, ``tensors`` by name, and their values on demand.

    ``tensors`` is in the natural order of the names (layer 2 before layer 10), whatever the files
    the tensors lie in. Weights that are there only in pickled form are refused unless
    ``allow_pickle``; see ``pickled``. Raises ``ModelError`` if the folder holds no whole checkpoint.
    """

    def __init__(self, folder: Path, *, allow_pickle: bool = False) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise ModelError(f"{folder}: is not a folder; name the folder of a checkpoint")
        self.config = _read_config(folder)
        stored = sorted(
            _stored_tensors(folder, allow_pickle), key=lambda tensor: _natural(tensor.name)
        )
        self.tensors = {tensor.name: tensor for tensor in stored}
        self._files: MappedFiles | None = None

    def tensor(self, name: str) -> Tensor:
        """Return a tensor whose pages are read when they are used; writing to it changes no file."""
        if self._files is None:
            from biomistral.models.mapped import MappedFiles

            self._files = MappedFiles()
        return self._files.read(self.tensors[name])

    def forget_pages(self) -> None:
        """Let go of the files: what is read from now on is mapped anew, what is in use stays."""
        self._files = None

    def embedding_rows(self) -> int | None:
        """Rows of the input embedding, or None if no tensor has the name of one."""
        for name, tensor in self.tensors.items():
            if name.endswith(EMBEDDINGS):
                return tensor.shape[0]
        return None


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{folder}: holds an adapter, not a model, and a whole model is needed here; a run has "
                "the two merged in model/ (with the same name), and biomistral merge makes that of any "
                "base and adapter (name them base+adapter, see docs/merging.md)"
            )
        raise ModelError(
            f"{folder}: has no {CONFIG}; name the folder of a whole checkpoint, as "
            "save_pretrained writes it"
        )
    return read_json(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises ``ModelError`` if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not JSON ({error}); fetch the file again") from None
    if not isinstance(value, dict):
        raise ModelError(
            f"{path}: holds a {type(value).__name__} instead of an object; fetch the file again"
        )
    return value


def _stored_tensors(folder: Path, allow_pickle: bool) -> Iterable[StoredTensor]:  # noqa: FBT001
    """Find the weights as Transformers does: the single file first, then the index."""
    if (folder / SINGLE_FILE).is_file():
        return read_header(folder / SINGLE_FILE)
    if (folder / INDEX).is_file():
        return _indexed_tensors(folder / INDEX, read_header)
    pickled = [name for name in (PICKLED_FILE, PICKLED_INDEX) if (folder / name).is_file()]
    if allow_pickle and pickled:
        from biomistral.models.pickled import read_pickled

        if pickled[0] == PICKLED_FILE:
            return read_pickled(folder / PICKLED_FILE)
        return _indexed_tensors(folder / PICKLED_INDEX, read_pickled)
    if found := pickled or sorted(path.name for path in folder.glob("pytorch_model*.bin")):
        raise ModelError(
            f"{folder}: its weights are pickled ({found[0]}), and a pickle can run "
            "any code when it is opened; convert a checkpoint that you trust with Transformers: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder), or let it "
            "be read as plain weights, without running any code, with --allow-pickle"
        )
    raise ModelError(
        f"{folder}: has no weights; expected {SINGLE_FILE}, or {INDEX} and the files it names"
    )


def _indexed_tensors(
    index: Path, read: Callable[[Path], list[StoredTensor]]
) -> Iterator[StoredTensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: has no weight_map; fetch the index again")
    for file_name in sorted(set(map(str, weight_map.values()))):
        file = index.parent / file_name
        if Path(file_name).name != file_name or not file.is_file():
            raise ModelError(
                f"{index}: names the file {file_name!r}, which is not in the folder; "
                "fetch the missing file, or the index that belongs to these files"
            )
        listed = {name for name, value in weight_map.items() if value == file_name}
        found = read(file)
        if differing := listed ^ {tensor.name for tensor in found}:
            name = min(differing)
            problem = "lists it, the file lacks it" if name in listed else "does not list it"
            raise ModelError(
                f"{index}: does not fit {file_name}: tensor {name!r} is one of {len(differing)} "
                f"that differ (the index {problem}); fetch index and files of one revision"
            )
        yield from found


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key with numbers by value: ``layers.2`` before ``layers.10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


# --- the tokenizer --------------------------------------------------------------------------------


def check_tokenizer_fits(
    folder: Path, *, model: Path | None = None, allow_pickle: bool = False
) -> None:
    """Raise ``ModelError`` if the tokenizer can give an id that the embedding has no row for.

    ``model`` is the folder with the embedding, if it is another one.

    Reads JSON only. Special tokens that are named but not in the vocabulary count: Transformers
    appends them when it loads the tokenizer. A folder without a tokenizer passes.
    """
    rows = Checkpoint(model or folder, allow_pickle=allow_pickle).embedding_rows()
    try:
        ids = _token_ids(folder)
    except (TypeError, AttributeError, LookupError, ValueError) as error:
        raise ModelError(
            f"{folder}: its tokenizer files are not of a known form ({error!r}); fetch them again"
        ) from None
    if rows is None or not ids:
        return
    token = max(ids, key=lambda token: ids[token])
    if ids[token] >= rows:
        raise ModelError(
            f"{folder}: the tokenizer gives the token {token!r} the id {ids[token]}, but the "
            f"embedding has {rows} rows (ids 0 to {rows - 1}); resize the embedding "
            "(model.resize_token_embeddings(len(tokenizer)), then save_pretrained), or take the "
            "token out of the tokenizer"
        )


def _token_ids(folder: Path) -> dict[str, int]:
    """Every token the tokenizer files name, with its id."""
    tokenizer = _read_json_if_there(folder / "tokenizer.json")
    config = _read_json_if_there(folder / TOKENIZER_CONFIG)
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # unigram models: [piece, score] by id
        vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    ids: dict[str, int] = {**_read_json_if_there(folder / "vocab.json"), **vocabulary}
    vocabulary_is_known = bool(ids)  # not so beside a bare tokenizer.model
    ids |= _read_json_if_there(folder / "added_tokens.json")
    ids |= {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    for index, token in config.get("added_tokens_decoder", {}).items():
        ids[token["content"]] = int(index)
    if vocabulary_is_known:
        special = _read_json_if_there(folder / "special_tokens_map.json")
        for content in itertools.chain(_special_tokens(config), _special_tokens(special)):
            ids.setdefault(content, max(ids.values()) + 1)
    return ids


def _special_tokens(config: dict[str, Any]) -> Iterator[str]:
    """Tokens named by keys such as ``pad_token`` and ``additional_special_tokens``."""
    for key, value in config.items():
        if key.endswith(("_token", "_special_tokens")):
            for token in value if isinstance(value, list) else [value]:
                content = token.get("content") if isinstance(token, dict) else token
                if isinstance(content, str):
                    yield content


def _read_json_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
