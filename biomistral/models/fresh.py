"""Make a model from nothing: a byte-pair tokenizer trained on texts, and random weights.

The tokenizer is of the kind of Mistral 7B v0.1: byte-pair encoding with ``▁`` for blanks, byte
fallback, ``<unk> <s> </s>`` as ids 0, 1, 2 and ``<s>`` put in front. Like that one it takes
``</s>`` in a text for the control token unless asked to ``split_special_tokens``, and gives back a
blank for ``▁``. Unlike that one it has a pre-tokenizer: a token never spans two words, which makes
it a thousand times faster to train, and a punctuation mark is a token of its own, so that ``(A``
and ``(B`` are cut alike whatever the texts were. Knows nothing about where texts come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from biomistral.errors import InputError
from biomistral.models.loading import quiet_transformers
from biomistral.recipe.settings import Architecture

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> Any:
    """Train a tokenizer of at most ``vocabulary_size`` tokens; the same texts give the same one.

    Texts are read one at a time. Raises ``InputError`` if they hold no character, or more different
    ones than the vocabulary has room for.
    """
    tokenizer = _untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[*SPECIAL_TOKENS, *BYTE_TOKENS],
        show_progress=False,
    )
    characters: set[str] = set()

    def seen() -> Iterable[str]:
        for text in texts:
            characters.update(text)
            yield text

    tokenizer.train_from_iterator(seen(), trainer)
    if not characters:
        raise InputError("tokenizer: there is no text to train it on; the corpora are empty")
    if tokenizer.get_vocab_size() > vocabulary_size:  # the trainer keeps every character it met
        raise InputError(
            f"tokenizer: the texts have {len(characters)} different characters, too many for a "
            f"vocabulary_size of {vocabulary_size}, {len(SPECIAL_TOKENS) + len(BYTE_TOKENS)} of "
            f"which are control and byte tokens; set it to {tokenizer.get_vocab_size()} or more"
        )
    tokenizer = _bytes_as_plain_tokens(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    make: Any = PreTrainedTokenizerFast  # has no type hints
    return make(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        clean_up_tokenization_spaces=False,
    )


def _untrained() -> Tokenizer:
    """How texts are cut into pieces that merges stay inside, and how tokens become text again."""
    tokenizer = Tokenizer(
        models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)  # noqa: S106
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Split("▁", "merged_with_next"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def _bytes_as_plain_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Strip the byte tokens of their special status, or text saying ``<0x41>`` would become one."""
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in SPECIAL_TOKENS]
    return Tokenizer.from_str(json.dumps(state))


def fresh_model(architecture: Architecture, tokenizer: Any, *, seed: int) -> MistralForCausalLM:
    """Make a float32 Mistral model with random weights whose embedding fits the tokenizer."""
    config = MistralConfig(
        **architecture.model_dump(),
        vocab_size=len(tokenizer),
        sliding_window=None,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attention_dropout=0.0,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs, too
        return MistralForCausalLM(config)


def save_fresh_model(
    architecture: Architecture, texts: Iterable[str], vocabulary_size: int, folder: Path, seed: int
) -> None:
    """Write a tokenizer trained on ``texts`` and a random model that fits it to ``folder``."""
    tokenizer = train_tokenizer(texts, vocabulary_size)
    with quiet_transformers():
        fresh_model(architecture, tokenizer, seed=seed).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
