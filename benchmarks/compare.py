"""Writes the table that compares runs into a results page, from files of training and evaluation.

    python -m benchmarks.compare --into docs/results/PAGE.md --splits val devtest -- RUN:CHECKPOINT ...

replaces what stands between the page's lines `<!-- figures -->` and `<!-- end of figures -->`.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.experiment.report import BEGIN, END, markdown, replaced


@dataclass(frozen=True)
class Row:
    """One checkpoint of one run, as its evaluations found it."""

    name: str
    config: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]
    seconds: float
    memory: int
    discriminators: dict[str, float]
    """The discriminators' mean losses over the last quarter of the steps before the checkpoint."""

    @property
    def title(self) -> str:
        return f"{self.name} @ {self.first['step']}"

    @property
    def first(self) -> dict[str, Any]:
        """One of its evaluations: what they all say of the run."""
        return next(iter(self.evaluations.values()))


def main() -> None:
    """Read the runs, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--splits", nargs="+", required=True)
    parser.add_argument("runs", nargs="+", metavar="RUN:CHECKPOINT")
    asked = parser.parse_args()
    rows = [read(word, asked.splits) for word in asked.runs]
    page = replaced(asked.into.read_text(), tables(rows, asked.splits))
    if page is None:
        raise SystemExit(f"{asked.into} has no lines {BEGIN} and {END} to write between")
    asked.into.write_text(page)


def read(word: str, splits: Sequence[str]) -> Row:
    """A run's checkpoint with its evaluations on these splits, of the averaged weights."""
    folder, _, checkpoint = word.rpartition(":")
    path = Path(folder)
    evaluations = {}
    for split in splits:
        file = path / "evaluation" / f"{split}-{checkpoint}-averaged.json"
        if not file.exists():
            raise SystemExit(
                f"{file} is missing; write it with: fewpair evaluate {path} --split {split} --checkpoint {checkpoint}"
            )
        evaluations[split] = json.loads(file.read_text())
    step = evaluations[splits[0]]["step"]
    logged = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    at = next(line for line in logged if line["step"] == step and "peak_memory_mib" in line)
    late = [line for line in logged if 0.75 * step < line["step"] <= step]
    names = sorted({name for line in late for name in line if "discriminator" in name.partition("/")[0]})
    discriminators = {name: statistics.mean(line[name] for line in late if name in line) for name in names}
    return Row(
        path.name,
        json.loads((path / "config.json").read_text()),
        evaluations,
        at["seconds"],
        at["peak_memory_mib"],
        discriminators,
    )


def tables(rows: Sequence[Row], splits: Sequence[str]) -> str:
    """The figures, then the IoU of each class, for each split."""
    text = [
        markdown(
            ["run", "method", "labels as", "pairs + unpaired", "step of", "training s a step", "peak MiB"],
            [described(row) for row in rows],
        )
    ]
    for split in splits:
        count = rows[0].evaluations[split]["figures"]["samples"]
        figures = [[row.title, *headline(row.evaluations[split]["figures"])] for row in rows]
        figures += [[name.replace("_", " "), *headline(values)] for name, values in baselines(rows, split).items()]
        text.append(f"\n`{split}`, {count} photos:\n")
        text.append(
            markdown(["run @ step", "pixel accuracy", "mean class accuracy", "mean IoU", "photo PSNR dB"], figures)
        )
        names = list(rows[0].evaluations[split]["figures"]["per_class_iou"])
        found = [(row.title, row.evaluations[split]["figures"]["per_class_iou"]) for row in rows]
        classes = [[title, *(number(figures[name]) for name in names)] for title, figures in found]
        text.append(f"\nIoU by class on `{split}`:\n")
        text.append(markdown(["run @ step", *names], classes))
    losses = [
        [row.title, "; ".join(f"{name} {value:.3f}" for name, value in row.discriminators.items())]
        for row in rows
        if row.discriminators
    ]
    text.append("\nDiscriminators' losses, mean over the last quarter of the steps:\n")
    text.append(markdown(["run @ step", "group/loss"], losses))
    return "\n".join(text) + "\n"


def described(row: Row) -> list[str]:
    """What a run is."""
    first = row.first
    spelling = row.config["config"].get("label_as", "classes")
    return [
        row.name,
        first["method"],
        spelling,
        f"{first['pairs']} + {first['unpaired']}",
        f"{first['step']} of {first['steps']}",
        f"{row.seconds / first['step']:.2f}",
        str(row.memory),
    ]


def headline(figures: dict[str, Any]) -> list[str]:
    """A row's main figures."""
    return [number(figures.get(name)) for name in ("pixel_accuracy", "mean_class_accuracy", "mean_iou")] + [
        "-" if figures.get("photo_psnr") is None else f"{figures['photo_psnr']:.2f}"
    ]


def baselines(rows: Sequence[Row], split: str) -> dict[str, dict[str, Any]]:
    """Return the baselines of the first run that has them; all runs here share their pairs."""
    return next((row.evaluations[split]["baselines"] for row in rows if row.evaluations[split]["baselines"]), {})


def number(value: float | None) -> str:
    """Three digits, without the zero in front."""
    return "-" if value is None else f"{value:.3f}".removeprefix("0")


if __name__ == "__main__":
    main()
