"""The pages of a table: Markdown beside the paper's figures, CSV with every figure, and a plot. No figure in them is typed."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from trainer.errors import UserError
from trainer.experiment.markdown import BEGIN, END, replaced
from trainer.experiment.markdown import table as markdown
from trainer.experiment.plot import draw
from trainer.experiment.results import Result
from trainer.experiment.summary import CHECKPOINTS, Line, Spread, summarise
from trainer.experiment.tables import Setting, Table


def write_pages(table: Table, setting: Setting, results: Sequence[Result], folder: Path) -> list[Path]:
    """Write `<table>.md`, `.csv`, `.svg` and `.png` into the folder; of an old page the part between its marks is replaced."""
    lines, stale = summarise(table, setting, results)
    folder.mkdir(parents=True, exist_ok=True)
    page, sheet = folder / f"{table.name}.md", folder / f"{table.name}.csv"
    before = page.read_text(encoding="utf-8") if page.exists() else f"# {table.title}\n\n{BEGIN}\n{END}\n"
    text = replaced(before, figures(table, setting, lines, stale))
    if text is None:
        raise UserError(f"{page} has no lines {BEGIN} and {END} to write between: add them, or move the page away")
    page.write_text(text, encoding="utf-8")
    sheet.write_text(comma_separated(table, setting, lines), encoding="utf-8")
    return [page, sheet, *draw(table, setting, lines, folder / table.name)]


def figures(table: Table, setting: Setting, lines: Sequence[Line], stale: int = 0) -> str:
    """The generated part of the page."""
    parts = [f"{table.source}.", f"*The paper's claim:* {table.claim}", f"*Its protocol:* {table.protocol}", *_here(setting, lines)]
    for split in setting.splits:
        shown: str | None = None
        for checkpoint, when in CHECKPOINTS.items():
            rows = _table(table, setting, lines, split, checkpoint)
            if rows == shown:
                parts.append(f"`{split}`, {when}: the same.")
                continue
            parts += [f"`{split}`, {when}, mean ± standard deviation (runs):", rows]
            shown = rows
    parts.append(f"![{table.title}]({table.name}.svg)")
    parts += _omissions(lines, stale)
    return "\n\n".join(parts) + "\n"


def comma_separated(table: Table, setting: Setting, lines: Sequence[Line]) -> str:
    """Every scalar figure of every row, checkpoint and split, in long form; the paper's beside those that it prints."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "table",
            "setting",
            "row",
            "method",
            "pairs",
            "unpaired",
            "rule",
            "steps",
            "split",
            "checkpoint",
            "figure",
            "n",
            "mean",
            "sd",
            "paper",
        ]
    )
    for line in lines:
        row = line.row
        printed = row.paper.get(setting.figures or "", ())
        what: list[object] = [table.name, setting.name, row.name, row.method]
        if not line.results:
            state = "failed" if line.failed else "not run"
            for metric, figure in zip(table.metrics, printed, strict=False):
                writer.writerow([*what, row.pairs, row.unpaired, row.rule or "-", "", "", "", metric.figure, 0, state, "", figure])
            continue
        first = line.results[0]
        what += [first.pairs, first.unpaired, first.rule, first.steps]
        for split in setting.splits:
            for checkpoint in CHECKPOINTS:
                found = [result.figures.get(checkpoint, {}).get(split, {}) for result in line.results]
                paper = {metric.find(found[0]): figure for metric, figure in zip(table.metrics, printed, strict=False)}
                for name in dict.fromkeys(name for each in found for name, value in each.items() if isinstance(value, float)):
                    spread = Spread(tuple(float(each[name]) for each in found if each.get(name) is not None))
                    deviation = "" if spread.deviation is None else repr(spread.deviation)
                    writer.writerow([*what, split, checkpoint, name, len(spread.values), repr(spread.mean), deviation, paper.get(name, "")])
    return out.getvalue()


def _table(table: Table, setting: Setting, lines: Sequence[Line], split: str, checkpoint: str) -> str:
    head = [
        *table.columns,
        "run here",
        *(metric.heading for metric in table.metrics),
        *(f"paper: {each.heading}" for each in table.metrics),
    ]
    rows = []
    for line in lines:
        spreads = [line.spread(metric, split, checkpoint) for metric in table.metrics]
        ours = ["-" if spread is None else spread.spelled(metric.digits) for spread, metric in zip(spreads, table.metrics, strict=True)]
        paper = line.row.paper.get(setting.figures or "", ("-",) * len(table.metrics))
        rows.append([*line.row.cells, line.described(), *ours, *paper])
    return markdown(head, rows, words=len(table.columns) + 1)


def _here(setting: Setting, lines: Sequence[Line]) -> list[str]:
    """What these runs are, and where they were made."""
    results = [result for line in lines for result in line.results]
    height, width = setting.size
    text = f"*Here* (setting `{setting.name}`): {setting.data}, {height}x{width}, {setting.steps} steps, batch {setting.batch}"
    told = [f"{text}. The averaged weights are judged by the labels of the dataset. {setting.note}".strip()]
    if not results:
        return [*told, "Nothing of it has been run yet."]
    judges = {
        what: sorted({str(each.judges[what]) for each in results if what in each.judges}) for what in ("selection", "judge", "features")
    }
    words = {
        "selection": "pairs were selected on features of",
        "judge": "photos were judged by",
        "features": "sets of photos were compared on features of",
    }
    by = "; ".join(f"{words[what]} {', '.join(names)}" for what, names in judges.items() if names)
    seeds = sorted({each.repeat for each in results})
    places = [each.environment for each in results]

    def all_of(name: str) -> str:
        return ", ".join(sorted({str(place.get(name)) for place in places if place.get(name) is not None}))

    versions = sorted(
        {f"{name} {place['versions'][name]}" for place in places for name in ("torch", "fewpair") if name in place.get("versions", {})}
    )
    taken = sum(each.seconds or 0 for each in results if each.shared_with is None)
    spent = sum(each.cpu_seconds or 0 for each in results if each.shared_with is None)
    told.append(
        f"{len(results)} runs, seeds {', '.join(map(str, seeds))}"
        + (f"; {by}" if by else "")
        + f". Commit {all_of('commit')}; {', '.join(versions)}, Python {all_of('python')}; {all_of('processor')}, {all_of('cores')} cores, "
        f"{all_of('device')}, {all_of('threads')} thread(s) a run. "
        f"Training took {taken:.0f} s in all by the clock; training and judging {spent:.0f} s of processor time."
    )
    return told


def _omissions(lines: Sequence[Line], stale: int) -> list[str]:
    told = []
    missing = [line.row.name for line in lines if not line.results and not line.failed]
    fewer = [f"{line.row.name} ({len(line.results)} of {line.planned})" for line in lines if 0 < len(line.results) < line.planned]
    if missing:
        told.append(f"Not run: {', '.join(missing)}.")
    if fewer:
        told.append(f"Fewer repeats than the setting asks for: {', '.join(fewer)}.")
    told += [f"FAILED: {result.name}: {result.failed}" for line in lines for result in line.failed]
    shared = sorted({f"{result.name} = {result.shared_with}" for line in lines for result in line.results if result.shared_with})
    if shared:
        told.append(f"Shared with other tables, and run once: {'; '.join(shared)}.")
    if stale:
        told.append(f"{stale} results were made from another version of their row and are left out.")
    return told
