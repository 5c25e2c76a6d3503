"""Names of categories as labels."""

from __future__ import annotations

from model import label_texts


def test_the_authors_converter() -> None:
    assert label_texts.label("mouse_(computer_equipment):scroll_wheel", "wowseg") == "mouse: scroll wheel"


def test_other_rules() -> None:
    assert label_texts.label(" Bow-tie_(dress) ", "raw") == "Bow-tie_(dress)"
    assert label_texts.label("Traffic_Light", "normal") == "traffic light"
