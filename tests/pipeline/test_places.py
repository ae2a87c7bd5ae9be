from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.errors import InputError
from biomistral.pipeline.places import Place


def test_a_place_is_a_folder_or_a_name_on_the_hub(tmp_path: Path) -> None:
    assert Place(tmp_path).problems() == []
    assert Place(tmp_path).folder() == tmp_path
    assert Place("somebody/Model-7B").problems() == []
    assert Place(Path("somebody/Model-7B")).problems() != []  # written as ./somebody/Model-7B
    for gone in (tmp_path / "gone", "./gone/model"):
        assert Place(gone).problems() == [f"{gone}: there is no such model folder"]
        with pytest.raises(InputError, match="there is no such folder"):
            Place(gone).folder()


def test_a_hub_place_is_known_by_name_and_revision() -> None:
    places = [Place("o/m"), Place("o/m", "abc"), Place("o/n")]
    assert len({place.fingerprint() for place in places}) == 3
    assert Place("o/m", "abc").fingerprint() == places[1].fingerprint()


def test_an_adapter_counts_together_with_its_base(tiny_model, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    place = Place(Path(f"{tiny_model}+{adapter}"))
    assert place.problems() == []
    assert place.folder() == place.path
    before = place.fingerprint()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    assert len({before, place.fingerprint(), Place(tiny_model).fingerprint()}) == 3
    assert "there is no such folder" in Place(Path(f"{tiny_model}+nowhere")).problems()[0]
