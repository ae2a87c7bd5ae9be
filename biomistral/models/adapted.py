"""A model with an adapter added when it is opened: ``BASE+ADAPTER``, or the folder of an adapter alone.

The adapter is added to the values as they are stored and the sum is rounded once, so the model is
the one that merging the two writes, to the bit where the types are the same. An adapter alone is
added to the model that its config names, if that is on this machine: in the run that the adapter is
of, at the path that is named, or in the cache of the hub. Nothing is fetched because a file says so.
Light to import. Knows nothing about how adapters are read (``adapters``) or trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomistral.errors import BiomistralError, InputError, ModelError
from biomistral.models.adapters import UpdatedValues, is_adapter, read_adapter
from biomistral.models.checkpoints import CONFIG, Checkpoint, read_json
from biomistral.models.hub import cached_file, local_folder, name_of

if TYPE_CHECKING:
    from torch import Tensor


_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json")
_AT_ONCE = 1 << 22  # values that are computed at once, in float64: 32 MB


@dataclass(frozen=True)
class Adapted:
    """Folders of a model and of the adapter that is to be added to it."""

    base: Path
    adapter: Path

    @property
    def folders(self) -> tuple[Path, Path]:
        """Both, the model first."""
        return self.base, self.adapter

    @property
    def tokenizer(self) -> Path:
        """The folder whose tokenizer counts: the adapter's if it has one, else the model's."""
        has_one = any((self.adapter / name).is_file() for name in _TOKENIZER)
        return self.adapter if has_one else self.base


def adapted(path: str | Path, revision: str | None = None) -> Adapted | None:
    """Return two folders if ``path`` is an adapter or ``BASE+ADAPTER``; None if it is a model.

    ``revision`` is that of a base or an adapter on the hub. Raises ``InputError`` if a part of
    ``BASE+ADAPTER`` is not there, ``ModelError`` if it is no adapter, one whose base is not known, or
    the base is quantized.
    """
    text = str(path)
    if "+" not in text or Path(path).exists():
        folder = _adapter_folder(path, revision)
        return _checked(Adapted(_named_base(folder), folder)) if folder else None
    base, _, adapter = text.partition("+")
    if not base or not adapter or "+" in adapter:
        raise InputError(
            f"{text}: there is no such folder, and it is no BASE+ADAPTER, one model and one adapter; "
            "name a folder, owner/name, or both parts"
        )
    if base.endswith(".gguf"):
        raise _quantized(base, "gguf")
    found = Adapted(local_folder(base, revision), local_folder(adapter))
    if not is_adapter(found.adapter):
        raise ModelError(
            f"{adapter}: holds no adapter, and behind the + of {text} there has to be one, as PEFT "
            "saves it; to put two models together use biomistral merge"
        )
    return _checked(found)


def add_adapter(model: Any, parts: Adapted) -> None:
    """Add the adapter to a model loaded from ``parts.base``, in place.

    Raises ``ModelError`` if the adapter does not fit the base to the last tensor.
    """
    from biomistral.models.mapped import MappedFiles

    checkpoint = Checkpoint(parts.base)
    adapter = read_adapter(parts.adapter).fitted_to(checkpoint)
    files = MappedFiles()
    weights = dict(model.named_parameters(remove_duplicate=False))
    for name, stored in adapter.replacements.items():
        _weight(model, weights, name).copy_(files.read(stored))
    for name, update in adapter.updates.items():
        start = adapter.replacements.get(name) or checkpoint.tensors[name]
        sums = UpdatedValues(start, update, files.read)
        flat = _weight(model, weights, name).view(-1)
        for first in range(0, flat.numel(), _AT_ONCE):
            values = sums[first : min(first + _AT_ONCE, flat.numel())]
            flat[first : first + len(values)] = values.to(flat)


def _weight(model: Any, weights: Mapping[str, Any], stored: str) -> Tensor:
    """The values of a model's weight by its name in the files, which may lack the first part."""
    name = stored if stored in weights else f"{model.base_model_prefix}.{stored}"
    if name not in weights:
        raise ModelError(
            f"the adapter changes {stored}, which the loaded model has under no such name; merge the "
            "two (biomistral merge, see docs/merging.md)"
        )
    values: Tensor = weights[name].data
    return values


def _adapter_folder(path: str | Path, revision: str | None) -> Path | None:
    """The folder of an adapter, if ``path`` names one here or in the cache of the hub."""
    if Path(path).is_dir():
        return Path(path) if is_adapter(Path(path)) else None
    cached = cached_file(str(path), revision, "adapter_config.json")
    return cached.parent if cached and is_adapter(cached.parent) else None


def _named_base(adapter: Path) -> Path:
    read = read_adapter(adapter)
    name = read.base_model
    if name is None:
        raise ModelError(
            f"{adapter}: is an adapter, and its config does not say of which model; name both as "
            f"BASE+{adapter}"
        )
    for folder in _places(adapter, name, read.config.get("revision")):
        if (folder / CONFIG).is_file():
            return folder
    raise ModelError(
        f"{adapter}: is an adapter of the model {name!r}, which was not found on this machine; name "
        f"both as BASE+{adapter}, BASE being the folder of that model or owner/name on the hub"
    )


def _places(adapter: Path, name: str, revision: str | None) -> Iterator[Path]:
    """Where the model may be that an adapter names, the surest first."""
    place = adapter.resolve()
    if place.parent.name == "adapter":
        run = place.parent.parent
        yield run / "model" / name
        yield from _declared(run / "recipe.yaml", name)
    yield Path(name)
    if cached := cached_file(name, revision, CONFIG):
        yield cached.parent


def _declared(recipe: Path, name: str) -> Iterator[Path]:
    """Models of a run's recipe that lie elsewhere under a name."""
    from biomistral.recipe import load_recipe
    from biomistral.recipe.settings import StoredModel

    try:
        sources = load_recipe(recipe).models.values()
    except BiomistralError:  # not there, of another version: it is one place of several
        return
    for source in sources:
        if isinstance(source, StoredModel) and Path(source.path).is_dir():
            folder = Path(source.path)
            if name_of(folder) == name:
                yield folder


def _checked(parts: Adapted) -> Adapted:
    """Raise ``ModelError`` if an adapter is to be added to quantized weights."""
    if (parts.base / CONFIG).is_file():
        quantization = read_json(parts.base / CONFIG).get("quantization_config") or {}
        if method := quantization.get("quant_method"):
            raise _quantized(parts.base, method)
    if any(parts.base.glob("*.gguf")) and not any(parts.base.glob("*.safetensors")):
        raise _quantized(parts.base, "gguf")
    return parts


def _quantized(path: str | Path, method: str) -> ModelError:
    return ModelError(
        f"{path}: is quantized ({method}), and an adapter is added to plain weights; name the model "
        "that it was made of"
    )
