"""Bars on a logarithmic scale, drawn as one SVG by hand; it brings its own white ground."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from xml.sax.saxutils import escape

Bar = tuple[str, float, bool]
"""Label, value, whether it is ours."""
_LABEL, _WIDTH, _ROW, _HEAD = 330, 420, 20, 30
_OURS, _THEIRS, _GRID = "#2166ac", "#bdbdbd", "#e0e0e0"


def bars_svg(groups: Mapping[str, Sequence[Bar]], *, title: str) -> str:
    """Groups of labelled positive values under one scale."""
    values = [value for bars in groups.values() for _, value, _ in bars]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 0.05)
    height = 50 + sum(_HEAD + _ROW * len(bars) for bars in groups.values()) + 30
    width = _LABEL + _WIDTH + 70

    def x(value: float) -> float:
        return round(_LABEL + _WIDTH * (math.log10(value) - low) / (high - low), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}"',
        'font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="16" font-weight="bold">{escape(title)}</text>',
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<path d="M{at} 40V{height - 28}" stroke="{_GRID}"/>')
        parts.append(
            f'<text x="{at}" y="{height - 12}" text-anchor="middle">{10.0**power:g}</text>'
        )
    top = 44
    for name, bars in groups.items():
        parts.append(f'<text x="16" y="{top + 18}" font-weight="bold">{escape(name)}</text>')
        top += _HEAD
        parts += _group(bars, top, x)
        top += _ROW * len(bars)
    return "\n".join([*parts, "</svg>\n"])


def _group(bars: Sequence[Bar], top: int, x: Callable[[float], float]) -> Iterator[str]:
    for number, (label, value, ours) in enumerate(bars):
        y, end, fill = top + number * _ROW, x(value), _OURS if ours else _THEIRS
        long = max(1.0, end - _LABEL)
        yield f'<text x="{_LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>'
        yield (
            f'<rect x="{_LABEL}" y="{y + 2}" width="{long:.1f}" height="{_ROW - 5}" fill="{fill}"/>'
        )
        yield f'<text x="{end + 5}" y="{y + 13}">{value:.3g}</text>'
