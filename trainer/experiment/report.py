"""Writes the pages of a table from its results: Markdown and CSV beside the paper's figures, and a plot."""

from collections.abc import Iterator, Sequence
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import pandas as pd

from trainer.data.layouts.files import number_of
from trainer.errors import UserError
from trainer.experiment.plot import draw
from trainer.experiment.results import Line, Result, Summary
from trainer.experiment.tables import Row, Setting, Table

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
CHECKPOINTS = {"last": "last checkpoint", "best": "checkpoint with the best result on `val`"}


def write_pages(table: Table, setting: Setting, results: Sequence[Result], folder: Path) -> list[Path]:
    """Write `<table>.md`, `.csv` and `.svg`. Text around the generated part of an existing page is kept."""
    mine = [each for each in results if (each["table"], each["setting"]) == (table.name, setting.name)]
    lines = [line for row in table.rows_of(setting) for line in _lines(row, mine)]
    folder.mkdir(parents=True, exist_ok=True)
    page, sheet, plot = (folder / f"{table.name}.{kind}" for kind in ("md", "csv", "svg"))
    before = page.read_text(encoding="utf-8") if page.exists() else f"# {table.title}\n\n{BEGIN}\n{END}\n"
    failures = [f"FAILED: {each['row']}, seed {each['repeat']}: {each['failed']}" for each in mine if each["failed"]]
    text = replaced(before, "\n\n".join([*_paragraphs(table, setting, lines), *failures]) + "\n")
    if text is None:
        raise UserError(f"{page} has no lines {BEGIN} and {END}: add them, or move the page away")
    page.write_text(text, encoding="utf-8")
    pd.DataFrame(list(_records(table, setting, lines))).to_csv(sheet, index=False, lineterminator="\n")
    draw(table, setting, lines, plot)
    return [page, sheet, plot]


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
    counts = {"pairs": number_of(first["pairs"], "pair"), "unpaired": f"{first['unpaired']} unpaired"}
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

    def every(name: str, values: Sequence[dict[str, Any]] = results) -> str:
        return ", ".join(sorted({str(each[name]) for each in values if each.get(name) is not None}))

    judges, places = ([each.get(name, {}) for each in results] for name in ("judges", "environment"))
    titles = {"selection": "selection features", "judge": "judge", "features": "features of FID and KID"}
    by = [f"{title}: {every(name, judges)}" for name, title in titles.items() if every(name, judges)]
    unknown = "not recorded" if any(each.get("precision") is None for each in results) else ""
    torch = every("torch", [each.get("versions", {}) for each in places])
    own = [each for each in results if each.get("shared_with") is None]
    seconds, cpu_seconds = (sum(each.get(name) or 0 for each in own) for name in ("seconds", "cpu_seconds"))
    yield (
        f"{'; '.join([f'{len(results)} runs, seeds ' + every('repeat'), *by])}. Commit {every('commit', places)}; "
        f"torch {torch}, Python {every('python', places)}; {every('processor', places)}, {every('cores', places)} "
        f"cores, {every('device', places)}, {every('threads', places)} thread(s) per run, precision "
        f"{', '.join(filter(None, [every('precision'), unknown]))}. Training took {seconds:.0f} s; training and "
        f"evaluation {cpu_seconds:.0f} s of CPU time."
    )


def _records(table: Table, setting: Setting, lines: Sequence[Line]) -> Iterator[dict[str, object]]:
    """Yield the figures of the table, with the paper's where it prints them."""
    for line, split, checkpoint in product(lines, setting.splits, CHECKPOINTS):
        for metric, paper in zip_longest(table.metrics, line.row.paper.get(setting.figures, ())):
            mean, deviation, runs = line.summary(metric, split, checkpoint)
            yield {
                "row": line.row.name,
                "run_here": _described(line),
                "split": split,
                "checkpoint": checkpoint,
                "figure": metric.heading,
                "runs": runs,
                "mean": mean,
                "sd": deviation,
                "paper": paper,
            }


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """Return a Markdown table; the first `words` columns are left-aligned, the others right-aligned."""
    lines = [head, ["---"] * words + ["---:"] * (len(head) - words), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replaced(page: str, figures: str) -> str | None:
    """Return the page with `figures` between the lines BEGIN and END, or None if it has no such lines."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    return f"{before}{BEGIN}\n{figures}{END}{after}" if found and ended else None
