"""What a step learned from is kept beside the artefact, by the first process."""

from __future__ import annotations

import json

from biomistral.training.evidence import evidence_file, forget_evidence, keep_evidence


def test_it_lies_beside_the_artefact_and_the_error_says_where(tmp_path):
    out = tmp_path / "medical"
    said = keep_evidence(out, "examples", lambda step: {"examples": [f"a/{step}"]}, 3, float("nan"))
    assert said == f"; the examples of this step are listed in {tmp_path}/medical.stopped.json"
    kept = json.loads(evidence_file(out).read_text())
    assert kept == {"step": 3, "loss": "nan", "examples": ["a/3"]}
    forget_evidence(out)
    forget_evidence(out)
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert "medical.stopped.json" in keep_evidence(tmp_path / "medical", "x", lambda _: {}, 1, 2.0)
    assert list(tmp_path.iterdir()) == []
