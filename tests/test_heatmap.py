"""Laws of the picture of cosines between days."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from dask_embstab.render.heatmap import colour, contrast, heatmaps_svg

SVG = "{http://www.w3.org/2000/svg}"
LABELS = ["2026-01-01", "<b>", "Tom & Jerry"]
BEFORE = np.array([[1, -0.01, 0.12], [-0.01, 1, -0.87], [0.12, -0.87, 1]])
AFTER = np.array([[1, 0.98, np.nan], [0.98, 1, 0.96], [np.nan, 0.96, 1]])


def drawing(title: str = "Cosines, before & after") -> ET.Element:
    panels = [("items, before", BEFORE), ("items, after", AFTER.astype(np.float32))]
    return ET.fromstring(heatmaps_svg(panels, LABELS, title=title))


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_is_an_accessible_picture_that_scales() -> None:
    root = drawing()
    assert root.get("role") == "img"
    assert root.find(f"{SVG}title") is not None
    assert root.findtext(f"{SVG}title") == "Cosines, before & after"
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib


def test_paints_its_own_white_ground_first() -> None:
    root = drawing()
    ground = root.find(f"{SVG}rect")
    assert ground is not None
    assert ground.get("fill") == "#ffffff"
    assert root.attrib["viewBox"] == f"0 0 {ground.get('width')} {ground.get('height')}"


def test_holds_every_name_label_and_value() -> None:
    shown = texts(drawing())
    assert {"items, before", "items, after", *LABELS} <= set(shown)
    for matrix in (BEFORE, AFTER):
        for value in matrix[np.isfinite(matrix)]:
            assert f"{value:.2f}" in shown
    assert shown.count("\u2013") == np.isnan(AFTER).sum()


def test_columns_are_labelled_on_every_panel_and_rows_once() -> None:
    shown = texts(drawing())
    assert [shown.count(label) for label in LABELS] == [3, 3, 3]


def test_everything_lies_within_the_picture() -> None:
    root = drawing(
        title="A title that is a good deal wider than two small panels are together " * 3
    )
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for element in [*root.iter(f"{SVG}rect"), *root.iter(f"{SVG}text")]:
        right = float(element.attrib["x"]) + float(element.get("width", 0))
        foot = float(element.attrib["y"]) + float(element.get("height", 0))
        assert 0 <= right <= width
        assert 0 <= foot <= height


def test_a_value_that_rounds_to_zero_has_no_sign() -> None:
    assert "0.00" in texts(
        ET.fromstring(heatmaps_svg([("a", np.array([[-0.001]]))], ["x"], title="t"))
    )


def test_colours_diverge_from_near_white_and_saturate() -> None:
    assert min(colour(0)) > 240
    assert colour(1)[2] > colour(1)[0]
    assert colour(-1)[0] > colour(-1)[2]
    assert colour(7) == colour(1)
    assert len(set(colour(np.nan))) == 1
    white = (255, 255, 255)
    for sign in (-1, 1):
        ladder = [contrast(white, colour(sign * value)) for value in np.linspace(0, 1, 21)]
        assert ladder == sorted(ladder)


@pytest.mark.parametrize("value", [*np.linspace(-1, 1, 41), np.nan])
def test_values_are_readable_on_their_cell(value: float) -> None:
    root = ET.fromstring(heatmaps_svg([("a", np.array([[value]]))], ["x"], title="t"))
    shown = "\u2013" if np.isnan(value) else f"{value:z.2f}"
    (ink,) = {e.attrib["fill"] for e in root.iter(f"{SVG}text") if e.text == shown}
    rgb = tuple(bytes.fromhex(ink[1:]))
    assert contrast((rgb[0], rgb[1], rgb[2]), colour(value)) >= 4.5


def test_refuses_matrices_that_the_labels_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"'a' must have shape \(3, 3\).*got \(2, 2\)"):
        heatmaps_svg([("a", np.eye(2))], LABELS, title="t")
    with pytest.raises(ValueError, match="need panels and labels"):
        heatmaps_svg([], LABELS, title="t")
