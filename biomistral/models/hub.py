"""Turn the name of a model into a folder: the folder it is, or a local copy of a hub repository.

Knows nothing about what is in the folder. Only safetensors weights, configs and tokenizers are
fetched, never code or pickles.
"""

from __future__ import annotations

import os
import re
from fnmatch import fnmatch
from pathlib import Path

from biomistral.errors import InputError, ModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_WANTED = [
    "*.json",
    "*.safetensors",
    "*.model",
    "*.spm",
    "tokenizer.model*",
    "*.jinja",
    "*.txt",
    "README.md",
    "LICENSE*",
]
_PICKLED = ["pytorch_model*.bin", "adapter_model.bin"]
# The same weights once more, in the form of the model's makers; and other models in subfolders.
_UNWANTED = ["*consolidated*.safetensors", "*/*"]


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
    cannot be reached, has no such model, or has nothing but pickled weights that are not allowed.
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
        only_pickled = not any(fetched.glob("*.safetensors")) and (
            allow_pickle or _has_pickled(str(path), revision, fetched)
        )
        if only_pickled and allow_pickle:
            fetched = fetch(_WANTED + _PICKLED)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"{path}: is no folder here and cannot be fetched from the hub "
            f"({reason}); check the name, the revision, the network and, for "
            "gated models, your token, or name a folder"
        ) from error
    if only_pickled and not allow_pickle:
        raise ModelError(
            f"{path}: has only pickled weights on the hub, and a pickle can run any code when it "
            "is opened; biomistral merge and biomistral translate read them as plain numbers, running "
            "no code, with --allow-pickle; or name a repository with safetensors"
        )
    return fetched


def cached_file(path: str, revision: str | None, name: str) -> Path | None:
    """A file of a hub repository if it is on this machine already; fetches nothing."""
    # Looked for before the library is imported, which takes as long as all of a plan.
    if not is_hub_id(path) or not (_cache() / f"models--{path.replace('/', '--')}").is_dir():
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(path, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _cache() -> Path:
    """The hub's cache on this machine, where the library looks for it."""
    given = os.environ
    home = given.get("HF_HOME") or Path(given.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    named = given.get("HF_HUB_CACHE") or given.get("HUGGINGFACE_HUB_CACHE")
    return Path(named or Path(home, "hub")).expanduser()


def name_of(folder: Path) -> str:
    """Return owner/name for a folder in the hub's cache, for any other the last part of its path."""
    place = Path(os.path.abspath(folder))  # noqa: PTH100  links keep the names they were given
    kind, _, name = place.parent.parent.name.partition("--")
    is_cached = place.parent.name == "snapshots" and kind == "models" and name
    return name.replace("--", "/") if is_cached else place.name


def _has_pickled(repository: str, revision: str | None, fetched: Path) -> bool:
    """Whether a repository has pickled weights, as far as one can tell from here."""
    if (fetched / "pytorch_model.bin.index.json").is_file():
        return True
    from huggingface_hub import HfApi

    try:
        siblings = HfApi().model_info(repository, revision=revision, timeout=10).siblings or []
    except Exception:  # noqa: BLE001  no network, told by types that change with the hub's library
        return False
    files = [sibling.rfilename for sibling in siblings]
    return any(fnmatch(file, pattern) for file in files for pattern in _PICKLED if "/" not in file)
