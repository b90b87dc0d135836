"""What a run that draws pairs by rare classes tells of it: a table on the terminal, rare-classes.csv and rare-classes.png."""

import csv
import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trainer.data.rare_classes import Census, Likelihood, class_shares

NAME = "rare-classes"
"""The stem of the two files in a run's folder."""
TOLD = 24
"""Of more classes than these, the rarest are printed; the CSV file holds all."""
ENDS = 3
"""How many of the most and of the least likely pairs are printed."""


def report(folder: Path, census: Census, likelihood: Likelihood, *, steps: int) -> None:
    """Print the table and write both files, unless the folder holds them from before the run was interrupted."""
    chart, table = folder / f"{NAME}.png", folder / f"{NAME}.csv"
    if chart.exists() and table.exists():
        return
    print(told(census, likelihood, steps=steps), flush=True)
    _write_whole(chart, as_png(census, likelihood, steps=steps))
    _write_whole(table, as_csv(census).encode())


def told(census: Census, likelihood: Likelihood, *, steps: int) -> str:
    """The classes from the rarest on, and the most and the least likely pairs."""
    shares, holders = class_shares(census.pixels), census.holders
    order = _rarest_first(census)
    rows = [("class", "in pairs", "draws: evenly", "by class", "pixels: evenly", "by class")]
    rows += [
        (
            census.classes[each],
            f"{holders[each]} of {census.readable}",
            _percent(holders[each] / census.readable),
            _percent(census.draw_shares[each]),
            _percent(shares[each]),
            _percent(census.drawn_pixel_shares[each]),
        )
        for each in order[:TOLD]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"Pairs are drawn by the classes they hold {_when(likelihood, steps)}; each class counts alike"]
    lines += ["  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    if len(order) > TOLD:
        lines.append(f"  and {len(order) - TOLD} more common classes: see {NAME}.csv")
    absent = [name for name, count in zip(census.classes, holders, strict=True) if not count]
    if absent:
        lines.append(f"  in no pair: {', '.join(absent)}")
    return "\n".join([*lines, *_ends(census)])


def as_csv(census: Census) -> str:
    """One row a class of the table, in its order; shares from 0 to 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "pixels", "pixel_share", "pairs", "pair_share", "draw_share", "drawn_pixel_share"])
    columns = (
        census.classes,
        census.pixels.sum(0).tolist(),
        _rounded(class_shares(census.pixels)),
        census.holders.tolist(),
        _rounded(census.holders / census.readable),
        _rounded(census.draw_shares),
        _rounded(census.drawn_pixel_shares),
    )
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


def as_png(census: Census, likelihood: Likelihood, *, steps: int) -> bytes:
    """The bar chart as a PNG file: each class drawn evenly beside drawn by rare classes, and every pair's probability."""
    order = _rarest_first(census)
    names = [census.classes[each] for each in order]
    even, by_class = f"drawn evenly ({census.readable} pairs)", "drawn by the classes they hold"
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(12.6, max(3.8, 1.6 + 0.26 * len(order))), layout="constrained")
        FigureCanvasAgg(figure)
        pixels, draws, pairs = figure.subplots(1, 3)
        panels = (
            (pixels, "share of the labelled pixels (%)", class_shares(census.pixels), census.drawn_pixel_shares),
            (draws, "share of the draws that hold the class (%)", census.holders / census.readable, census.draw_shares),
        )
        places = np.arange(len(order))
        for axes, title, before, after in panels:
            axes.barh(places - 0.2, 100 * before[order], height=0.38, color="0.7", label=even)
            axes.barh(places + 0.2, 100 * after[order], height=0.38, color="C0", label=by_class)
            axes.set_yticks(places, names, parse_math=False)
            axes.set_ylim(len(order) - 0.4, -0.6)  # the rarest on top
            axes.set_xlabel(title)
            axes.grid(axis="x", alpha=0.25)
        pixels.set_xscale("log")
        pixels.set_xlim(10 ** np.floor(np.log10(pixels.get_xlim()[0])), 100)  # a log scale has no zero for bars to begin at
        pixels.xaxis.set_major_formatter("{x:g}")
        draws.set_xlim(0, 100)
        draws.set_yticklabels([])
        likely = np.sort(census.probabilities)[::-1]
        pairs.bar(np.arange(len(likely)) + 1, 100 * likely, width=0.9 if len(likely) <= 60 else 1.0, color="C0")
        pairs.axhline(100 / census.readable, color="0.4", linestyle="--", linewidth=1)
        pairs.xaxis.set_major_locator(MaxNLocator(integer=True))
        pairs.set_xlabel("pairs, the most likely first (dashed: drawn evenly)")
        pairs.set_ylabel("probability of a draw (%)")
        pairs.grid(axis="y", alpha=0.25)
        figure.suptitle(f"Rare-class sampling {_when(likelihood, steps)}")
        figure.legend(*draws.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def _ends(census: Census) -> list[str]:
    """The most and the least likely pairs, and those that are broken."""
    probabilities = census.probabilities
    order = np.argsort(-probabilities, kind="stable")
    order = order[probabilities[order] > 0]

    def line(places: np.ndarray) -> str:
        return ", ".join(f"{census.names[each]} {probabilities[each]:.4f}" for each in places)

    count = len(census.names)
    lines = [f"  most likely: {line(order[:ENDS])} (evenly: {1 / census.readable:.4f})"]
    if len(order) > ENDS:
        lines.append(f"  least likely: {line(order[ENDS:][-ENDS:])}")
    if len(order) < count:
        lines.append(f"  never drawn: {count - len(order)} of the {count} pairs, which hold no labelled pixel or are broken")
    return [*lines, *(f"  broken: {reason}" for reason in census.broken)]


def _rarest_first(census: Census) -> np.ndarray:
    """The classes that occur, by index."""
    total = census.pixels.sum(0)
    order = np.argsort(total, kind="stable")
    return order[total[order] > 0]


def _when(likelihood: Likelihood, steps: int) -> str:
    return f"in steps {likelihood.steps.start + 1} to {likelihood.steps.stop} of {steps}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _rounded(shares: np.ndarray) -> list[float]:
    return [float(f"{share:.6g}") for share in shares]


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)
