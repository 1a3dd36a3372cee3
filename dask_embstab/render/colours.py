"""The colours of a page, for light and for dark, and what of them is computed: shades and inks.

Series are told apart by Okabe & Ito's hues (as text they have a contrast of 4.5 on their ground in
both schemes); a heat map runs from its ground to blue by lightness, below 0 to orange.
"""

from __future__ import annotations

from collections.abc import Mapping

from dask_embstab.render.heatmap import Rgb, ink_on, to_hex

Palette = Mapping[str, str]

LIGHT: Palette = {
    "page": "#f6f7f9",
    "card": "#ffffff",
    "ink": "#1b2129",
    "mute": "#57606a",
    "grid": "#e3e7ec",
    "edge": "#d5dbe2",
    "good": "#116b3c",
    "bad": "#a8321f",
    "s0": "#0a5ca8",
    "s1": "#a84b00",
    "s2": "#0b6e55",
    "s3": "#8a3d86",
    "s4": "#6b5600",
    "s5": "#4b5563",
}
DARK: Palette = {
    "page": "#0f1318",
    "card": "#171d24",
    "ink": "#e8ecf1",
    "mute": "#a7b1bd",
    "grid": "#29313b",
    "edge": "#323c48",
    "good": "#5fd39a",
    "bad": "#ff9c88",
    "s0": "#6db8ff",
    "s1": "#ffab66",
    "s2": "#4fd1b0",
    "s3": "#e2a3dd",
    "s4": "#dcc65a",
    "s5": "#b6bfca",
}
_RAMPS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "light": (("#f3f6fa", "#b9d3ea", "#5b9bd0", "#1a64a6", "#08306b"), ("#fbe3cd", "#b35806")),
    "dark": (("#202832", "#234a70", "#2f7cbd", "#79bbf0", "#dcefff"), ("#5a3413", "#ffb873")),
}
_N_SHADES, _BELOW = 20, "abcd"


def variables(palette: Palette, scheme: str) -> str:
    """The custom properties of one scheme, as CSS declarations."""
    known = dict(palette)
    for key, fill in shades(scheme).items():
        known[f"k{key}"] = to_hex(fill)
        known[f"i{key}"] = to_hex(ink_on(fill))
    return "".join(f"--{name}:{value};" for name, value in known.items())


def shades(scheme: str) -> dict[str, Rgb]:
    """The fill of every class of a heat map (`charts.shade`)."""
    above, below = _RAMPS[scheme]
    colours = {str(k): _between(above, k / (_N_SHADES - 1)) for k in range(_N_SHADES)}
    return colours | {key: _between(below, k / (len(_BELOW) - 1)) for k, key in enumerate(_BELOW)}


def rules() -> str:
    """The CSS rules of series and shades, which are the same in both schemes."""
    series = "".join(
        f".embstab .s{k}{{stroke:var(--s{k})}}.embstab .f{k}{{fill:var(--s{k})}}"
        f".embstab .x{k}{{fill:var(--s{k})}}"
        for k in range(6)
    )
    keys = [*map(str, range(_N_SHADES)), *_BELOW]
    return series + "".join(
        f".embstab .k{key}{{fill:var(--k{key})}}.embstab .i{key}{{fill:var(--i{key})}}"
        for key in keys
    )


def to_rgb(colour: str) -> Rgb:
    """A colour from ``#rrggbb``."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _between(stops: tuple[str, ...], share: float) -> Rgb:
    at = share * (len(stops) - 1)
    k = min(int(at), len(stops) - 2)
    one, other = to_rgb(stops[k]), to_rgb(stops[k + 1])
    red, green, blue = (round(a + (b - a) * (at - k)) for a, b in zip(one, other, strict=True))
    return red, green, blue
