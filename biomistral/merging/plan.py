"""What a merge is going to do, decided from configs and headers before a weight is read.

Everything that can be refused beforehand is refused here: models that do not fit each other,
parameters that do not fit the model, quantized inputs. Knows nothing about arithmetic, and needs
no PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomistral.errors import ModelError, RecipeError, did_you_mean
from biomistral.merging import numbers, slices
from biomistral.merging.configuration import MergeConfig, Source
from biomistral.merging.fitting import (
    check_fit,
    check_mergeable,
    doubts,
    left_out,
    without_own_code,
)
from biomistral.merging.jobs import Input, Job
from biomistral.merging.numbers import Numbers, Resolved
from biomistral.merging.references import locate, shown
from biomistral.merging.slices import Placed
from biomistral.models.checkpoints import Checkpoint, check_tokenizer_fits
from biomistral.models.safetensors_files import TensorSpec

if TYPE_CHECKING:
    from biomistral.merging.vocabularies import Vocabulary
    from biomistral.models.adapters import Adapter

# Keys of a config that may differ if the rows of the embeddings follow the tokenizers.
_OF_VOCABULARY = ("vocab_size",)


@dataclass(frozen=True)
class Plan:
    """A merge whose inputs fit."""

    config: MergeConfig
    models: Mapping[str, Checkpoint]  # by the names of the configuration, in its order
    adapters: Mapping[str, Adapter]  # of those models that have one
    jobs: Sequence[Job]  # one for each tensor of the output, in natural order of their names
    output_config: Mapping[str, Any]  # what config.json is to say
    vocabulary: Vocabulary | None  # None: tokenizer and rows are those of the base
    chat_template: str | None  # None: that of the tokenizer
    warnings: Sequence[str]

    @property
    def base(self) -> Checkpoint:
        """The model that gives config and tokenizer."""
        return self.models[self.config.donor]

    @property
    def read_bytes(self) -> int:
        """Size of all tensors that go into the output, each counted once for each use."""
        return sum(
            entry.stored.num_bytes
            for job in self.jobs
            for entry in (*job.inputs, *([job.base] if job.base else []))
        )

    @property
    def write_bytes(self) -> int:
        """Size of the weights of the output."""
        return sum(job.output.num_bytes for job in self.jobs)


def find_folders(
    config: MergeConfig, models: Mapping[str, Path] | None = None, *, allow_pickle: bool = False
) -> dict[str, Path]:
    """Return the folder of each model and adapter that a configuration names, by its text.

    Without ``models`` they are folders, or fetched from the hub. Raises ``RecipeError`` for names
    that are not in ``models``.
    """
    if models is None:
        return locate(config.references.values(), allow_pickle=allow_pickle)
    names = [part.text for reference in config.references.values() for part in reference.parts]
    if unknown := [name for name in dict.fromkeys(names) if name not in models]:
        problems = [f"unknown model {name!r}{did_you_mean(name, models)}" for name in unknown]
        raise RecipeError(config.where, problems)
    return {name: models[name] for name in names}


def plan_merge(
    config: MergeConfig, folders: Mapping[str, Path], *, allow_pickle: bool = False
) -> Plan:
    """Open all models and settle every number of the merge.

    Raises ``ModelError`` if a model is broken or does not fit the others, ``RecipeError`` if a
    parameter does not fit the models' tensors.
    """
    models = _open(config, folders, allow_pickle=allow_pickle)
    adapters = _open_adapters(config, folders, models, allow_pickle=allow_pickle)
    for checkpoint in models.values():
        check_mergeable(checkpoint)
    unused = left_out(models, config.donor)
    names = {m: [n for n in c.tensors if n not in unused.get(m, ())] for m, c in models.items()}
    placed, problems = slices.arrange(config, names)
    _refuse(config, problems)
    vocabulary = _vocabulary(config, models)
    free = {*vocabulary.names, *_OF_VOCABULARY} if vocabulary else set()
    if not slices.is_whole(config, names):
        free |= {"num_hidden_layers"}
    check_fit(models, config.donor, placed, free)
    if vocabulary is None:
        check_tokenizer_fits(models[config.donor].folder, allow_pickle=allow_pickle)
    lengths = {place.where: slices.num_layers(place, names) for place in config.slices}
    absent = [name for unneeded in unused.values() for name in unneeded]
    found = numbers.settle(config, placed, lengths, absent)
    _refuse(config, found.problems)
    output_config = _output_config(config, models, names, vocabulary)
    output_config, of_code = without_own_code(output_config, config.donor)
    making = _Making(config, models, adapters, vocabulary)
    return Plan(
        config=config,
        models=models,
        adapters=adapters,
        jobs=[making.job(tensor, found) for tensor in placed],
        output_config=output_config,
        vocabulary=vocabulary,
        chat_template=_chat_template(config, models),
        warnings=[*_warnings(config, models, placed, found, unused, vocabulary), *of_code],
    )


def _open(
    config: MergeConfig, folders: Mapping[str, Path], *, allow_pickle: bool
) -> dict[str, Checkpoint]:
    """Open each folder once, whatever models it stands for."""
    opened = {
        text: Checkpoint(folders[text], allow_pickle=allow_pickle)
        for text in dict.fromkeys(ref.model.text for ref in config.references.values())
    }
    return {name: opened[ref.model.text] for name, ref in config.references.items()}


def _open_adapters(
    config: MergeConfig,
    folders: Mapping[str, Path],
    models: Mapping[str, Checkpoint],
    *,
    allow_pickle: bool,
) -> dict[str, Adapter]:
    named = {name: ref.adapter for name, ref in config.references.items() if ref.adapter}
    if not named:
        return {}
    from biomistral.models.adapters import read_adapter

    return {
        name: read_adapter(folders[part.text], allow_pickle=allow_pickle).fitted_to(models[name])
        for name, part in named.items()
    }


def _refuse(config: MergeConfig, problems: Sequence[str]) -> None:
    if problems:
        raise RecipeError(config.where, problems)


def _vocabulary(config: MergeConfig, models: Mapping[str, Checkpoint]) -> Vocabulary | None:
    if config.tokenizer is None:
        return None
    from biomistral.merging.vocabularies import VocabularySetting, plan_vocabulary

    choice = config.tokenizer
    setting = VocabularySetting(
        choice.source, choice.pad_to_multiple_of, base_fills=config.base is not None
    )
    return plan_vocabulary(setting, models, config.donor)


def _chat_template(config: MergeConfig, models: Mapping[str, Checkpoint]) -> str | None:
    if config.chat_template is None:
        return None
    from biomistral.merging.chat_templates import choose_chat_template

    return choose_chat_template(config.chat_template, models, config.donor)


def _output_config(
    config: MergeConfig,
    models: Mapping[str, Checkpoint],
    names: Mapping[str, Sequence[str]],
    vocabulary: Vocabulary | None,
) -> dict[str, Any]:
    configs = {name: checkpoint.config for name, checkpoint in models.items()}
    changed, problems = slices.layered_config(configs[config.donor], configs, config, names)
    _refuse(config, problems)
    if vocabulary is not None:
        changed.update(vocabulary.config_changes)
    if config.dtype is not None:
        changed.pop("torch_dtype", None)
        changed["dtype"] = config.dtype
    return changed


@dataclass(frozen=True)
class _Making:
    """All that jobs are made of."""

    config: MergeConfig
    models: Mapping[str, Checkpoint]
    adapters: Mapping[str, Adapter]
    vocabulary: Vocabulary | None

    def job(self, tensor: Placed, found: Resolved) -> Job:
        """Make the job of one tensor of the output."""
        place = tensor.place
        empty: Sequence[Numbers] = [{}] if place.base else []
        inputs = [
            self._input(source, name, of_model)
            for source, name, of_model in zip(
                place.inputs,
                tensor.sources,
                [*empty, *found.of_models[tensor.name]],
                strict=True,
            )
        ]
        return Job(
            output=self._output(tensor, inputs[0]),
            method=self.config.method,
            base=inputs[0] if place.base else None,
            inputs=tuple(inputs[1:] if place.base else inputs),
            options=found.options[tensor.name],
        )

    def _input(self, source: Source, name: str, of_model: Numbers) -> Input:
        stored = self.models[source.model].tensors[name]
        adapter = self.adapters.get(source.model)
        replaced = adapter.replacement_for(name) if adapter else None
        update = adapter.update_for(name) if adapter else None
        rows = self.vocabulary.maps.get((source.model, name)) if self.vocabulary else None
        if rows is not None and (replaced or update):
            raise ModelError(
                f"{source.model}: its adapter changes {name}, whose rows follow the tokenizers; "
                "merge the adapter into its base first (merge_method: passthrough with this model "
                "alone), then merge the result"
            )
        stored = replaced or stored
        return Input(source.model, stored, _floats(of_model), update, rows)

    def _output(self, tensor: Placed, first: Input) -> TensorSpec:
        """Shape and type of the output: the type is that of the donor unless one is set."""
        donor = self.models[self.config.donor].tensors.get(tensor.name)
        own = donor if donor is not None and tensor.is_in_donor else first.stored
        shape = own.shape
        if self.vocabulary is not None and tensor.name in self.vocabulary.names:
            shape = (self.vocabulary.size, *shape[1:])
        return TensorSpec(tensor.name, shape, self.config.dtype or own.dtype)


def _floats(values: Numbers) -> dict[str, float]:
    return {key: float(value) for key, value in values.items()}


def _warnings(
    config: MergeConfig,
    models: Mapping[str, Checkpoint],
    placed: Sequence[Placed],
    found: Resolved,
    unused: Mapping[str, Sequence[str]],
    vocabulary: Vocabulary | None,
) -> list[str]:
    every = [
        *config.warnings,
        *found.warnings,
        *numbers.without_effect(config, placed, found),
        *_unused(unused),
        *(vocabulary.warnings if vocabulary else ()),
        *doubts(models, config.donor),
    ]
    return list(dict.fromkeys(every))


def _unused(unused: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for model, names in unused.items():
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        yield (
            f"{shown(model)} stores {', '.join(names[:2])}{more}, which Transformers does not load "
            "(tied to the embedding, or computed anew): left out"
        )
