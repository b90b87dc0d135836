"""Long-running checks of a real server, one program for all.

    python -m benchmarks.soak load|endurance|identity|uploads --models exported --photos FOLDER --label-maps FOLDER
        [--figures FILE] [--seconds N] [-- SERVER OPTIONS]
    python -m benchmarks.soak report --into docs/results/serving.md FIGURES.jsonl ...

Each starts a server with the models and the server's options, prints its figures as JSON lines, adds them to
`--figures`, and ends with exit code 1 where a check failed. Linux only: they read /proc.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.soak import endurance, identity, load, report, uploads
from benchmarks.soak.record import Record

PROGRAMS: dict[str, tuple[Callable[[argparse.Namespace, Record], None], float]] = {
    "load": (load.run, 30),
    "endurance": (endurance.run, 1500),
    "identity": (identity.run, 0),
    "uploads": (uploads.run, 0),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one program; return 0 where every check passed."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    programs = parser.add_subparsers(dest="program", required=True)
    for name, (_, seconds) in PROGRAMS.items():
        one = programs.add_parser(name)
        one.add_argument("--models", type=Path, required=True)
        one.add_argument("--photos", type=Path, required=True, help="folder of photos")
        one.add_argument("--label-maps", type=Path, required=True, help="folder of label maps that the models read")
        one.add_argument("--seconds", type=float, default=seconds, help="duration (default: %(default)s)")
        one.add_argument("--count", type=int, default=5000, help="requests of `uploads` (default: %(default)s)")
        one.add_argument("--figures", type=Path, help="file of JSON lines to add the figures to")
        one.add_argument("server", nargs="*", metavar="-- SERVER OPTIONS", help="options of `fewpair serve`")
    reporting = programs.add_parser("report", description="Write the figures into a page, between its marks.")
    reporting.add_argument("--into", type=Path, required=True)
    reporting.add_argument("figures", nargs="+", type=Path)
    chosen = parser.parse_args(arguments)
    if chosen.program == "report":
        return report.write(chosen.into, chosen.figures)
    record = Record(chosen.program, chosen.figures, arguments)
    PROGRAMS[chosen.program][0](chosen, record)
    record.add("checks", checks=record.checks)
    return 0 if all(check["passed"] for check in record.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
