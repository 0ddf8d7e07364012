"""Plots: files that can be looked at, the same each time."""

import re
import struct
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from edged.errors import ConfigError
from edged.tools.simulate.plot import (
    ORIGIN_COLOURS,
    POINTS_MAX,
    POLICY_COLOURS,
    check_path,
    draw,
    save,
)
from edged.tools.simulate.runner import Played, play
from edged.tools.simulate.scenario import POLICIES
from tests.tools.simulate.worlds import brief

TABLE = [["policy", "served"], ["price", "99 % <b>"]]


@pytest.fixture(scope="module")
def played() -> Played:
    return play(brief(hours=0.02))


def test_a_png_is_one(played: Played, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save(played, path, start_hour=3.0, table=TABLE)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert width >= 1200
    assert height >= 900


def test_an_svg_says_what_it_shows_and_is_the_same_again(played: Played, tmp_path: Path) -> None:
    one, other = tmp_path / "a.svg", tmp_path / "b.svg"
    for path in (one, other):
        save(played, path, start_hour=3.0, table=TABLE)
    assert one.read_bytes() == other.read_bytes()
    ET.fromstring(one.read_text())  # noqa: S314 - our own
    assert "<!-- Use of origins: leases -->" in one.read_text()


def test_html_has_the_picture_and_the_table_escaped(played: Played, tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    save(played, path, start_hour=3.0, table=TABLE)
    text = path.read_text()
    assert text.startswith("<!doctype html>")
    assert "<td>99 % &lt;b&gt;</td>" in text
    assert len(re.findall("<svg", text)) == 1
    assert "<?xml" not in text


def test_axes_have_units_and_legends_stand_outside(played: Played) -> None:
    canvas = draw(played, 3.0)
    axes = [axis for figure in canvas.subfigs for axis in figure.axes if axis.get_visible()]
    titles = {axis.get_title(loc="left") or axis.get_title() for axis in axes}
    assert len(axes) == 2 + 4
    assert {"Rejected", "Fullest link"} <= titles
    labels = [axis.get_ylabel() for axis in axes]
    assert all("%" in label or "ms" in label for label in labels if label)
    assert all(figure.legends for figure in canvas.subfigs)
    assert {axis.get_xlim()[0] for axis in axes} == {3.0}, "all begin with the run"


def test_no_line_has_more_points_than_can_be_seen(played: Played) -> None:
    samples = played.samples["price"] * 100
    canvas = draw(Played(played.report, {"price": samples}), 0.0)
    for figure in canvas.subfigs:
        for axis in figure.axes:
            assert all(
                len(list(line.get_path().iter_segments())) <= POINTS_MAX for line in axis.lines
            )


def test_every_policy_and_origin_has_a_colour_of_its_own() -> None:
    assert set(POLICY_COLOURS) == set(POLICIES)
    assert len(set(POLICY_COLOURS.values())) == len(POLICIES)
    assert len(set(ORIGIN_COLOURS)) == len(ORIGIN_COLOURS)


def test_where_it_cannot_go_is_said_before_anything_is_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'\.gif' is none of \.png, \.svg, \.html"):
        check_path(tmp_path / "a.gif")
    with pytest.raises(ConfigError, match="there is no folder"):
        check_path(tmp_path / "none" / "a.png")
    check_path(tmp_path / "a.png")


def test_a_file_that_cannot_be_written_is_named(played: Played, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.mkdir()
    with pytest.raises(ConfigError, match=r"a\.png: Is a directory"):
        save(played, path, start_hour=0.0, table=TABLE)


def test_the_module_needs_matplotlib_alone() -> None:
    assert "matplotlib.pyplot" not in sys.modules, "which would look for a screen"
