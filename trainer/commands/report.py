"""`fewpair report TABLE`: write a table's pages from its results alone; neither data nor runs are needed."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from trainer.commands.arguments import parse
from trainer.errors import UserError
from trainer.experiment.page import write_pages
from trainer.experiment.results import read_results
from trainer.experiment.tables import names, open_table


@dataclass(frozen=True)
class ReportOptions:
    """What `fewpair report` takes."""

    table: tyro.conf.Positional[str]
    """A table that ships with fewpair, or the path of a TOML file of your own."""
    results: Path
    """The results that `fewpair experiment` kept, one JSON line a run."""
    out: Path
    """The folder for TABLE.md, .csv, .svg and .png; of a page that is there only the part between its marks is replaced."""
    setting: str = "compact"
    """The scale that the runs were made at."""
    data: str | None = None
    """The dataset that the runs were made on, where it is another than the setting's."""


def report(arguments: list[str]) -> int:
    """`fewpair report TABLE`: the Markdown and CSV tables and the plot."""
    asked = parse(ReportOptions, "report", arguments, f"Write a table's pages from its results. Tables: {', '.join(names())}.")
    table = open_table(asked.table)
    if not asked.results.is_file():
        raise UserError(f"--results {asked.results}: there is no such file; `fewpair experiment {asked.table} --out FOLDER` writes one")
    results = read_results(asked.results)
    if not any(each.table == table.name for each in results):
        held = ", ".join(sorted({each.table for each in results})) or "none"
        raise UserError(f"--results {asked.results} holds no result of {table.name}; it holds {held}")
    for path in write_pages(table, table.setting(asked.setting, data=asked.data), results, asked.out):
        print(path)
    return 0
