"""Writes the figures of a run's evaluations into a results page, between its markers; no figure is typed.

python -m benchmarks.model_page RUN --into docs/results/camvid.md --splits devtest val
"""

import argparse
import json
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures of {name} -->", "<!-- end of {name} -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--splits", nargs="+", required=True)
    parser.add_argument("--checkpoint", default="last")
    parser.add_argument("--suffix", default="", help="what an evaluation's file name has after -averaged")
    options = parser.parse_args()
    evaluations = {
        split: json.loads(
            (options.run / "evaluation" / f"{split}-{options.checkpoint}-averaged{options.suffix}.json").read_text()
        )
        for split in options.splits
    }
    between_markers(options.into, options.run.name, table(evaluations))


def between_markers(page: Path, name: str, text: str) -> None:
    """Replace what a page has between the markers of this name."""
    begin, end = (mark.format(name=name) for mark in (BEGIN, END))
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"{page} has no lines {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def table(evaluations: dict[str, dict[str, Any]]) -> str:
    """A Markdown table: a row for each figure, a column for each split."""
    figures = {split: evaluation["figures"] for split, evaluation in evaluations.items()}
    first = next(iter(figures.values()))
    rows = [["figure", *figures]]
    for name in (name for name, value in first.items() if isinstance(value, int | float)):
        rows.append([name.replace("_", " "), *(_number(each[name]) for each in figures.values())])
    for name in next(iter(evaluations.values())).get("baselines", {}):
        values = (evaluation["baselines"][name]["mean_iou"] for evaluation in evaluations.values())
        rows.append([f"mean IoU of the baseline: {name.replace('_', ' ')}", *map(_number, values)])
    for name in first.get("per_class_iou", {}):
        rows.append([f"IoU of {name}", *(_number(each["per_class_iou"][name]) for each in figures.values())])
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "| --- " + "| ---: " * len(figures) + "|", *body])


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    main()
