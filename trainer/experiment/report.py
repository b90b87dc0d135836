"""Writes the pages of a table from its results: Markdown beside the paper's figures, CSV, and a plot."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from trainer.errors import UserError
from trainer.experiment.markdown import BEGIN, END, replaced
from trainer.experiment.markdown import table as markdown
from trainer.experiment.plot import draw
from trainer.experiment.results import Line, Result, Summary
from trainer.experiment.tables import Row, Setting, Table

CHECKPOINTS = {"last": "last checkpoint", "best": "checkpoint with the best result on `val`"}


def write_pages(table: Table, setting: Setting, results: Sequence[Result], folder: Path) -> list[Path]:
    """Write `<table>.md`, `.csv`, `.svg` and `.png`. Text around the generated part of an existing page is kept."""
    mine = [each for each in results if (each["table"], each["setting"]) == (table.name, setting.name)]
    lines = [line for row in table.rows_of(setting) for line in _lines(row, mine)]
    folder.mkdir(parents=True, exist_ok=True)
    page, sheet = folder / f"{table.name}.md", folder / f"{table.name}.csv"
    before = page.read_text(encoding="utf-8") if page.exists() else f"# {table.title}\n\n{BEGIN}\n{END}\n"
    failures = [f"FAILED: {each['row']}, seed {each['repeat']}: {each['failed']}" for each in mine if each["failed"]]
    text = replaced(before, "\n\n".join([*_paragraphs(table, setting, lines), *failures]) + "\n")
    if text is None:
        raise UserError(f"{page} has no lines {BEGIN} and {END}: add them, or move the page away")
    page.write_text(text, encoding="utf-8")
    pd.DataFrame(list(_records(table, setting, lines))).to_csv(sheet, index=False, lineterminator="\n")
    return [page, sheet, *draw(table, setting, lines, folder / table.name)]


def _lines(row: Row, results: Sequence[Result]) -> Iterator[Line]:
    """Yield the row with its results, a line per precision; failed runs are left out."""
    runs = sorted((each for each in results if each["row"] == row.name), key=lambda each: each["repeat"])
    done: dict[str, list[Result]] = {}
    for each in runs:
        if not each["failed"]:
            done.setdefault(each.get("precision") or "", []).append(each)
    for precision, own in sorted(done.items()) or [("", [])]:
        yield Line(row, precision, own, any(each["failed"] for each in runs))


def _paragraphs(table: Table, setting: Setting, lines: Sequence[Line]) -> Iterator[str]:
    """Yield the generated part of the page."""
    yield f"{table.source}."
    yield f"*Claim of the paper:* {table.claim}"
    yield f"*Protocol of the paper:* {table.protocol}"
    yield from _runs_here(setting, [each for line in lines for each in line.results])
    for split in setting.splits:
        before = ""
        for checkpoint, words in CHECKPOINTS.items():
            rows = _table(table, setting, lines, split, checkpoint)
            if rows == before:
                yield f"`{split}`, {words}: the same."
            else:
                yield f"`{split}`, {words}, mean ± standard deviation (runs):\n\n{rows}"
            before = rows
    yield f"![{table.title}]({table.name}.svg)"
    counts = [(line, len(line.results), setting.repeats_of(line.row)) for line in lines]
    fewer = [f"{line.row.name} ({count} of {planned})" for line, count, planned in counts if 0 < count < planned]
    absent = [line.row.name for line, count, _ in counts if not count and not line.failed]
    for words, names in (("Not run", absent), ("Fewer repeats than planned", fewer)):
        if names:
            yield f"{words}: {', '.join(names)}."


def _table(table: Table, setting: Setting, lines: Sequence[Line], split: str, checkpoint: str) -> str:
    headings = [metric.heading for metric in table.metrics]
    rows = []
    for line in lines:
        ours = [_spelled(line.summary(metric, split, checkpoint), metric.digits) for metric in table.metrics]
        paper = line.row.paper.get(setting.figures, ("-",) * len(headings))
        rows.append([*line.row.cells, _described(line), *ours, *paper])
    head = [*table.columns, "run here", *headings, *(f"paper: {heading}" for heading in headings)]
    return markdown(head, rows, words=len(table.columns) + 1)


def _spelled(figure: Summary, digits: int) -> str:
    """Return the mean, the sample standard deviation and the number of values: 0.312 ± 0.012 (3)."""
    deviation = f" ± {figure.deviation:.{digits}f}" if figure.runs > 1 else ""
    return f"{figure.mean:.{digits}f}{deviation} ({figure.runs})" if figure.runs else "-"


def _described(line: Line) -> str:
    """Return the method of a line, what it learnt from and, where it is known, the precision."""
    if not line.results:
        return "FAILED" if line.failed else "not run"
    first = line.results[0]
    counts = {
        "pairs": f"{first['pairs']} {'pair' if first['pairs'] == 1 else 'pairs'}",
        "unpaired": f"{first['unpaired']} unpaired",
    }
    halves = " + ".join(words for half, words in counts.items() if half in first["reads"])
    return f"{first['method']}: {halves}" + (f", {line.precision}" if line.precision else "")


def _runs_here(setting: Setting, results: Sequence[Result]) -> Iterator[str]:
    """Yield paragraphs on the setting and on where the runs were made."""
    height, width = setting.size
    yield (
        f"*Runs here* (setting `{setting.name}`): {setting.data}, {height}x{width}, {setting.steps} steps, "
        f"batch {setting.batch}. Averaged weights, evaluated against the labels of the dataset. {setting.note}"
    ).strip()
    if not results:
        yield "Nothing has been run yet."
        return
    columns = ["repeat", "precision", "shared_with", "seconds", "cpu_seconds"]
    runs = pd.json_normalize([dict.fromkeys(columns) | each for each in results], max_level=2)

    def every(column: str) -> str:
        return ", ".join(sorted(map(str, runs[column].dropna().unique()))) if column in runs else ""

    titles = {"selection": "selection features", "judge": "judge", "features": "features of FID and KID"}
    by = [f"{title}: {every(f'judges.{name}')}" for name, title in titles.items() if every(f"judges.{name}")]
    known = ", ".join(filter(None, [every("precision"), "not recorded" if runs["precision"].isna().any() else ""]))
    place = "environment."
    own = runs[runs["shared_with"].isna()]
    yield (
        f"{'; '.join([f'{len(results)} runs, seeds ' + every('repeat'), *by])}. Commit {every(place + 'commit')}; "
        f"torch {every(place + 'versions.torch')}, Python {every(place + 'python')}; {every(place + 'processor')}, "
        f"{every(place + 'cores')} cores, {every(place + 'device')}, {every(place + 'threads')} thread(s) per run, "
        f"precision {known}. Training took {own['seconds'].sum():.0f} s; training and evaluation "
        f"{own['cpu_seconds'].sum():.0f} s of CPU time."
    )


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
        for split, checkpoint in product(setting.splits, CHECKPOINTS):
            for figure, found in line.figures(split, checkpoint).items():
                yield about | {
                    "split": split,
                    "checkpoint": checkpoint,
                    "figure": figure,
                    "n": found.runs,
                    "mean": repr(found.mean),
                    "sd": repr(found.deviation) if found.runs > 1 else "",
                    "paper": next((paper for metric, paper in printed.items() if metric.find([figure])), ""),
                }
