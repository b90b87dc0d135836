"""The plot of a table: the last metric against the number of pairs, with error bars, beside the paper's figures."""

import re
from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

from trainer.experiment.results import Line, Summary
from trainer.experiment.tables import Setting, Table


def draw(table: Table, setting: Setting, lines: Sequence[Line], path: Path) -> None:
    """Write an SVG file: one panel per split, and one for the paper."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    metric = table.metrics[-1]
    panels = {
        f"here: {setting.data} {split}": [line.summary(metric, split, "last") for line in lines]
        for split in setting.splits
    }
    panels["the paper"] = [_printed(line.row.paper.get(setting.figures, ())) for line in lines]
    with mpl.rc_context({"svg.hashsalt": table.name, "font.size": 9}):
        figure = Figure(figsize=(4.2 * len(panels), 3.8), layout="constrained")
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        labels: dict[str, Any] = {}
        for axes, (title, points) in zip(all_axes, panels.items(), strict=True):
            if any(line.row.series for line in lines):
                _curves(axes, table, lines, points)
                axes.set_ylabel(metric.heading)
            else:
                names = [" | ".join(line.row.cells) for line in lines]
                means, deviations, _ = zip(*points, strict=True)
                axes.barh(names, means, xerr=deviations, capsize=3, color="C0", alpha=0.7)
                axes.invert_yaxis()
                axes.set_xlabel(metric.heading)
            axes.set_title(title)
            labels |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        size = f"{setting.size[0]}x{setting.size[1]}"
        figure.suptitle(f"{table.title} ({size}, {setting.steps} steps; mean ± standard deviation)")
        if labels:
            columns = min(4, len(labels))
            figure.legend(labels.values(), labels, loc="outside lower center", ncols=columns, frameon=False)
        figure.savefig(path, metadata={"Date": None})


def _curves(axes: Any, table: Table, lines: Sequence[Line], points: Sequence[Summary]) -> None:
    """Draw a curve per series over the number of pairs, and a horizontal line for each other row."""
    curves: dict[str, list[tuple[int, Summary]]] = {}
    for place, (line, point) in enumerate(zip(lines, points, strict=True)):
        if line.row.series and isinstance(line.row.pairs, int):
            label = " ".join(filter(None, (line.row.series, line.precision)))
            curves.setdefault(label, []).append((line.row.pairs, point))
        elif not isnan(point.mean):
            cells = zip(table.columns, line.row.cells, strict=True)
            label = ", ".join(f"{column.lower()} {cell}" for column, cell in cells if cell != "-")
            axes.axhline(point.mean, color=f"C{place}", linestyle="--", linewidth=1, label=label)
    for number, (label, curve) in enumerate(curves.items()):
        measured = sorted((pairs, *point) for pairs, point in curve if not isnan(point.mean))
        if measured:
            pairs, means, deviations, _ = zip(*measured, strict=True)
            style = {"label": label, "color": f"C{number}", "marker": "o", "markersize": 4, "capsize": 3}
            axes.errorbar(pairs, means, deviations, **style)
    axes.set_xscale("symlog", linthresh=1)
    counts = sorted({count for curve in curves.values() for count, _ in curve})
    ticks = [count for place, count in enumerate(counts) if place == 0 or count >= 1.6 * counts[place - 1]]
    axes.set_xticks(ticks, ticks)
    axes.minorticks_off()
    axes.set_xlabel("pairs")
    axes.grid(alpha=0.25)


def _printed(figures: Sequence[str]) -> Summary:
    """Return the last printed figure, "0.405 ± 0.152", as numbers."""
    found = map(float, re.findall(r"[0-9]*\.?[0-9]+", figures[-1]) if figures else ())
    mean, deviation, *_ = (*found, nan, nan)
    return Summary(mean, deviation)
