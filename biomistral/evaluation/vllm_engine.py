"""vLLM as an engine of evaluation, for GPUs.

Tried with vLLM 0.32 on a CPU: its answers are those of the engine of our own to 1e-5 in float32.

Prompts are handed over as token ids, so that they are the same as those of the engine of our own. Of
letters, vLLM is asked for the log-probabilities of their ids behind the prompt
(``SamplingParams.logprob_token_ids``), with its cache of prefixes; the token that it generates at
temperature 0 is the most probable of all. Of cloze continuations, for those of the prompt's own tokens
(``prompt_logprobs``), for which vLLM reads each sequence anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from biomistral import artifacts
from biomistral.errors import ModelError, require
from biomistral.models.continuations import Encoded, TextEncoder, encode_requests
from biomistral.models.identity import model_digest
from biomistral.models.loading import load_tokenizer
from biomistral.models.scoring import OnBatch
from biomistral.progress import Progress
from biomistral.records import Request

VERSION = 1
# Read when vLLM is imported: it shall neither report home nor mix its log into what is printed.
_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
_MOST_IDS = 128  # asked for at one position: all tokens that decode to one of the letters
_CHUNK = 512  # requests between two times that answers are kept


class VllmEngine:
    """A model folder, run by vLLM; its memory is bounded by vLLM's own settings in ``options``."""

    def __init__(
        self,
        folder: Path,
        *,
        precision: str = "bfloat16",
        digest: Callable[[Path], str] = artifacts.file_digest,
        **options: Any,
    ) -> None:
        """Raise ``MissingDependencyError`` if vLLM is not installed; loads nothing yet."""
        require("vllm", extra="vllm", purpose="evaluation with vLLM")
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._folder = folder
        self._precision = precision
        self._digest = digest
        self._options = options
        self._encoder = TextEncoder(load_tokenizer(folder))
        self._llm: Any = None

    def facts(self) -> Mapping[str, Any]:
        """Digest of the model, precision, and the version of vLLM."""
        from vllm import __version__

        facts = {"model": model_digest(self._folder, self._digest), "precision": self._precision}
        return {**facts, "engine": f"vllm {__version__}", "version": VERSION}

    @property
    def context_tokens(self) -> int | None:
        """As vLLM was told, or found in the model's config."""
        limit: int = self._opened().llm_engine.model_config.max_model_len
        return limit

    def too_long(self, requests: Sequence[Request]) -> dict[int, int]:
        """Tokens of the requests that do not fit; vLLM generates one token behind each."""
        limit = (self.context_tokens or 0) - 1
        lengths = [item.num_tokens + 1 for item in encode_requests(self._encoder, requests)]
        return {index: length for index, length in enumerate(lengths) if length > limit}

    def score(
        self, requests: Sequence[Request], *, keep: OnBatch, progress: Progress
    ) -> dict[str, int | None]:
        """Answer requests, some hundred at a time."""
        num_prompt_tokens = 0
        for start in range(0, len(requests), _CHUNK):
            chunk = requests[start : start + _CHUNK]
            encoded = encode_requests(self._encoder, chunk)
            ask = self._cloze if chunk[0].scoring == "cloze" else self._letters
            rows, tops = ask(chunk, encoded)
            num_prompt_tokens += sum(item.num_prompt_tokens for item in encoded)
            keep(list(range(start, start + len(chunk))), rows, tops)
            progress(start + len(chunk), len(requests), "questions")
        return {"prompt_tokens": num_prompt_tokens, "forward_tokens": None}

    def close(self) -> None:
        """End vLLM's processes, which hold most of a GPU's memory, so that another model may begin."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None

    def _letters(
        self, requests: Sequence[Request], encoded: Sequence[Encoded]
    ) -> tuple[list[tuple[float, ...]], list[str]]:
        from vllm import SamplingParams

        ids = [_letter_ids(item) for item in encoded]
        params = []
        for choices in ids:
            every = sorted({index for choice in choices for index in choice})
            params.append(
                SamplingParams(
                    temperature=0.0, max_tokens=1, logprobs=len(every), logprob_token_ids=every
                )
            )
        outputs = self._generate([item.trunk for item in encoded], params)
        rows, tops = [], []
        for request, choices, output in zip(requests, ids, outputs, strict=True):
            listed = output.outputs[0].logprobs[0]
            rows.append(tuple(max(_logprob(request, listed, i) for i in c) for c in choices))
            best = output.outputs[0].token_ids[0]
            published = request.scoring == "published"
            tops.append(self._encoder.tokenizer.decode([best]) if published else "")
        return rows, tops

    def _cloze(
        self, requests: Sequence[Request], encoded: Sequence[Encoded]
    ) -> tuple[list[tuple[float, ...]], list[str]]:
        from vllm import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
        texts = [item.trunk + tail for item in encoded for tail in item.tails]
        outputs = iter(self._generate(texts, params))
        rows = []
        for request, item in zip(requests, encoded, strict=True):
            row = []
            for text, tail in zip(request.continuations, item.tails, strict=True):
                listed = next(outputs).prompt_logprobs[-len(tail) :]
                pairs = zip(listed, tail, strict=True)
                total = sum(_logprob(request, found, index) for found, index in pairs)
                row.append(total / len(text.encode()))
            rows.append(tuple(row))
        return rows, [""] * len(rows)

    def _generate(self, texts: Sequence[list[int]], params: Any) -> Any:
        prompts = [{"prompt_token_ids": text} for text in texts]
        return self._opened().generate(prompts, params, use_tqdm=False)

    def _opened(self) -> Any:
        if self._llm is None:
            from vllm import LLM

            self._llm = LLM(
                model=str(self._folder),
                dtype=self._precision,
                enable_prefix_caching=True,
                max_logprobs=_MOST_IDS,
                **self._options,
            )
        return self._llm


def _letter_ids(item: Encoded) -> list[list[int]]:
    """Per choice the id of its letter, and with the published rule all that decode to it."""
    pairs = zip(item.tails, item.alternatives, strict=True)
    return [[tail[0], *others] for tail, others in pairs]


def _logprob(request: Request, listed: Any, index: int) -> float:
    if not listed or index not in listed:
        raise ModelError(
            f"question {request.question_id!r} of {request.task} ({request.language}): vLLM gave no "
            f"log-probability of token {index}; use a version that knows logprob_token_ids"
        )
    return min(0.0, float(listed[index].logprob))
