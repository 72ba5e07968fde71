"""Plots as SVG: bars by day, bars by user, and a bar of what is used of a limit."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from waldur_site_agent.service.markup import Markup, element

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 200, 8, 22, 24
_ROW, _NAMES = 26, 150
_LABELS = 8
_LONGEST = 15
_FULL = Decimal(1)
_WARNING = Decimal("0.8")


def share_bar(share: Decimal) -> Markup:
    """What is used of a limit; the number stands beside it, so readers of screens skip the bar."""
    filled = min(max(share, Decimal(0)), _FULL)
    kind = "over" if share >= _FULL else "high" if share >= _WARNING else "fine"
    return element(
        "svg",
        element("rect", class_="ground", width=100, height=10, rx=3),
        element("rect", class_=kind, width=f"{filled * 100:.1f}", height=10, rx=3),
        class_="share",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def by_day(title: str, values: Sequence[tuple[str, Decimal]]) -> Markup:
    """A bar for each day."""
    largest = max((amount for _, amount in values), default=Decimal(0))
    step = (_WIDTH - 2 * _LEFT) / max(len(values), 1)
    room = _HEIGHT - _TOP - _BOTTOM
    every = max(1, -(-len(values) // _LABELS))
    bars: list[Markup] = []
    for number, (day, amount) in enumerate(values):
        height = float(amount / largest) * room if largest else 0.0
        left = _LEFT + number * step
        bars.append(
            element(
                "rect",
                class_="fine",
                x=f"{left + step * 0.1:.1f}",
                y=f"{_TOP + room - height:.1f}",
                width=f"{step * 0.8:.1f}",
                height=f"{height:.1f}",
            )
        )
        if number % every == 0:
            bars.append(
                element(
                    "text", day, x=f"{left + step / 2:.1f}", y=_HEIGHT - 6, text_anchor="middle"
                )
            )
    base = _TOP + room
    return element(
        "svg",
        element("title", title),
        element("text", f"largest {largest:f}", x=_LEFT, y=14),
        element("line", x1=_LEFT, y1=base, x2=_WIDTH - _LEFT, y2=base),
        bars,
        role="img",
        aria_label=title,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        class_="plot",
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def by_user(title: str, values: Sequence[tuple[str, Decimal]]) -> Markup:
    """A bar for each user, the largest first."""
    largest = max((amount for _, amount in values), default=Decimal(0))
    room = _WIDTH - _NAMES - 90
    rows: list[Markup] = []
    for number, (name, amount) in enumerate(values):
        width = float(amount / largest) * room if largest else 0.0
        y = number * _ROW
        rows += [
            element("text", _short(name), x=_NAMES - 8, y=y + 17, text_anchor="end"),
            element("rect", class_="fine", x=_NAMES, y=y + 5, width=f"{width:.1f}", height=16),
            element("text", f"{amount:f}", x=f"{_NAMES + width + 6:.1f}", y=y + 17),
        ]
    return element(
        "svg",
        element("title", title),
        rows,
        role="img",
        aria_label=title,
        viewBox=f"0 0 {_WIDTH} {max(len(values), 1) * _ROW}",
        class_="plot",
    )
