"""The settings of benchmark and evaluation: where questions come from, and how they are asked.

See ``settings`` for how these texts are used.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from biomistral.recipe.fields import Distinct, LanguageCode, Name, Settings, without_repeats


class HubDataset(Settings):
    """A data set repository of the Hugging Face hub, at one commit."""

    id: str = Field(description="Name of the repository, owner/name.")
    revision: str = Field(
        pattern=r"^[0-9a-f]{40}$", description="Its commit, 40 hex digits: data that never changes."
    )


class BenchmarkSettings(Settings):
    """Where the questions come from."""

    data: str = Field(
        "data/benchmark",
        description="Folder with the published files (see docs/benchmark.md), or with one folder "
        "per task of your own, each with a task.yaml.",
    )
    hub: list[HubDataset] = Field(
        default_factory=list,
        description="Data sets of the Hugging Face hub to take published tasks from that the "
        "folder lacks (see docs/benchmark.md for those that are known).",
    )
    translations: list[str] = Field(
        default_factory=list,
        description="Folders that biomistral translate made: further languages of these tasks.",
    )
    translation_quality: list[str] = Field(
        default_factory=list,
        description="Folders that biomistral translate quality made of them, for the report; of "
        "others, lengths and kept terms are measured in the run.",
    )


class EnsembleSettings(Settings):
    """A model that does not exist: the answers of several combined."""

    name: Name = Field(description="Name under which it is reported.")
    models: Distinct[str] = Field(min_length=2, description="Evaluated models to combine.")
    method: Literal["mean", "logits", "accuracy", "fitted", "majority"] = Field(
        "mean",
        description="mean of the probabilities, as published; mean of the logits; mean weighted by "
        "accuracy, or by weights fitted, on other questions; or a majority of votes.",
    )


class EvaluateSettings(Settings):
    """Few-shot multiple-choice evaluation."""

    models: Distinct[str] = Field(min_length=1, description="Models to evaluate, in table order.")
    tasks: Annotated[Literal["all"] | list[str], AfterValidator(without_repeats)] = Field(
        "all", description="all, or names of tasks."
    )
    languages: Distinct[LanguageCode] = Field(
        default=["en"], min_length=1, description="Languages of the questions."
    )
    shots: int = Field(3, ge=0, description="Worked examples before each question.")
    seeds: Distinct[int] = Field(
        default=[1, 2, 3], min_length=1, description="One evaluation each: they draw the examples."
    )
    scoring: Distinct[Literal["letter", "cloze", "published"]] = Field(
        default=["letter"],
        min_length=1,
        description="letter: probability of each choice's letter after the prompt; cloze: "
        "probability of each choice's text per byte, choices not shown; published: the rule of the "
        "paper's scripts, largest of the tokens that decode to the letter.",
    )
    template: Literal["biomistral", "meditron", "chat"] = Field(
        "biomistral",
        description="Form of the prompts of letter scoring: as published; in the style of "
        "MediTron; or the content of the published one as a message in the model's chat template.",
    )
    prompt_language: Literal["english", "question"] = Field(
        "english",
        description="Language of the words around a question: English, as published, or the "
        "question's own.",
    )
    examples: Literal["per_task", "per_question", "stored"] = Field(
        "per_task",
        description="Worked examples: the same for all questions of a task and seed; drawn anew "
        "for each question; or those published with each question, where the data has them.",
    )
    example_language: Literal["question", "english"] = Field(
        "question", description="Language of the examples; English is as published."
    )
    permutations: int = Field(
        1,
        ge=1,
        le=26,
        description="Orders in which the choices are shown, one a seed in turn; the first is their "
        "own. With as many as a question has choices, each stands in every place once.",
    )
    limit: int | None = Field(
        None, ge=1, description="At most this many test questions per task and language."
    )
    validation: int = Field(
        200,
        ge=0,
        description="At most this many validation questions per task and language are asked, too, "
        "to fit calibration and the weights of ensembles on; 0: these are cross-fitted.",
    )
    calibration: Literal["fitted", "saved"] = Field(
        "fitted",
        description="Calibrated numbers: by what is fitted here; or by the calibration.json that lies "
        "beside a model that is given, as it is served. Models without one are fitted.",
    )
    engine: Literal["own", "vllm"] = Field(
        "own",
        description="What runs models that are in a folder or on the hub: the engine of our own, or "
        "vLLM, which needs a GPU and the extra vllm.",
    )
    batch_tokens: int = Field(
        16_384, ge=64, description="Most tokens in one forward pass: bounds the memory."
    )
    precision: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="Type of the arithmetic (of the unquantized parts)."
    )
    long_prompts: Literal["refuse", "drop_shots", "skip"] = Field(
        "refuse",
        description="Prompts longer than a model's context: an error; or as many worked examples "
        "fewer as it takes; or not asked. The question itself is never cut.",
    )
    find_overlap: bool = Field(
        True,
        description="Look for the test questions in the tokens of this recipe's corpora, and report "
        "how many are there: five million characters a second and core.",
    )
    distances: bool = Field(
        True,
        description="Measure how far each trained or merged model is from those it was made from, "
        "layer by layer, for the report; reads their weights once more.",
    )
    cost: bool = Field(
        False,
        description="Measure memory and speed of each model, too; the report, which shows them, is "
        "then not the same to the byte in another run.",
    )
    shown_texts: Literal["open", "all", "none"] = Field(
        "open",
        description="Questions whose texts the report shows: open, those under a licence that lets "
        "anybody pass them on (CC0, CC-BY, -SA, -ND, MIT, Apache, BSD, ODC-BY); all; or none.",
    )
    ensembles: list[EnsembleSettings] = Field(
        default_factory=list, description="Ensembles of evaluated models."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_scoring_is_a_list(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("scoring"), str):
            value = {**value, "scoring": [value["scoring"]]}
        return value

    @model_validator(mode="after")
    def _a_seed_for_each_order(self) -> EvaluateSettings:
        if self.permutations > len(self.seeds):
            raise ValueError(
                f"permutations {self.permutations} needs as many seeds, one for each order; "
                f"there are {len(self.seeds)}"
            )
        return self

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> EvaluateSettings:
        if self.prompt_language == "question" and self.template == "meditron":
            raise ValueError("prompt_language: question has no effect with template: meditron")
        if self.examples == "stored" and self.example_language == "english":
            raise ValueError("example_language has no effect with examples: stored; leave it out")
        return self
