"""What all settings are built of: the strict base class and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from biomistral.languages import LANGUAGES

Fraction = Annotated[float, Field(ge=0, le=1)]
Licence = Literal["CC0", "CC-BY", "CC-BY-SA", "CC-BY-ND", "CC-BY-NC", "CC-BY-NC-SA", "CC-BY-NC-ND"]


def _known_language(code: str) -> str:
    if code not in LANGUAGES:
        raise ValueError(f"{code!r} is not one of {', '.join(LANGUAGES)}")
    return code


LanguageCode = Annotated[str, AfterValidator(_known_language)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


Item = TypeVar("Item")


def without_repeats(items: list[Item] | str) -> list[Item] | str:
    """Return a list as it is, or raise ``ValueError`` if something stands in it twice."""
    for index, item in enumerate(items if isinstance(items, list) else []):
        if item in items[:index]:
            raise ValueError(f"{item!r} is given twice; once is enough")
    return items


# A list in which each thing stands once: doing it again would change nothing but the numbers.
Distinct = Annotated[list[Item], AfterValidator(without_repeats)]


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors and values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- of every training run -------------------------------------------------------------------------

KeepCheckpoints = Annotated[
    int, Field(ge=1, description="Newest checkpoints that are kept until the run is done.")
]
LargestLossRise = Annotated[
    Annotated[float, Field(gt=0)] | None,
    Field(
        description="Stop when the mean loss of the last steps lies this many nats above that of the "
        "first; null: never."
    ),
]
TensorBoard = Annotated[
    str | None,
    Field(
        description="Folder for TensorBoard's event files; the run gets one of its own in it. "
        "Default: board/, beside what the run makes, if TensorBoard is installed."
    ),
]
WeightsAndBiases = Annotated[
    str | None, Field(description="Project of Weights & Biases to report to.")
]
