"""Labels as the authors' converter writes them."""

from __future__ import annotations

import pytest

from pipeline.converted_labels import converted


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("traffic_light", "traffic light"),
        ("bat_(animal)", "bat"),
        ("bottle:cap", "bottle: cap"),
        ("trash_can:lid", "trash can: lid"),
        ("mouse_(computer_equipment):scroll_wheel", "mouse: scroll wheel"),
        ("bow-tie", "bow tie"),
        ("first-aid_kit", "first aid kit"),
        ("monitor_(computer_equipment) computer_monitor", "monitor computer monitor"),
        ("CD_player", "CD player"),
        ("a_(b)_(c) d", "a d"),
        ("a_(b)_(c):d", "a: d"),
        ("a_(b", "a (b"),  # not closed
        ("open (", "open ("),
        (") shut", ") shut"),
        (")a_(b)", ")a"),
        ("(all)", ""),
        ("", ""),
    ],
)
def test_a_label(name: str, label: str) -> None:
    assert converted(name) == label
