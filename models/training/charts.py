"""Draw curves: points -> an SVG picture for a page, whose colours the page's own style gives."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 460, 240  # of the diagram, within its axes
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 34, 16, 58
_TICKS = 5
_MOST_POINTS = 460  # of a curve: more would be drawn over each other


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points (x, y) in the order of x; `kind` is the class that the page's style has a colour for."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]

    def thinned(self) -> Sequence[tuple[float, float]]:
        """Return the means of as many neighbours as one place of the picture would show."""
        size = math.ceil(len(self.points) / _MOST_POINTS)
        pieces = [self.points[start : start + size] for start in range(0, len(self.points), size or 1)]
        return [
            (sum(x for x, _ in piece) / len(piece), sum(y for _, y in piece) / len(piece)) for piece in pieces
        ]


def diagram(
    title: str, below: str, curves: Sequence[Curve], form: Callable[[float], str] = "{:g}".format
) -> str:
    """Draw curves into one diagram; `form` writes the numbers of the upright axis."""
    thinned = [(curve, curve.thinned()) for curve in curves if curve.points]
    xs = [x for _, points in thinned for x, _ in points]
    ys = [y for _, points in thinned for _, y in points]
    across, up = _Axis.of(0.0, max(xs)), _Axis.of(min(ys), max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + across.share(x) * _WIDTH, _TOP + (1 - up.share(y)) * _HEIGHT

    parts = [f'<text class="title" x="{_LEFT}" y="18">{escape(title)}</text>']
    for value in up.ticks:
        _, y = place(0, value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}h{_WIDTH}"/>')
        parts.append(f'<text class="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{escape(form(value))}</text>')
    for value in across.ticks:
        x, _ = place(value, up.low)
        parts.append(f'<text class="middle" x="{x:.1f}" y="{_TOP + _HEIGHT + 16}">{value:g}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}v{_HEIGHT}h{_WIDTH}"/>')
    for curve, points in thinned:
        placed = [place(x, y) for x, y in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline class="{curve.kind}" points="{line}"/>')
        if len(placed) == 1:
            parts.append(
                f'<circle class="{curve.kind}" cx="{placed[0][0]:.1f}" cy="{placed[0][1]:.1f}" r="3"/>'
            )
    parts += _legend(curves, below)
    size = f"{_LEFT + _WIDTH + _RIGHT} {_TOP + _HEIGHT + _BOTTOM}"
    return (
        f'<svg viewBox="0 0 {size}" role="img" aria-label="{escape(title)}">\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """A range of numbers that are easy to read."""

    low: float
    high: float
    step: float

    @classmethod
    def of(cls, least: float, most: float) -> "_Axis":
        width = (most - least) or abs(most) or 1.0
        unit = 10.0 ** math.floor(math.log10(width / _TICKS))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor * _TICKS >= width * (1 - 1e-9))
        low = math.floor(least / step + 1e-9) * step
        return cls(low=low, high=max(math.ceil(most / step - 1e-9) * step, low + step), step=step)

    @property
    def ticks(self) -> list[float]:
        count = round((self.high - self.low) / self.step)
        return [round(self.low + index * self.step, 12) for index in range(count + 1)]

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


def _legend(curves: Sequence[Curve], below: str) -> list[str]:
    y = _TOP + _HEIGHT + 40
    parts = [f'<text class="end muted" x="{_LEFT + _WIDTH}" y="{y}">{escape(below)}</text>']
    x = _LEFT
    for curve in curves:
        parts.append(f'<path class="{curve.kind}" d="M{x} {y - 4}h18"/>')
        parts.append(f'<text x="{x + 24}" y="{y}">{escape(curve.name)}</text>')
        x += 44 + 7 * len(curve.name)
    return parts
