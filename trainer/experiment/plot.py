"""The plot of a table: quality against the number of pairs with error bars, ours beside the paper's."""

import re
from collections.abc import Callable, Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

from trainer.experiment.summary import Line
from trainer.experiment.tables import Metric, Setting, Table

Point = tuple[float, float]
"""A mean and half the length of its error bar; not a number where there is none, as of a single run."""

NUMBER = re.compile(r"[0-9]*\.?[0-9]+")


def draw(table: Table, setting: Setting, lines: Sequence[Line], stem: Path) -> list[Path]:
    """Write `<stem>.svg` and `<stem>.png`: one panel for each split, and one for the paper. Only figures are drawn, never a photo."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = table.metrics[-1]
    panels: list[tuple[str, Callable[[Line], Point | None]]] = [
        (f"here: {setting.data} {split}", lambda line, split=split: _ours(line, metric, split))  # type: ignore[misc]
        for split in setting.splits
    ]
    place = len(table.metrics) - 1
    panels.append(("the paper", lambda line: _printed(line.row.paper.get(setting.figures or "", ()), place)))
    with mpl.rc_context({"svg.hashsalt": table.name, "font.size": 9}):
        figure = Figure(figsize=(4.2 * len(panels), 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        by_pairs = any(line.row.series for line in lines)
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, value) in zip(all_axes, panels, strict=True):
            if by_pairs:
                _curves(axes, table.columns, lines, value)
                axes.set_ylabel(metric.heading)
            else:
                _bars(axes, lines, value)
                axes.set_xlabel(metric.heading)
            axes.set_title(title)
        figure.suptitle(f"{table.title} ({setting.size[0]}x{setting.size[1]}, {setting.steps} steps; mean ± standard deviation)")
        handles: dict[str, Any] = {}
        for axes in all_axes:
            handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        if handles:
            figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
        written = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
        figure.savefig(written[0], metadata={"Date": None})
        figure.savefig(written[1], dpi=110)
    return written


def _curves(axes: Any, columns: Sequence[str], lines: Sequence[Line], value: Callable[[Line], Point | None]) -> None:
    """A curve for each series over the number of pairs, and a level for each row outside of them."""
    names = list(dict.fromkeys(line.row.series for line in lines if line.row.series))
    for number, name in enumerate(names):
        members = [(line.row.pairs, value(line)) for line in lines if line.row.series == name and isinstance(line.row.pairs, int)]
        points = sorted((pairs, point) for pairs, point in members if point is not None)
        if points:
            axes.errorbar(
                [pairs for pairs, _ in points],
                [point[0] for _, point in points],
                yerr=[point[1] for _, point in points],
                marker="o",
                markersize=4,
                capsize=3,
                color=f"C{number}",
                label=name,
            )
    for number, line in enumerate([line for line in lines if not line.row.series], len(names)):
        point = value(line)
        if point is not None:
            label = ", ".join(f"{column.lower()} {cell}" for column, cell in zip(columns, line.row.cells, strict=True) if cell != "-")
            axes.axhline(point[0], color=f"C{number}", linestyle="--", linewidth=1, label=label)
            if not isnan(point[1]):
                axes.axhspan(point[0] - point[1], point[0] + point[1], color=f"C{number}", alpha=0.12, linewidth=0)
    axes.set_xscale("symlog", linthresh=1)
    counts = sorted({line.row.pairs for line in lines if line.row.series and isinstance(line.row.pairs, int)})
    axes.set_xlim(-0.3 if counts[0] == 0 else 0.8 * counts[0], 1.25 * counts[-1])
    ticks = counts[:1]
    for each in counts[1:]:
        if each >= 1.6 * ticks[-1]:  # nearer ones would be written over each other
            ticks.append(each)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("pairs")
    axes.grid(alpha=0.25)


def _bars(axes: Any, lines: Sequence[Line], value: Callable[[Line], Point | None]) -> None:
    """A bar for each row, where the rows are not a matter of numbers."""
    points = [value(line) for line in lines]
    places = [place for place, point in enumerate(points) if point is not None]
    found = [point for point in points if point is not None]
    axes.barh(places, [point[0] for point in found], xerr=[point[1] for point in found], capsize=3, color="C0", alpha=0.7)
    axes.set_yticks(range(len(lines)), [" | ".join(line.row.cells) for line in lines])
    axes.invert_yaxis()


def _ours(line: Line, metric: Metric, split: str) -> Point | None:
    spread = line.spread(metric, split, "last")
    return None if spread is None else (spread.mean, nan if spread.deviation is None else spread.deviation)


def _printed(figures: Sequence[str], place: int) -> Point | None:
    """ "0.405 ± 0.152" as numbers; None where the paper has no such row, or a dash in this column."""
    found = NUMBER.findall(figures[place]) if figures else []
    if not found:
        return None
    mean, *rest = found
    return float(mean), float(rest[0]) if rest else nan
