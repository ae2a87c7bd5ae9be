"""``POST /v1/choices``: how likely a model holds each of some options, calibrated if it can be.

The options are scored as in an evaluation (``models.scoring``), so a benchmark's prompt gets the
numbers that its predictions have. A question without a prompt is put in the benchmark's template,
without worked examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from biomistral.advisory import ADVISORY
from biomistral.benchmark.templates import WORDS, continuations_of, form_of
from biomistral.errors import BiomistralError
from biomistral.languages import language_of
from biomistral.models.scoring import score_requests
from biomistral.records import LETTERS, Question, Request
from biomistral.serving import replies
from biomistral.serving.calibrating import probabilities
from biomistral.serving.failures import Failure, bad_value

if TYPE_CHECKING:
    from biomistral.models.calibrations import SavedFit
    from biomistral.serving.requests import ChoicesBody
    from biomistral.serving.service import Service


async def weigh(service: Service, body: ChoicesBody) -> dict[str, Any]:
    """Reply to one request."""
    service.check_model(body.model)
    request = _request(body)
    fit = _fit(service, body)
    scored = await service.between_steps(
        lambda model: score_requests(model, service.encoder, [request])
    )
    logprobs = scored.logprobs[0]
    plain = probabilities(logprobs)
    method = body.calibration or "temperature"
    better = fit.probabilities(logprobs, method) if fit and method != "none" else None
    answer = max(range(len(plain)), key=plain.__getitem__)
    return {
        **replies.head("choices", "choices", service.model.name).body([]),
        "choices": [
            {
                "index": index,
                "option": option,
                "letter": LETTERS[index],
                "logprob": logprobs[index],
                "probability": plain[index],
                "calibrated_probability": better[index] if better else None,
            }
            for index, option in enumerate(body.options)
        ],
        "answer": answer,
        "confidence": (better or plain)[answer],
        "calibration": _told(fit, method) if better else None,
        "note": None if better else _why_not(service, body),
        "prompt": request.prompt,
        "usage": replies.usage(scored.num_prompt_tokens, 0),
        "advisory": ADVISORY,
    }


def _request(body: ChoicesBody) -> Request:
    """The prompt, and what is scored behind it."""
    if body.prompt is not None:
        prompt, continuations = body.prompt, tuple(body.options)
    else:
        assert body.question is not None, "one of the two is there"
        try:
            language = language_of(body.language).code
            question = Question(
                "request", "request", language, "test", body.question, tuple(body.options), 0,
                body.context,
            )  # fmt: skip
        except BiomistralError as error:
            raise bad_value(str(error), "question") from None
        form = form_of(body.scoring, "biomistral", WORDS["en"])
        prompt = form.prompt([], question)
        continuations = continuations_of(question, body.scoring, ())
    return Request(
        "request", "request", body.language, body.shots, 0, body.scoring, prompt, continuations, 0
    )


def _fit(service: Service, body: ChoicesBody) -> SavedFit | None:
    """The calibration for this question; raises ``Failure`` if one is asked for that is not there."""
    fit = None
    if service.calibration and body.calibration != "none":
        fit = service.calibration.find(
            task=body.task,
            group=body.group,
            language=body.language,
            scoring=body.scoring,
            shots=body.shots,
        )
    if body.calibration in {"temperature", "platt"} and fit is None:
        raise Failure(
            400, _why_not(service, body) or "there is none", param="calibration",
            code="no_calibration",
        )  # fmt: skip
    return fit


def _why_not(service: Service, body: ChoicesBody) -> str | None:
    if body.calibration == "none":
        return None
    if service.calibration is None:
        return "not calibrated: the server has no calibration of this model (--calibration)"
    return (
        f"not calibrated: there is no fit for {body.task or body.group}/{body.language}/"
        f"{body.scoring} (tasks/language/scoring); there are fits for "
        f"{service.calibration.words()}"
    )


def _told(fit: SavedFit | None, method: str) -> dict[str, Any] | None:
    """What was used, so that a reader can judge whether it belongs here."""
    if fit is None:
        return None
    numbers = (
        {"temperature": fit.temperature}
        if method == "temperature"
        else {"slope": fit.slope, "intercept": fit.intercept}
    )
    return {
        "method": method,
        **numbers,
        "group": fit.group,
        "tasks": fit.tasks,
        "language": fit.language,
        "scoring": fit.scoring,
        "shots": fit.shots,
        "num_answers": fit.num_answers,
        "fitted_on": fit.fitted_on,
    }
