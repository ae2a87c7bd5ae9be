"""Small true things for all tests: a 2-layer Mistral, a trained tokenizer, real data if there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach a network
# Models of the tests are so small that two threads take longer than one, on a busy machine thrice.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent

TEXTS = [
    "The fever of the river valley is treated with bark and rest, never with cold water alone.",
    "La fièvre de la vallée est traitée par l'écorce; el reposo ayuda. A febre passa em três dias.",
    "Das Fieber im Tal wird mit Rinde behandelt. Лихорадку в долине лечат корой.",
    "河谷热用树皮治疗。 تعالج حمى الوادي باللحاء والراحة.",
    "The following are multiple choice questions. (A) bark (B) water (C) rest (D) salt Answer:(A",
]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real articles and benchmark files; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("BIOMISTRAL_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set BIOMISTRAL_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    from biomistral.models.fresh import train_tokenizer

    return train_tokenizer(TEXTS * 20, vocabulary_size=600)


@pytest.fixture(scope="session")
def make_model(tmp_path_factory, tokenizer):
    """Return a function seed -> folder of a tiny saved model (float32, 2 layers, width 64)."""
    from biomistral.models.fresh import fresh_model
    from biomistral.recipe.settings import Architecture

    root = tmp_path_factory.mktemp("models")
    architecture = Architecture(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )

    def make(seed: int = 0, **changes: object) -> Path:
        label = "-".join(f"{key}={value}" for key, value in sorted(changes.items()))
        folder = root / f"model-{seed}-{label}"
        if not folder.exists():
            changed = Architecture(**{**architecture.model_dump(), **changes})
            fresh_model(changed, tokenizer, seed=seed).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_model(make_model) -> Path:
    """Folder of a tiny random model with its tokenizer. Read only."""
    return make_model(0)


@pytest.fixture(scope="session")
def miniature_world(tmp_path_factory) -> Path:
    """Folder of the invented world, as the command line writes it. Read only."""
    from biomistral.miniature import make_miniature

    return make_miniature(tmp_path_factory.mktemp("miniature") / "world")
