"""Plots of usage; requires matplotlib (the extra ``plot``)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from io import BytesIO
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from waldur_site_agent.backends.output_files import replace_file
from waldur_site_agent.cycles.usage_history import Series
from waldur_site_agent.model.marketplace import Component

_COLOURS = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#ee8866",
    "#44bb99",
)
"""Colours that are safe for colour-blind readers; further resources are grouped together."""
_OTHERS = "#bbbbbb"
_WIDTH, _HEIGHT, _MARGIN = 10.0, 2.8, 1.0
"""Inches: the width, the height of each component's chart, and the height of the title."""
_MOST_LABELS = 16
_EVERYBODY_READS = 0o644

Bar = tuple[str, list[float], str]
"""A resource with its amounts and colour."""


def draw(
    file: Path,
    series: Iterable[Series],
    components: Mapping[str, Component],
    *,
    title: str,
    labels: Sequence[str],
    unit_of_time: str,
) -> None:
    """Draw stacked bars, one chart per component.

    Args:
        file: the output; its name ends in ``.svg`` or ``.png``.
        series: usage per period.
        components: the components with units and names.
        title: the title of the plot.
        labels: one for each period.
        unit_of_time: what a period is, such as ``day``.
    """
    by_component = sorted(series, key=attrgetter("component"))
    groups = [(name, list(each)) for name, each in groupby(by_component, attrgetter("component"))]
    figure = Figure(figsize=(_WIDTH, _MARGIN + _HEIGHT * max(1, len(groups))), layout="constrained")
    figure.suptitle(_plain(title), fontsize=13, fontweight="bold")
    parts = figure.subplots(max(1, len(groups)), 1, squeeze=False)[:, 0]
    colours = _colours(by_component)
    for axes, (name, each) in zip(parts, groups, strict=False):
        _draw_component(axes, components[name], _bars(each, colours), labels)
    parts[-1].set_xlabel(unit_of_time)
    if not groups:
        _say_that_nothing_was_used(parts[0])
    drawn = BytesIO()
    figure.savefig(drawn, dpi=150, format=file.suffix.removeprefix(".").lower())
    replace_file(file, drawn.getvalue(), _EVERYBODY_READS)


def _say_that_nothing_was_used(axes: Axes) -> None:
    axes.text(
        0.5, 0.5, "no usage", ha="center", va="center", color="#666666", transform=axes.transAxes
    )


def _draw_component(
    axes: Axes, component: Component, bars: Sequence[Bar], labels: Sequence[str]
) -> None:
    bottom = [0.0] * len(labels)
    places = list(range(len(labels)))
    for name, amounts, colour in bars:
        axes.bar(
            places,
            amounts,
            width=0.8,
            bottom=bottom,
            color=colour,
            label=_plain(f"{name}  {sum(amounts):,.2f}"),
        )
        bottom = [low + amount for low, amount in zip(bottom, amounts, strict=True)]
    axes.set_title(_plain(component.label), loc="left", fontsize=11)
    axes.set_ylabel(_plain(component.measured_unit))
    step = -(-len(labels) // _MOST_LABELS)
    axes.set_xticks(places[::step], list(labels[::step]))
    axes.set_xlim(-0.6, max(0, len(labels) - 1) + 0.6)
    axes.set_ylim(0, max([*bottom, 0.0]) * 1.08 or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="both", length=0)
    if not bars:
        _say_that_nothing_was_used(axes)
    else:
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9, reverse=True
        )


def _colours(series: Iterable[Series]) -> dict[str, str]:
    """Assign colours, the same in all charts, to the accounts with the highest usage."""
    used = [(each.account, each.component, sum(each.amounts)) for each in series]
    totals: dict[str, Fraction] = defaultdict(Fraction)
    for _, component, amount in used:
        totals[component] += amount
    shares: dict[str, Fraction] = defaultdict(Fraction)
    for account, component, amount in used:
        if amount:
            shares[account] = max(shares[account], amount / totals[component])
    largest = sorted(shares, key=lambda account: (-shares[account], account))[: len(_COLOURS)]
    return dict(zip(sorted(largest), _COLOURS, strict=False))


def _bars(series: Sequence[Series], colours: Mapping[str, str]) -> list[Bar]:
    """The accounts with usage, by name; those without a colour of their own are grouped."""
    used = [each for each in series if any(each.amounts)]
    bars: list[Bar] = [
        (each.account, [float(amount) for amount in each.amounts], colours[each.account])
        for each in used
        if each.account in colours
    ]
    rest = [each.amounts for each in used if each.account not in colours]
    if rest:
        together = [float(sum(amounts)) for amounts in zip(*rest, strict=True)]
        bars.append((f"{len(rest)} others", together, _OTHERS))
    return bars


def _plain(text: str) -> str:
    """Escape dollar signs, which would start a formula."""
    return "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")
