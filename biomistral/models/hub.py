"""Turn the name of a model into a folder: the folder it is, or a local copy of a hub repository.

Knows nothing about what is in the folder. Only safetensors weights, configs and tokenizers are
fetched, never code or pickles.
"""

from __future__ import annotations

import re
from pathlib import Path

from biomistral.errors import InputError, ModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_WANTED = [
    "*.json",
    "*.safetensors",
    "*.model",
    "tokenizer.model*",
    "*.jinja",
    "*.txt",
    "README.md",
    "LICENSE*",
]
_PICKLED = ["pytorch_model*.bin"]
# The same weights once more, in the form of the model's makers.
_UNWANTED = ["*consolidated*.safetensors"]


def is_hub_id(path: str | Path) -> bool:
    """Whether ``path`` names a hub repository (owner/name) and nothing here.

    Decided on the text as it was written: ``./a/b`` and ``a/b/`` are folders, there or not, and so
    is every ``Path``, which has forgotten how it was written. So is ``a/b`` where a folder ``a``
    is: more likely a path with a slip in it than the one owner of that name.
    """
    if isinstance(path, Path) or _HUB_ID.fullmatch(path) is None:
        return False
    return not Path(path).parent.exists()


def local_folder(
    path: str | Path, revision: str | None = None, *, allow_pickle: bool = False
) -> Path:
    """Return the folder of a model, fetching it from the hub into its cache if need be.

    Pickled weights are fetched with ``allow_pickle`` only, and only where there are no others.

    Raises ``InputError`` if there is neither a folder nor such a name, ``ModelError`` if the hub
    cannot be reached or has no such model.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"{path}: is a file; name the folder of a checkpoint")
    if not is_hub_id(path):
        raise InputError(
            f"{path}: there is no such folder; name the folder of a checkpoint, or a hub "
            "repository as owner/name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def fetch(wanted: list[str]) -> Path:
        return Path(
            snapshot_download(
                str(path), revision=revision, allow_patterns=wanted, ignore_patterns=_UNWANTED
            )
        )

    try:
        fetched = fetch(_WANTED)
        if allow_pickle and not any(fetched.glob("*.safetensors")):
            fetched = fetch(_WANTED + _PICKLED)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"{path}: is no folder here and cannot be fetched from the hub "
            f"({reason}); check the name, the revision, the network and, for "
            "gated models, your token, or name a folder"
        ) from error
    return fetched
