from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from biomistral import artifacts
from biomistral.errors import InputError
from biomistral.evaluation.lm_eval_samples import Names, import_samples
from biomistral.records import Prediction, read_records

FOREIGN = Names("medqa", "en", 5)


def _sample(doc: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """One line as the harness writes it: numbers are text there."""
    prompt = "Which bark?\nAnswer:"
    return {
        "doc_id": 7,
        "doc": doc or {"question": "Which bark?"},
        "target": "1",
        "arguments": {
            f"gen_args_{i}": {"arg_0": prompt, "arg_1": text}
            for i, text in enumerate((" elm", " wïllow"))
        },
        "resps": [[["-12.0", "False"]], [["-8.0", "True"]]],
        **changes,
    }


def _own(**changes: Any) -> dict[str, Any]:
    """The doc of our own export."""
    return {
        "question_id": "q1", "task": "herbs", "language": "fr", "shots": 3, "seed": 2,
        "scoring": "letter", "gold": 0, "order": [1, 0],
        "prompt_digest": artifacts.digest_of("Which bark?\nAnswer:"), **changes,
    }  # fmt: skip


def _import(tmp_path: Path, *samples: Any, names: Names = FOREIGN) -> list[Prediction]:
    file = tmp_path / "samples_x.jsonl"
    file.write_text("".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples), "utf-8")
    out = import_samples([file], tmp_path / "out", name="theirs", names=names)
    return list(read_records(out / "predictions.parquet", Prediction))


def test_our_own_docs_say_what_they_are(tmp_path):
    [found] = _import(tmp_path, _sample(_own()), names=Names(None))
    assert found == Prediction(
        question_id="q1", task="herbs", language="fr", model="theirs", shots=3, seed=2,
        scoring="letter", logprobs=(-12.0, -8.0), gold=0, order=(1, 0),
    )  # fmt: skip


def test_texts_are_divided_by_their_bytes(tmp_path):
    [found] = _import(tmp_path, _sample(_own(scoring="cloze")))
    assert found.logprobs == (-12.0 / 4, -8.0 / 8)


def test_other_tasks_get_the_names_that_are_given(tmp_path):
    [found] = _import(tmp_path, _sample())
    assert (found.task, found.language, found.shots, found.question_id, found.gold) == (
        "medqa", "en", 5, "7", 1,
    )  # fmt: skip


def test_a_right_answer_may_be_given_as_text(tmp_path):
    assert _import(tmp_path, _sample(target=" wïllow"))[0].gold == 1


def test_line_separators_inside_of_texts_do_not_end_a_line(tmp_path):
    assert len(_import(tmp_path, _sample({"question": "a\u2028b"}), _sample(doc_id=8))) == 2


def test_without_a_name_other_tasks_are_refused(tmp_path):
    with pytest.raises(InputError, match="did not export: say which task it is with --task"):
        _import(tmp_path, _sample(), names=Names(None))


def test_a_prompt_that_was_changed_is_not_taken_for_ours(tmp_path):
    with pytest.raises(InputError, match="its prompt is not the one exported"):
        _import(tmp_path, _sample(_own(prompt_digest="0")))


def test_two_answers_to_one_question_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"question '7' of medqa \(en, seed 1\) is answered in"):
        _import(tmp_path, _sample(), _sample())


@pytest.mark.parametrize(
    "sample",
    [
        [], {}, {"doc": {}}, _sample(resps=[["text"], ["text"]]), _sample(target="Z"),
        _sample(resps=[[["-1", "False"]]]), _sample(arguments={}),
    ],
)  # fmt: skip
def test_what_is_no_such_sample_is_named_by_line(tmp_path, sample):
    with pytest.raises(InputError, match=r"samples_x\.jsonl, line 2: is no multiple-choice sample"):
        _import(tmp_path, _sample(), sample)
    assert not (tmp_path / "out").exists()


def test_a_number_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="must be finite"):
        _import(tmp_path, _sample(resps=[[["nan", "False"]], [["-8.0", "True"]]]))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.jsonl"):
        import_samples([tmp_path / "gone.jsonl"], tmp_path / "out", name="x", names=FOREIGN)
