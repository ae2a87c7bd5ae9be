"""The engine of our own: a Transformers model that is opened when it is first needed.

Out of memory is no end: the batch is halved and what was answered stays answered. How a request is
scored is in ``models.scoring``. Knows nothing about files of answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from biomistral import artifacts
from biomistral.errors import ModelError
from biomistral.models.adapted import adapted
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.gguf import gguf_context_tokens, gguf_file
from biomistral.models.hub import local_folder
from biomistral.models.identity import digest_of_model
from biomistral.models.loading import load_model, load_tokenizer
from biomistral.models.memory import free_memory_bytes
from biomistral.progress import Progress
from biomistral.records import Request

if TYPE_CHECKING:
    from biomistral.models.continuations import TextEncoder
    from biomistral.models.scoring import OnBatch
    from biomistral.recipe.settings import EvaluateSettings

LEAST_BATCH_TOKENS = 64
_SHARE_OF_FREE = 0.8  # of the memory that is free once the model is there


class Engine(Protocol):
    """What answers requests."""

    def facts(self) -> Mapping[str, Any]:
        """What answers depend on besides the requests, as JSON values: the key of kept answers."""

    def too_long(self, requests: Sequence[Request]) -> dict[int, int]:
        """Tokens of the requests that do not fit into the context, by their index."""

    @property
    def context_tokens(self) -> int | None:
        """Most tokens of a prompt and its longest choice; None if there is no bound."""

    def score(
        self, requests: Sequence[Request], *, keep: OnBatch, progress: Progress
    ) -> dict[str, int | None]:
        """Answer requests, handing over each finished batch to ``keep``; return what it cost.

        The cost is ``prompt_tokens`` and ``forward_tokens``, None where they are not known.
        """


class TransformersEngine:
    """A checkpoint in a folder or on the hub. Nothing is read before it is needed."""

    def __init__(
        self,
        settings: EvaluateSettings,
        model: Path | str,
        revision: str | None = None,
        digest: Callable[[Path], str] = artifacts.file_digest,
    ) -> None:
        self._settings = settings
        self._batch_tokens = settings.batch_tokens
        self._path = model
        self._revision = revision
        self._digest = digest
        self._encoder: TextEncoder | None = None
        self._model: Any = None

    def facts(self) -> Mapping[str, Any]:
        """Digest of the model, precision, and which version of this engine."""
        from biomistral.models.scoring import ENGINE_VERSION

        return {
            "model": digest_of_model(self._path, self._revision, self._digest),
            "precision": self._settings.precision,
            "engine": "transformers",
            "version": ENGINE_VERSION,
        }

    @property
    def context_tokens(self) -> int | None:
        """As the model's config says."""
        if file := gguf_file(Path(self._path)):
            return gguf_context_tokens(file)
        parts = adapted(self._path, self._revision)
        folder = parts.base if parts else local_folder(self._path, self._revision)
        limit: int | None = Checkpoint(folder).config.get("max_position_embeddings")
        return limit

    def too_long(self, requests: Sequence[Request]) -> dict[int, int]:
        """Tokens of the requests that do not fit. No request is tokenized that needs not be."""
        from biomistral.models.continuations import encode_requests

        limit = self.context_tokens
        if limit is None:
            return {}
        doubtful = [i for i, request in enumerate(requests) if _most_tokens(request) > limit]
        if not doubtful:
            return {}
        encoded = encode_requests(self._texts(), [requests[i] for i in doubtful])
        lengths = {i: item.num_tokens for i, item in zip(doubtful, encoded, strict=True)}
        return {i: length for i, length in lengths.items() if length > limit}

    def score(
        self, requests: Sequence[Request], *, keep: OnBatch, progress: Progress
    ) -> dict[str, int | None]:
        """Answer requests; raises ``ModelError`` if the smallest batch is too large for the memory."""
        from biomistral.models.scoring import score_requests

        # The tokenizer first: it is refused in no time, the model takes minutes to load.
        encoder, model = self._texts(), self._opened()
        if model.device.type != "cpu":  # on a CPU, scoring takes small batches anyway
            fit = tokens_that_fit(
                model.config, free_memory_bytes(model.device), model.dtype.itemsize
            )
            self._batch_tokens = max(LEAST_BATCH_TOKENS, min(self._batch_tokens, fit))
        left = dict(enumerate(requests))
        while True:
            scored = None
            places = list(left)
            try:
                scored = score_requests(
                    model,
                    encoder,
                    list(left.values()),
                    batch_tokens=self._batch_tokens,
                    progress=_ahead(progress, len(requests) - len(left), len(requests)),
                    on_batch=_at(places, keep, left),
                )
            except (MemoryError, RuntimeError) as error:  # of PyTorch, both kinds are the latter
                if not is_out_of_memory(error):
                    raise
                if self._batch_tokens <= LEAST_BATCH_TOKENS:
                    raise self._too_little_memory() from error
            if scored is None:  # outside of the handler, which holds on to the tensors
                self._batch_tokens = max(LEAST_BATCH_TOKENS, self._batch_tokens // 2)
                _free()
                continue
            whole = len(places) == len(requests)
            return {
                "prompt_tokens": scored.num_prompt_tokens if whole else None,
                "forward_tokens": scored.num_forward_tokens if whole else None,
            }

    def _texts(self) -> TextEncoder:
        from biomistral.models.continuations import TextEncoder

        if self._encoder is None:
            self._encoder = TextEncoder(load_tokenizer(self._path, self._revision))
        return self._encoder

    def _opened(self) -> Any:
        if self._model is None:
            try:
                self._model = load_model(
                    self._path, revision=self._revision, precision=self._settings.precision
                )
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise self._too_little_memory() from error
        return self._model

    def _too_little_memory(self) -> ModelError:
        return ModelError(
            f"{self._path}: model and the smallest batch ({LEAST_BATCH_TOKENS} tokens at a time) "
            f"need more memory than there is, in {self._settings.precision}; evaluate a quantized "
            "model, fewer shots, or use a larger machine (what is finished is kept)"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return any(
        words in text
        for words in ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )


def tokens_that_fit(config: Any, free_bytes: int, element_bytes: int) -> int:
    """Estimate how many tokens of a batch fit into free memory, without trying; may be negative.

    Counted per token: keys and values of all layers, which stay for what is shared, and what one
    layer holds at a time; besides, the float32 copy of the head. Cautious: a batch that is too large
    is halved, one that is too small is slower by little.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = 2 * heads * width * config.num_hidden_layers
    at_a_time = 4 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    at_a_time += 12 * config.hidden_size
    head_bytes = 4 * config.vocab_size * config.hidden_size
    return int((_SHARE_OF_FREE * free_bytes - head_bytes) / (element_bytes * (kept + at_a_time)))


def _most_tokens(request: Request) -> int:
    """A bound of its tokens: one a byte, and a few in front."""
    longest = max(len(text.encode()) for text in request.continuations)
    return len(request.prompt.encode()) + longest + 8


def _at(places: Sequence[int], keep: OnBatch, left: dict[int, Request]) -> OnBatch:
    """Hand over under the indices of the whole, and note what is answered."""

    def listen(indices: list[int], logprobs: list[tuple[float, ...]], tops: list[str]) -> None:
        whole = [places[index] for index in indices]
        keep(whole, logprobs, tops)
        for place in whole:
            left.pop(place, None)

    return listen


def _ahead(progress: Progress, start: int, whole: int) -> Progress:
    """Report progress of what was left as progress of the whole."""

    def listen(done: float, total: float | None, text: str) -> None:  # noqa: ARG001
        progress(start + done, whole, text)

    return listen


def _free() -> None:
    """Give memory that PyTorch keeps for later back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
