"""Writes the pages of a table from its results: Markdown beside the paper's figures, CSV, and a plot."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from trainer.errors import UserError
from trainer.experiment.markdown import BEGIN, END, replaced
from trainer.experiment.markdown import table as markdown
from trainer.experiment.plot import draw
from trainer.experiment.results import Line, Result
from trainer.experiment.tables import Setting, Table

CHECKPOINTS = {"last": "last checkpoint", "best": "checkpoint with the best result on `val`"}


def write_pages(table: Table, setting: Setting, results: Sequence[Result], folder: Path) -> list[Path]:
    """Write `<table>.md`, `.csv`, `.svg` and `.png`. Text around the generated part of an existing page is kept."""
    mine = [each for each in results if (each["table"], each["setting"]) == (table.name, setting.name)]
    lines = list(_lines(table, setting, mine))
    folder.mkdir(parents=True, exist_ok=True)
    page, sheet = folder / f"{table.name}.md", folder / f"{table.name}.csv"
    before = page.read_text(encoding="utf-8") if page.exists() else f"# {table.title}\n\n{BEGIN}\n{END}\n"
    text = replaced(before, _page(table, setting, lines, [each for each in mine if each["failed"]]))
    if text is None:
        raise UserError(f"{page} has no lines {BEGIN} and {END}: add them, or move the page away")
    page.write_text(text, encoding="utf-8")
    pd.DataFrame(list(_records(table, setting, lines))).to_csv(sheet, index=False, lineterminator="\n")
    return [page, sheet, *draw(table, setting, lines, folder / table.name)]


def _lines(table: Table, setting: Setting, results: Sequence[Result]) -> Iterator[Line]:
    """Yield the rows of a setting with their results, a line per precision; failed runs are left out."""
    for row in table.rows_of(setting):
        own = [each for each in results if each["row"] == row.name and not each["failed"]]
        own.sort(key=lambda each: each["repeat"])
        for precision in sorted({each.get("precision") or "" for each in own} or {""}):
            yield Line(row, precision, [each for each in own if (each.get("precision") or "") == precision])


def _page(table: Table, setting: Setting, lines: Sequence[Line], failed: Sequence[Result]) -> str:
    """Return the generated part of the page."""
    parts = [
        f"{table.source}.",
        f"*Claim of the paper:* {table.claim}",
        f"*Protocol of the paper:* {table.protocol}",
        *_runs_here(setting, [each for line in lines for each in line.results]),
    ]
    for split in setting.splits:
        last = ""
        for checkpoint, words in CHECKPOINTS.items():
            rows = _table(table, setting, lines, split, checkpoint, failed)
            same = rows == last
            parts.append(f"`{split}`, {words}" + (": the same." if same else ", mean ± standard deviation (runs):"))
            parts += [] if same else [rows]
            last = rows
    parts.append(f"![{table.title}]({table.name}.svg)")
    absent = [
        line.row.name for line in lines if not line.results and line.row.name not in {each["row"] for each in failed}
    ]
    if absent:
        parts.append(f"Not run: {', '.join(absent)}.")
    fewer = [
        f"{line.row.name} ({len(line.results)} of {setting.repeats_of(line.row)})"
        for line in lines
        if 0 < len(line.results) < setting.repeats_of(line.row)
    ]
    if fewer:
        parts.append(f"Fewer repeats than planned: {', '.join(fewer)}.")
    parts += [f"FAILED: {each['row']}, seed {each['repeat']}: {each['failed']}" for each in failed]
    return "\n\n".join(parts) + "\n"


def _table(
    table: Table, setting: Setting, lines: Sequence[Line], split: str, checkpoint: str, failed: Sequence[Result]
) -> str:
    headings = [metric.heading for metric in table.metrics]
    rows = []
    for line in lines:
        ours = [_spelled(line.values(metric, split, checkpoint), metric.digits) for metric in table.metrics]
        paper = line.row.paper.get(setting.figures, ("-",) * len(headings))
        rows.append([*line.row.cells, _described(line, failed), *ours, *paper])
    head = [*table.columns, "run here", *headings, *(f"paper: {heading}" for heading in headings)]
    return markdown(head, rows, words=len(table.columns) + 1)


def _spelled(values: Sequence[float], digits: int) -> str:
    """Return the mean, the sample standard deviation and the number of values: 0.312 ± 0.012 (3)."""
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation} ({len(values)})"


def _described(line: Line, failed: Sequence[Result]) -> str:
    """Return the method of a line, what it learnt from and, where it is known, the precision."""
    if not line.results:
        return "FAILED" if any(each["row"] == line.row.name for each in failed) else "not run"
    first = line.results[0]
    counts = {
        "pairs": f"{first['pairs']} {'pair' if first['pairs'] == 1 else 'pairs'}",
        "unpaired": f"{first['unpaired']} unpaired",
    }
    halves = " + ".join(words for half, words in counts.items() if half in first["reads"])
    return f"{first['method']}: {halves}" + (f", {line.precision}" if line.precision else "")


def _runs_here(setting: Setting, results: Sequence[Result]) -> list[str]:
    """Return paragraphs on the setting and on where the runs were made."""
    height, width = setting.size
    about = (
        f"*Runs here* (setting `{setting.name}`): {setting.data}, {height}x{width}, {setting.steps} steps, "
        f"batch {setting.batch}. Averaged weights, evaluated against the labels of the dataset. {setting.note}"
    ).strip()
    if not results:
        return [about, "Nothing has been run yet."]
    columns = ["repeat", "precision", "shared_with", "seconds", "cpu_seconds"]
    runs = pd.json_normalize([dict.fromkeys(columns) | each for each in results], max_level=2)

    def every(column: str) -> str:
        return ", ".join(sorted(map(str, runs[column].dropna().unique()))) if column in runs else ""

    titles = {"selection": "selection features", "judge": "judge", "features": "features of FID and KID"}
    by = [f"{title}: {every(f'judges.{name}')}" for name, title in titles.items() if every(f"judges.{name}")]
    known = ", ".join(filter(None, [every("precision"), "not recorded" if runs["precision"].isna().any() else ""]))
    place = "environment."
    own = runs[runs["shared_with"].isna()]
    return [
        about,
        f"{'; '.join([f'{len(results)} runs, seeds ' + every('repeat'), *by])}. Commit {every(place + 'commit')}; "
        f"torch {every(place + 'versions.torch')}, Python {every(place + 'python')}; {every(place + 'processor')}, "
        f"{every(place + 'cores')} cores, {every(place + 'device')}, {every(place + 'threads')} thread(s) per run, "
        f"precision {known}. Training took {own['seconds'].sum():.0f} s; training and evaluation "
        f"{own['cpu_seconds'].sum():.0f} s of CPU time.",
    ]


def _records(table: Table, setting: Setting, lines: Sequence[Line]) -> Iterator[dict[str, object]]:
    """Yield every figure in long form, with the paper's where it prints them."""
    for line in lines:
        row = line.row
        printed = dict(zip(table.metrics, row.paper.get(setting.figures, ()), strict=False))
        first = line.results[0] if line.results else {}
        about = {
            "table": table.name,
            "setting": setting.name,
            "row": row.name,
            "precision": line.precision,
            "method": row.method,
            "pairs": first.get("pairs", row.pairs),
            "unpaired": first.get("unpaired", row.unpaired),
            "rule": first.get("rule", row.rule or "-"),
            "steps": first.get("steps", ""),
        }
        if not line.results:
            absent = {"split": "", "checkpoint": "", "n": 0, "mean": "not run", "sd": ""}
            for metric, paper in printed.items():
                yield about | absent | {"figure": metric.figure, "paper": paper}
        for split in setting.splits:
            for checkpoint in CHECKPOINTS:
                for figure, values in line.figures(split, checkpoint).items():
                    yield about | {
                        "split": split,
                        "checkpoint": checkpoint,
                        "figure": figure,
                        "n": len(values),
                        "mean": repr(statistics.fmean(values)),
                        "sd": repr(statistics.stdev(values)) if len(values) > 1 else "",
                        "paper": next((paper for metric, paper in printed.items() if metric.find([figure])), ""),
                    }
