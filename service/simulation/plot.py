"""Draws latency and goodput over the rate: runs -> an SVG picture, written by hand."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from service.simulation.study import Run, Study

_COLOURS = ("#c8102e", "#1f5fa8", "#5a8f29", "#b06f00", "#6b4fa0")
_WIDTH, _HEIGHT = 460, 320  # of a panel
_LEFT, _TOP, _GAP = 64, 56, 96
_TICKS = 5
_SLOWEST = 20  # times the quickest p99 of ours at most: what is worse leaves the picture

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<body style="margin: 2em; background: white">
{svg}
</body></html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """One diagram: where it is, and what its axes hold."""

    left: float
    title: str
    most_rate: float
    most: float
    value: Callable[[Run], float]

    def x(self, rate: float) -> float:
        return self.left + rate / self.most_rate * _WIDTH

    def y(self, value: float) -> float:
        return _TOP + _HEIGHT * (1 - value / self.most)

    def line(self, runs: Sequence[Run]) -> str:
        """Join the runs of one policy; what is beyond the axis is cut off by the clip."""
        values = [(self.x(run.rate), self.value(run)) for run in runs]
        points = (f"{x:.1f},{self.y(min(value, 10 * self.most)):.1f}" for x, value in values)
        return " ".join(points)

    def axes(self) -> list[str]:
        frame = f'<rect x="{self.left}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#999"/>'
        texts = [_text(self.left + _WIDTH / 2, _TOP - 10, self.title, "middle")]
        texts.append(_text(self.left + _WIDTH / 2, _TOP + _HEIGHT + 38, "arriving, rows/s", "middle"))
        lines = []
        for step in range(_TICKS + 1):
            x, y = self.left + _WIDTH * step / _TICKS, _TOP + _HEIGHT * (1 - step / _TICKS)
            texts.append(_text(x, _TOP + _HEIGHT + 18, f"{self.most_rate * step / _TICKS:.4g}", "middle"))
            texts.append(_text(self.left - 6, y + 4, f"{self.most * step / _TICKS:.4g}", "end"))
            lines.append(f'<path d="M{self.left} {y:.1f}h{_WIDTH}" stroke="#eee"/>')
        return [*lines, frame, *texts]


def svg(study: Study, runs: Sequence[Run]) -> str:
    """Draw a panel for the p99 latency and one for the goodput."""
    most_rate = _round_up(max(run.rate for run in runs))
    quickest_s = min(run.outcome.quantile_s(0.99) for run in runs)
    slowest_s = max(run.outcome.quantile_s(0.99) for run in runs if run.outcome.answered)
    panels = [
        _Panel(
            left=_LEFT,
            title="99 % of the answers within, ms",
            most_rate=most_rate,
            most=_round_up(min(_SLOWEST * quickest_s, slowest_s) * 1000),
            value=lambda run: run.outcome.quantile_s(0.99) * 1000,
        ),
        _Panel(
            left=_LEFT + _WIDTH + _GAP,
            title="answered in time, rows/s",
            most_rate=most_rate,
            most=_round_up(max(run.outcome.goodput for run in runs)),
            value=lambda run: run.outcome.goodput,
        ),
    ]
    drawn = [part for panel in panels for part in _drawn(panel, study, runs)]
    width, height = panels[-1].left + _WIDTH + 24, _TOP + _HEIGHT + 84
    title = f"{study.name}, {study.devices} device{'s' if study.devices > 1 else ''}"
    size = f'viewBox="0 0 {width} {height}" width="{width}" font-family="sans-serif" font-size="12"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            _text(_LEFT, 22, title, "start", size=15),
            *drawn,
            *_legend(study.policies),
            "</svg>",
        ]
    )


def page(study: Study, runs: Sequence[Run]) -> str:
    """Wrap the picture in a page."""
    return _PAGE.format(title=escape(f"Cardinal on {study.name}"), svg=svg(study, runs))


def _drawn(panel: _Panel, study: Study, runs: Sequence[Run]) -> list[str]:
    clip = f"clip{panel.left}"
    lines = [
        f'<polyline fill="none" stroke="{colour}" stroke-width="2" clip-path="url(#{clip})"'
        f' points="{panel.line([run for run in runs if run.policy == policy])}"/>'
        for policy, colour in reversed([*zip(study.policies, _COLOURS, strict=False)])
    ]
    rectangle = f'<rect x="{panel.left}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}"/>'
    return [f'<clipPath id="{clip}">{rectangle}</clipPath>', *panel.axes(), *lines]


def _legend(policies: Sequence[str]) -> list[str]:
    parts = []
    y = _TOP + _HEIGHT + 66
    for number, (policy, colour) in enumerate(zip(policies, _COLOURS, strict=False)):
        x = _LEFT + 110 * number
        parts.append(f'<path d="M{x} {y - 4}h22" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(x + 28, y, policy, "start"))
    return parts


def _text(x: float, y: float, text: str, anchor: str, *, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _round_up(value: float) -> float:
    """Find the next number whose fifths are easy to read."""
    if not 0 < value < math.inf:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(
        unit * step for step in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10) if unit * step >= value * (1 - 1e-9)
    )
