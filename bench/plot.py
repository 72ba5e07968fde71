"""Plots of growth; requires matplotlib (the extra ``plot``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from bench.passes import Cost


def draw(file: Path, costs: Sequence[Cost]) -> None:
    """Draw CPU time and memory by the number of resources, one line for each mode."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for place, (name, unit) in enumerate((("cpu_seconds", "CPU s"), ("peak_mebibytes", "MiB")), 1):
        axes = figure.add_subplot(1, 2, place)
        for mode in sorted({cost.mode for cost in costs}):
            points = [(c.resources, getattr(c, name)) for c in costs if c.mode == mode]
            axes.plot(*zip(*points, strict=True), marker="o", label=mode)
        axes.set(xscale="log", yscale="log", xlabel="resources", ylabel=unit)
        axes.legend()
    figure.savefig(file)
