"""Data sets of the Hugging Face hub, at one commit: which are known, and where a copy lies.

Only the files of a table are fetched, never code; what is in the hub's cache is not fetched again.
Knows nothing about what the files hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from biomistral.benchmark.tasks import TASKS, TRUTHFULQA, FilePatterns, Format
from biomistral.errors import InputError, did_you_mean
from biomistral.recipe.settings import HubDataset


def _english(
    file_format: Format, test: str = "", *, validation: str = "", train: str = ""
) -> FilePatterns:
    return FilePatterns(
        "en",
        file_format,
        test=(test,) if test else (),
        validation=(validation,) if validation else (),
        train=(train,) if train else (),
    )


# By id: the files of each task, as patterns of paths in the repository.
HUB: dict[str, dict[str, FilePatterns]] = {
    "cais/mmlu": {
        name: _english(
            "mmlu_hub",
            f"{subject}/test-*.parquet",
            validation=f"{subject}/validation-*.parquet",
            train=f"{subject}/dev-*.parquet",
        )
        for name in TASKS
        if name.startswith("mmlu_") and (subject := name.removeprefix("mmlu_"))
    },
    "GBaker/MedQA-USMLE-4-options": {
        "medqa": _english(
            "medqa", "phrases_no_exclude_test.jsonl", train="phrases_no_exclude_train.jsonl"
        )
    },
    "openlifescienceai/medmcqa": {
        # The answers of its test split are not public.
        "medmcqa": _english(
            "medmcqa_hub", "data/validation-*.parquet", train="data/train-*.parquet"
        )
    },
    "openlifescienceai/pubmedqa": {
        "pubmedqa": _english(
            "openlifescience",
            "data/test-*.parquet",
            validation="data/validation-*.parquet",
            train="data/train-*.parquet",
        )
    },
    # All 1,000 labelled questions in one file: examples for a test set from somewhere else.
    "qiaojin/PubMedQA": {"pubmedqa": _english("pubmedqa_hub", train="pqa_labeled/train-*.parquet")},
    "truthfulqa/truthful_qa": {
        name: _english("truthfulqa_hub", "generation/validation-*.parquet") for name in TRUTHFULQA
    },
}
_SCRIPTS = {
    "bigbio/med_qa": "GBaker/MedQA-USMLE-4-options, or the files of github.com/jind11/MedQA",
    "bigbio/pubmed_qa": "openlifescienceai/pubmedqa, or the files of github.com/pubmedqa/pubmedqa",
    "BioMistral/BioInstructQA": "its data.zip, unpacked into the folder of benchmark.data",
}


def fetched(dataset: HubDataset) -> Path:
    """Return the folder with the files of a known data set, fetching what is not there.

    Raises ``InputError`` if it is not known, is only a script, or cannot be reached.
    """
    if dataset.id in _SCRIPTS:
        raise InputError(
            f"benchmark.hub: {dataset.id} makes its data with a Python script, which is never run "
            f"here; use {_SCRIPTS[dataset.id]}"
        )
    if dataset.id not in HUB:
        raise InputError(
            f"benchmark.hub: {dataset.id!r} is none of the known data sets "
            f"({', '.join(HUB)}){did_you_mean(dataset.id, HUB)}; put the files of others into "
            "benchmark.data, as a task of your own"
        )
    wanted = sorted({pattern for files in HUB[dataset.id].values() for pattern in _all(files)})
    return _snapshot(dataset, wanted)


def _all(files: FilePatterns) -> Sequence[str]:
    return files.test + files.validation + files.train


def _snapshot(dataset: HubDataset, wanted: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def find(*, local: bool) -> Path:
        return Path(
            snapshot_download(
                dataset.id,
                repo_type="dataset",
                revision=dataset.revision,
                allow_patterns=wanted,
                local_files_only=local,
            )
        )

    try:
        folder = find(local=True)
        if all(any(folder.glob(pattern)) for pattern in wanted):
            return folder
    except (LocalEntryNotFoundError, OSError):
        pass
    try:
        return find(local=False)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"benchmark.hub: {dataset.id} at {dataset.revision} cannot be fetched ({reason}); check "
            "the name, the commit and the network, or put the published files of "
            f"{', '.join(HUB[dataset.id])} into benchmark.data (docs/benchmark.md says which)"
        ) from error
