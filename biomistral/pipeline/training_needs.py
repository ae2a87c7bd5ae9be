"""What the training runs of a recipe will need of memory and disk, before anything is made.

Reads configurations of stored models; opens no model and loads no PyTorch. Knows nothing about how
it is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from biomistral.errors import BiomistralError
from biomistral.models.checkpoints import CONFIG, read_json
from biomistral.models.hub import cached_file
from biomistral.recipe import links
from biomistral.recipe.settings import FreshModel, PretrainSettings, Recipe, StoredModel
from biomistral.recipe.tuning import TuningSettings
from biomistral.training import memory
from biomistral.training.known_shapes import shape_by_name

_UNKNOWN = "what it needs of memory is known when its model is here"
_BY_NAME = "by the published shape of its model, which is not here: "
_NVIDIA = Path("/proc/driver/nvidia/gpus")  # there with a GPU, whose memory nobody asks for here


def training_needs(recipe: Recipe, num_processes: int = 1) -> Iterator[tuple[str, str]]:
    """Yield the key of each training step, and a sentence on what it needs.

    Of a model that is not on this machine its published shape is taken, if it is a well-known one;
    where what is said is from is said, too.
    """
    for entry in recipe.pretrain:
        yield f"model/{entry.name}", _needs(recipe, entry, num_processes)
    for tuned in (*recipe.sft, *recipe.dpo):
        key = f"{'adapter' if tuned.makes_adapter else 'model'}/{tuned.name}"
        yield key, _tuning_needs(recipe, tuned, num_processes)


def _needs(recipe: Recipe, entry: PretrainSettings, num_processes: int) -> str:
    shape, told = _shape(recipe, entry.model)
    corpus = links.corpus_named(recipe, entry.corpus)
    assert corpus is not None, "names were checked"
    if shape is None:
        return _UNKNOWN
    try:
        needed = memory.estimate(entry, shape, corpus.sequence_length, num_processes)
    except BiomistralError as error:
        return str(error)
    each = " in each process" if num_processes > 1 else ""
    checkpoint = memory.checkpoint_bytes(entry, shape.num_parameters)
    said = _said(entry, f"{shape.num_parameters:,} parameters", needed, checkpoint, each)
    return told + said


def _tuning_needs(recipe: Recipe, entry: TuningSettings, num_processes: int) -> str:
    shape, told = _shape(recipe, entry.model)
    if shape is None:
        return _UNKNOWN
    trained = f"{memory.num_trained(entry, shape):,} of {shape.num_parameters:,} parameters trained"
    if not entry.makes_adapter:
        trained = f"{shape.num_parameters:,} parameters"
    try:
        needed = memory.estimate_tuning(entry, shape, num_processes)
    except BiomistralError as error:
        return str(error)
    each = " in each process" if num_processes > 1 else ""
    return told + _said(entry, trained, needed, memory.tuning_checkpoint_bytes(entry, shape), each)


def _said(
    entry: PretrainSettings | TuningSettings,
    parameters: str,
    needed: memory.Estimate,
    checkpoint_bytes: int,
    each: str = "",
) -> str:
    text = (
        f"{parameters}, about {needed} of memory{each}; {memory.size(checkpoint_bytes)} of disk a "
        f"checkpoint, of which {entry.keep_checkpoints} are kept"
    )
    here = memory.host_memory_bytes()
    if needed.total <= here and not _NVIDIA.is_dir():
        return text
    where = "" if _NVIDIA.is_dir() else f" (this machine has {memory.size(here)})"
    return f"{text}; if it does not fit{where}: {'; or '.join(memory.remedies(entry))}"


def _shape(recipe: Recipe, name: str) -> tuple[memory.Shape | None, str]:
    """Shape of the model that ``name`` goes back to, as training and merging keep it; and whence."""
    source = recipe.models.get(links.declared_ancestor(recipe, name) or "")
    if isinstance(source, FreshModel):
        vocabulary = {"vocab_size": source.tokenizer.vocabulary_size}
        return memory.shape_of({**source.architecture.model_dump(), **vocabulary}), ""
    if not isinstance(source, StoredModel):
        return None, ""
    path = Path(source.path) / CONFIG
    config = path if path.is_file() else cached_file(source.path, source.revision, CONFIG)
    if config:
        return memory.shape_of(read_json(config)), ""
    return shape_by_name(source.path), _BY_NAME
