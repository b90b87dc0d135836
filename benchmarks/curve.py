"""Writes how a figure of runs grows with the number of their pairs: a table between a page's markers, and a plot.

python -m benchmarks.curve RUN ... --into docs/results/camvid.md --plot docs/labels.svg
"""

import argparse
import json
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.model_page import between_markers

SPLITS = {"val": "#0f766e", "devtest": "#b45309"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--plot", type=Path, required=True)
    options = parser.parse_args()
    found = []
    for run in options.runs:
        config = json.loads((run / "config.json").read_text())
        files = [run / "evaluation" / f"{split}-last-averaged.json" for split in SPLITS]
        found.append((config["pairs"], *(json.loads(file.read_text())["figures"]["mean_iou"] for file in files)))
    found.sort()
    rows = [f"| {pairs} | {val:.3f} | {devtest:.3f} |" for pairs, val, devtest in found]
    between_markers(options.into, "curve", "\n".join(["| pairs | val | devtest |", "| ---: | ---: | ---: |", *rows]))
    mpl.rcParams["svg.hashsalt"] = "fewpair"
    figure = Figure((6, 3), layout="constrained")
    axes = figure.subplots()
    for column, (split, colour) in enumerate(SPLITS.items(), 1):
        axes.plot([row[0] for row in found], [row[column] for row in found], "o-", color=colour, label=split)
    axes.set(xscale="log", xlabel="labelled photos", ylabel="mean IoU", ylim=(0, None))
    axes.set_xticks([row[0] for row in found], [str(row[0]) for row in found], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(options.plot, metadata={"Date": None} if options.plot.suffix == ".svg" else None, dpi=150)


if __name__ == "__main__":
    main()
