"""The ratios of a run as an SVG: a bar for each, on a logarithmic scale, better to the right."""

import math
from collections.abc import Sequence
from html import escape

from figures import Figure

_ROW, _LEFT, _WIDTH, _RIGHT = 20, 430, 360, 90  # pixels
_STYLE = (
    "<style>text{fill:#24292f}.axis{stroke:#57606a}.good{fill:#2da44e}.bad{fill:#cf222e}.none{fill:#6e7781}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis{stroke:#8b949e}}</style>"
)
_LOWEST, _HIGHEST = 1 / 8, 128.0  # times as good


def svg(figures: Sequence[Figure]) -> str:
    """Return the SVG. `figures` have ratios to the best peer. If lower is better, the bar shows the inverse."""
    rows = [figure for figure in figures if figure.ratio and not figure.scenario.startswith("uploads")]
    height = _ROW * (len(rows) + 2)
    one = _place(1.0)
    width = _LEFT + _WIDTH + _RIGHT
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        "<title>bucketfront against the best of nginx and Varnish</title>",
        _STYLE,
        f'<text x="{one}" y="14" text-anchor="middle">as good as the best of nginx and Varnish</text>',
        f'<line class="axis" x1="{one}" y1="18" x2="{one}" y2="{height - _ROW}"/>',
    ]
    for number, figure in enumerate(rows, 1):
        lines += _row(figure, number * _ROW, one)
    return "\n".join([*lines, "</svg>", ""])


def _row(figure: Figure, top: int, one: float) -> list[str]:
    assert figure.ratio is not None
    times = figure.ratio if figure.better == "higher" else 1 / figure.ratio
    at = _place(times)
    kind = {True: "good", False: "bad", None: "none"}[figure.is_met]
    label = f"{figure.scenario.partition('.')[0]}. {figure.what}"
    if "connections, varying" in figure.scenario:
        label += f", {figure.scenario.split(' ')[2]} connections"
    left, width = min(one, at), max(1.0, abs(at - one))
    return [
        f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(label)}</text>',
        f'<rect class="{kind}" x="{left:.1f}" y="{top + 4}" width="{width:.1f}" height="{_ROW - 8}"/>',
        f'<text x="{max(one, at) + 4:.1f}" y="{top + 14}">{times:.2f}</text>',
    ]


def _place(times: float) -> float:
    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    share = (math.log(min(max(times, _LOWEST), _HIGHEST)) - low) / (high - low)
    return _LEFT + _WIDTH * share
