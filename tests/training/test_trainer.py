from __future__ import annotations

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from biomistral.recipe.settings import PretrainSettings
from biomistral.training import attention
from biomistral.training.collation import collate
from biomistral.training.schedule import Course
from biomistral.training.trainer import make_trainer, run_trainer

ROWS = [(np.full(12, 3 + index), (5, 7)) for index in range(6)]


def made(model_folder, tmp_path, seen: list[int], **changes: object):
    def spy(rows):
        seen.extend(int(ids[0]) for ids, _ in rows)
        return collate(rows)

    values = {"name": "m", "model": "base", "rows_per_step": 2, "precision": "float32", **changes}
    settings = PretrainSettings.model_validate(values)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    return make_trainer(
        settings, model, ROWS, spy, course=Course(3, 1), work=tmp_path, seed=1, callbacks=[]
    )


def test_rows_come_in_the_order_of_the_data_and_the_rate_follows_the_course(tiny_model, tmp_path):
    seen: list[int] = []
    trainer = made(tiny_model, tmp_path, seen, learning_rate=1e-3)
    run_trainer(trainer, None)
    assert seen == [3, 4, 5, 6, 7, 8]
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert rates == [0.0, 1e-3, 5e-4]


def test_the_model_is_made_to_keep_documents_apart_unless_told_otherwise(tiny_model, tmp_path):
    apart = made(tiny_model, tmp_path, [])
    joined = made(tiny_model, tmp_path, [], cross_document_attention=True)
    assert apart.model.config._attn_implementation == attention.NAME
    assert joined.model.config._attn_implementation == "sdpa"
    assert apart.model.config.use_cache is False
