"""Whether a GGUF file says what it was made from, asked of an independent reader: Transformers.

Token ids must be equal on every token's text and on sentences in many scripts; logits must be as
close as the rounding of the weights explains. Where the memory does not hold both models, weights
alone are compared, tensor by tensor.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biomistral.errors import ModelError
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.gguf import load_gguf_tokenizer
from biomistral.models.loading import load_model
from biomistral.quantization.gguf_writing import plain_values

SENTENCES = (
    "A 54-year-old man has a fever of 39.4 °C; which drug (A, B or C) is given first?\n**Answer:**(",
    "L'érythème disparaît en 3 jours. El niño tenía 12 años. A criança não tossia.",
    "Die Übelkeit ließ nach. Пациент жаловался на боль в груди.",
    "患者发热三天。 يشكو المريض من ألم في الصدر.",
    "x = [1, 2, 3]  # two blanks\tand a tab\n\n\nthen α-blocker → β₂ 🙂",
)
# Logits of a wrong file differ as much as those of two models: by more than their own length.
_MOST_LOGIT_ERROR = 0.5
_PROMPT_TOKENS = 64


def check_file(original: Checkpoint, file: Path, tokenizer: Any) -> dict[str, Any]:
    """Read ``file`` back and return what was found: number of texts, error of the logits.

    Raises ``ModelError`` if tokens or logits are others than those of ``original``.
    """
    num_texts = check_tokens(file, tokenizer)
    found: dict[str, Any] = {"texts_with_equal_tokens": num_texts}
    if _fits(original):
        found["relative_logit_error"] = _check_logits(original, file)
    return found


def check_tokens(file: Path, tokenizer: Any) -> int:
    """Compare token ids; return on how many texts. Raises ``ModelError`` at the first other one.

    Texts with a blank in front are left out: llama.cpp puts one more before them, as Mistral's
    tokenizer does, and Transformers' reader of GGUF does not.
    """
    of_file = load_gguf_tokenizer(file)
    texts = [*SENTENCES, *_token_texts(tokenizer)]
    expected, found = (made(texts)["input_ids"] for made in (tokenizer, of_file))
    for text, ids, other in zip(texts, expected, found, strict=True):
        if ids != other:
            raise ModelError(
                f"{file.name}: its tokenizer gives {other[:12]} for {text[:40]!r}, that of the model "
                f"{ids[:12]}; this tokenizer cannot be put into a GGUF file here: use llama.cpp's "
                "convert_hf_to_gguf.py, or method: awq or bitsandbytes"
            )
    if of_file.chat_template != tokenizer.chat_template:
        raise ModelError(f"{file.name}: has another chat template than the model; report this")
    return len(texts)


def _token_texts(tokenizer: Any) -> Iterator[str]:
    special = set(tokenizer.all_special_ids)
    for index in range(len(tokenizer)):
        text = tokenizer.decode([index])
        if (
            index not in special
            and text
            and not text[0].isspace()
            and "\N{REPLACEMENT CHARACTER}" not in text
        ):
            yield text


def _fits(original: Checkpoint) -> bool:
    """Whether two copies of the model in float32 fit into the memory that is free."""
    parameters = sum(tensor.num_elements for tensor in original.tensors.values())
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 2 * 4 * parameters < 0.8 * free


def _check_logits(original: Checkpoint, file: Path) -> float:
    vocabulary = original.embedding_rows() or 1
    ids = torch.randint(vocabulary, (1, _PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))
    cpu = torch.device("cpu")
    logits = []
    for path in (original.folder, file):
        model: Any = load_model(path, precision="float32", device=cpu)
        with torch.no_grad():
            logits.append(model(ids).logits[0])
        del model
    error = float((logits[1] - logits[0]).norm() / logits[0].norm())
    if not error < _MOST_LOGIT_ERROR:
        raise ModelError(
            f"{file.name}: Transformers reads a model from it whose logits differ by {error:.2f} of "
            "their length from those of the model it was made from; report this"
        )
    return error


def weight_errors(original: Checkpoint, file: Path) -> dict[str, list[float]]:
    """Relative errors of the matrices in ``file``, by kind of layer, one tensor at a time."""
    import gguf

    reader = gguf.GGUFReader(file)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    errors: dict[str, list[float]] = {}
    for name, new_name, values in plain_values(original):
        if values.ndim > 1 and new_name in stored:
            tensor = stored[new_name]
            found = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(values.shape)
            error = np.linalg.norm(found - values) / (np.linalg.norm(values) or 1.0)
            errors.setdefault(name.split(".")[-2], []).append(float(error))
    return errors
