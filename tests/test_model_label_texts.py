"""Names of categories as labels."""

from __future__ import annotations

import pytest

from model import label_texts


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("traffic_light", "traffic light"),
        ("bat_(animal)", "bat"),
        ("bottle:cap", "bottle: cap"),
        ("mouse_(computer_equipment):scroll_wheel", "mouse: scroll wheel"),
        ("bow-tie", "bow tie"),
        ("monitor_(computer_equipment) computer_monitor", "monitor computer monitor"),
        ("CD_player", "CD player"),
        ("a_(b)_(c) d", "a d"),
        ("open (", "open ("),
        (") shut", ") shut"),
        ("(all)", ""),
        ("", ""),
    ],
)
def test_the_authors_converter(name: str, label: str) -> None:
    assert label_texts.converted(name) == label
    assert label_texts.label(name, "wowseg") == label


def test_other_rules() -> None:
    assert label_texts.label(" Bow-tie_(dress) ", "raw") == "Bow-tie_(dress)"
    assert label_texts.label("Traffic_Light", "normal") == "traffic light"
