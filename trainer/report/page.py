"""Writes report.html: everything of a run, or of several side by side, in one file without links to other hosts."""

import base64
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from trainer.data.dataset import Dataset
from trainer.data.selection.rare_classes import class_pixels
from trainer.data.selection.selection import Selection
from trainer.grids import contact_sheet
from trainer.metrics.evaluate import spread
from trainer.report.advice import advice, scores
from trainer.training.checkpointing import RunDir, write_whole

BYTES, GRIDS, RECORDS, PAIRS = 2_000_000, 4, 2, 24
"""Bytes for all pictures, which base64 makes a third larger; how many grids, evaluations and pairs a run shows."""
COUNTED, POINTS = 200, 150
"""In how many label maps pixels are counted at most, and the most points of a curve; a longer one is averaged."""
SHARES = ("pixel_accuracy", "mean_class_accuracy", "mean_iou", "picture_accuracy")
"""Figures from 0 to 1, which share a chart."""


def write_report(folders: Sequence[RunDir], path: Path) -> Path:
    """Write the page of these runs. It shows pictures of the dataset, so it belongs into a run's folder."""
    runs = {str(folder.path): folder for folder in folders}
    budget = BYTES // (len(folders) * (GRIDS + RECORDS + 1))
    page = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("page.html")
    content = page.render(
        runs=[_run(folder, name, budget) for name, folder in runs.items()],
        charts=_charts({name: folder.logged() for name, folder in runs.items()}),
    )
    write_whole(path, content)
    return path


def _run(folder: RunDir, name: str, budget: int) -> dict[str, Any]:
    """What the page says of one run; its keys are used in page.html."""
    run, dataset, lines = folder.run, folder.dataset(), folder.logged()
    selection, classes = folder.selection(dataset), dataset.label_domain.classes
    pixels = pd.DataFrame(columns=classes.names if classes else ())  # a row for each pair
    if classes is not None and selection.pairs:
        labels = map(dataset.read_label, spread(selection.pairs, COUNTED))
        pixels = pd.DataFrame(class_pixels(labels, classes.count), columns=classes.names)
    paths = sorted(folder.evaluations.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    records = {path: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    paths.sort(key=lambda path: "seen_in_training" in records[path]["figures"])  # new photos say more
    grids = spread(sorted(folder.samples.glob("step-*.png")), GRIDS)
    (figure, values), machine = scores(run, lines), folder.environment()
    return {
        "name": name,
        "run": run,
        "parts": {"Run": vars(run), "Method": vars(run.config), "Environment": machine | machine.get("versions", {})},
        "on": Path(run.root).name if run.root else run.data,
        "counted": selection.counted(),
        "last": next((line for line in reversed(lines) if "peak_memory_mib" in line), None),
        "best": (figure, *max(values, key=lambda each: each[1])) if values else None,
        "notices": [line for line in lines if "notice" in line],
        "checks": sum(any(name.startswith("watch/") for name in line) for line in lines),
        "next": advice(run, lines, [records[path] for path in paths], pixels),
        "evaluations": [
            records[each] | {"grid": _picture(each.with_suffix(".png"), budget)} for each in paths[:RECORDS]
        ],
        "grids": {int(grid.stem.partition("-")[2]): _picture(grid, budget) for grid in grids},
        "pairs": _picture(_pairs(dataset, selection), budget),
        "command": shlex.join(machine.get("command", ())),
        "pixels": pixels,
    }


def _charts(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """Draw the lines of metrics.jsonl as {title: SVG}; the second run is dashed, the third dotted."""
    found: dict[str, dict[tuple[str, str], list[tuple[float, float]]]] = {}  # title -> (term, run) -> points
    for run, lines in runs.items():
        for line in lines:
            for name, value in line.items():
                group, _, term = name.partition("/")
                title, words = f"losses of the {group}", term.replace("_", " ").replace("iou", "IoU")
                if group.startswith("val"):
                    title = f"{'figures' if term in SHARES else words} on val"
                    words += " (raw weights)" if group == "val_raw" else ""
                if term and group != "watch" and term != "mean_iou_absent_as_zero":
                    found.setdefault(title, {}).setdefault((words, run), []).append((line["step"], value))
    return {title: _drawn(title, curves, list(runs)) for title, curves in found.items()}


def _drawn(title: str, curves: Mapping[tuple[str, str], Sequence[tuple[float, float]]], runs: list[str]) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    terms, content = list(dict.fromkeys(term for term, _ in curves)), io.StringIO()
    with mpl.rc_context({"svg.hashsalt": title, "svg.fonttype": "none", "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=(5.6, 3.3), layout="constrained")
        axes = figure.subplots()
        for (term, run), points in curves.items():
            parts = np.array_split(np.array(points, dtype=float), min(POINTS, len(points)))
            (line,) = axes.plot(*np.stack([part.mean(0) for part in parts]).T, ("-", "--", ":")[runs.index(run) % 3])
            line.set(color=f"C{terms.index(term) % 10}", linewidth=1.2, marker="." if len(parts) < 12 else "")
            line.set_label(term if len(runs) == 1 else f"{term}: {run}")
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue().partition("<!DOCTYPE")[2].partition(">")[2]


def _pairs(dataset: Dataset, selection: Selection) -> Image.Image | None:
    """The first labelled photos on a sheet, with the share of all photos that each stands for."""
    shown, sizes = selection.pairs[:PAIRS], selection.cluster_sizes or ()
    captions = [f"stands for {100 * size / sum(sizes):.1f} %" for size in sizes] or [""] * len(shown)
    how = {"all": "", "random": ", drawn at random"}.get(selection.rule, f", selected by the rule {selection.rule}")
    title = f"{len(shown)} of {len(selection.pairs)} labelled photos{how}"
    names = [sample.name for sample in shown]
    return contact_sheet(map(dataset.read_photo, shown), names, captions, title=title) if shown else None


def _picture(source: Path | Image.Image | None, budget: int) -> str:
    """A picture as a data URI of at most `budget` bytes, or of the smallest width; empty where there is none."""
    if source is None or (isinstance(source, Path) and not source.is_file()):
        return ""
    image = (Image.open(source) if isinstance(source, Path) else source).convert("RGB")
    for width in (1200, 900, 650, 450):
        content = io.BytesIO()
        image.thumbnail((width, 4 * width))
        image.save(content, "WEBP", quality=80)
        if content.tell() <= budget:
            break
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
