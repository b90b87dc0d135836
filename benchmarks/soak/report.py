"""Writes the figures of the long proofs into a results page, from the JSON lines that they left; no figure is typed.

    python -m benchmarks.soak.report --into docs/results/serving.md FIGURES.jsonl ...

replaces what stands between the page's lines `<!-- figures -->` and `<!-- end of figures -->`. Of a command that was run several times
the last run that came to its end is shown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.experiment.markdown import BEGIN, END, replaced, table

Line = Mapping[str, Any]
_ENDS = ("verdict", "soak", "alike", "fired")  # the figure that is a run's last
_SETTINGS = {"workers": "workers", "threads a run": "threads", "runs_at_once": "runs at once", "queue": "queue"}
_WAITS = {"queue_wait": "queue wait, ms", "batch": "batch", "batch_wait": "batch wait, ms"}


def main(argv: Sequence[str] | None = None) -> int:
    """Read the figures, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("figures", nargs="+", type=Path, metavar="FIGURES.jsonl")
    asked = parser.parse_args(argv)
    lines = [json.loads(line) for file in asked.figures for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    page = replaced(asked.into.read_text(encoding="utf-8"), sections(lines))
    if page is None:
        print(f"{asked.into} has no lines {BEGIN} and {END} to write between", file=sys.stderr)
        return 2
    asked.into.write_text(page, encoding="utf-8")
    return 0


def sections(lines: Sequence[Line]) -> str:
    """A section for each program that was run, with a part for each of its runs."""
    titles: dict[str, tuple[str, Callable[[Sequence[Line]], Iterator[str]]]] = {
        "load": ("Load", _load),
        "endure": ("Soak", _endure),
        "alike": ("Memory of the soak at equal shelves", _alike),
        "identical": ("Identical answers", _identical),
        "fire": ("Strange uploads", _fire),
    }
    parts: list[str] = []
    runs = _runs(lines)
    for program, (title, write) in titles.items():
        shown = [run for run in runs if run[0]["program"] == program]
        if shown:
            parts.append(f"## {title}")
        for run in shown:
            parts += [_origin(run[0]), *write(run)]
    return "".join(f"\n{part}\n" for part in parts) + "\n"


def _runs(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines of each run that came to its end, of each command the last one."""
    runs: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        runs.setdefault((line["command"], line["began"]), []).append(line)
    last = {command: run for (command, _), run in sorted(runs.items(), key=lambda one: one[0][1]) if run[-1]["figure"] in _ENDS}
    return list(last.values())


def _origin(line: Line) -> str:
    """What was run when, of which commit, on which machine."""
    machine = line["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    of = f"{line['began'][:10]}, commit {line['commit']}. {machine['processor']}, {machine['cores']} cores"
    loaded = f"load before the run {machine['load_before']}; {machine['system']}, Python {machine['python']}"
    return f"    {line['command']}\n\n{of}, {loaded}, {versions}. CUDA execution: not shown."


def _load(run: Sequence[Line]) -> Iterator[str]:
    loops = [line for line in run if line["figure"] == "closed loop"]
    yield _settings(run[0]) + f" Asked: {run[0]['endpoint']}. Closed loop, milliseconds to a 200:"
    head = [
        "clients",
        "answers a second",
        "p50",
        "p95",
        "p99",
        "answers",
        "refused",
        "failed",
        "pictures a run",
        "server's cores",
        "clients' cores",
    ]
    yield table(
        head,
        [
            [
                str(line["clients"]),
                *(_number(line[name]) for name in ("answers_a_second", "p50_ms", "p95_ms", "p99_ms", "answers", "refused")),
                _failed(line["failed"]),
                _number(line["batch_sizes"].get("mean")),
                *(_number(line[name]) for name in ("server_cores", "clients_cores")),
            ]
            for line in loops
        ],
        words=0,
    )
    stages = list(dict.fromkeys(stage for line in loops for stage in line["stage_ms"]))
    yield "Mean milliseconds of each stage, and runs by their number of pictures:"
    yield table(
        ["clients", *stages, "runs"],
        [
            [str(line["clients"]), *(_number(line["stage_ms"].get(stage)) for stage in stages), _sizes(line["batch_sizes"])]
            for line in loops
        ],
        words=0,
    )
    for line in run:
        if line["figure"] == "overload":
            yield "Open loop:"
            yield _facts(line)
    yield _promises(run[-1])


def _facts(line: Line) -> str:
    """What came of the crowd."""
    statuses = ", ".join(f"{count} x {status}" for status, count in line["statuses"].items())
    told = {
        "capacity, answers a second": line["capacity"],
        "sent, requests a second (asked for)": f"{line['reached_rate']} ({line['asked_rate']}), at most {line['latest_ms']} ms late",
        "answers": f"{line['requests']} requests: {statuses}; connections that failed: {_failed(line['failed'])}",
        "admitted: p50, p95, p99, ms": f"{line['p50_ms']}, {line['p95_ms']}, {line['p99_ms']}",
        "bound: 3 x unloaded p99 + queue bound, ms": f"{line['bound_ms']} (unloaded p99: {line['unloaded_p99_ms']})",
        "with room / capacity for the queue bound, ms": str(line.get("bound_by_room_ms", line["bound_ms"])),
        "most inside, of room": f"{_number(line['most_inside'])} of {line['room']}",
        "refused: p50, p99, ms": f"{line['refused_p50_ms']}, {line['refused_p99_ms']}",
        "refused before the whole body was sent": line["refused_before_the_body_was_sent"],
        "normal again after, s": line["normal_after_s"],
        "cores busy: server, clients": f"{line['server_cores']}, {line['clients_cores']}",
    }
    return table(["overload", "seen"], [[name, str(value)] for name, value in told.items()], words=2)


def _endure(run: Sequence[Line]) -> Iterator[str]:
    soak = run[-1]
    yield f"{_settings(soak['settings'])} {soak['minutes']} minutes, of which {soak['warm_up_minutes']} are warm-up."
    yield _promises(soak)
    yield table(["what happened", "how often"], [[name, str(count)] for name, count in soak["counts"].items()])
    yield "Each process after its warm-up (memory in MB, 10^6 bytes; slopes by least squares; floor: of each minute's smallest RSS):"
    head = ["process", "minutes", "RSS", "a minute", "its floor", "PSS", "a minute", "own", "a minute", "open files", "a minute"]
    names = (
        "minutes",
        "rss_mb",
        "rss_mb_a_minute",
        "floor_mb_a_minute",
        "pss_mb",
        "pss_mb_a_minute",
        "uss_mb",
        "uss_mb_a_minute",
        "files",
        "files_a_minute",
    )
    yield table(head, [[life["role"], *(_number(life.get(name)) for name in names)] for life in soak["lives"]])
    summed = soak["together"]
    if summed:
        quarters = f"{summed['first_quarter_mb']:g} MB in the first quarter after the warm-up, {summed['last_quarter_mb']:g} MB in the last"
        yield f"All processes together (PSS, medians): {quarters}, {summed['mb_a_minute']:g} MB a minute between."
    left = ", ".join(f"{count} {name}" for name, count in soak["left_over"].items()) or "nothing"
    back = ", ".join(f"{seconds:g}" for seconds in soak["back_after_s"]) or "none was killed"
    yield f"Left among the temporary files: {left}. Processes in place of killed ones after (s): {back}. Tracebacks: {soak['tracebacks']}."


def _alike(run: Sequence[Line]) -> Iterator[str]:
    yield _promises(run[-1])
    yield "The worker that lives through it all: its least resident memory (MB) each time after the same change, and the slope."
    rows = [[one["after"], ", ".join(f"{held:g}" for held in one["least_mb"]), f"{one['mb_a_minute']:g}"] for one in run[-1]["shelves"]]
    yield table(["after", "least, in the order of time", "a minute"], rows)


def _identical(run: Sequence[Line]) -> Iterator[str]:
    rows = [line for line in run if "compared" in line]
    yield table(
        ["where", "requests", "answers compared", "different", "pictures a run"],
        [
            [
                line["figure"],
                *(_number(line[name]) for name in ("requests", "compared", "different")),
                _number(line.get("pictures_in_a_run", {}).get("mean")),
            ]
            for line in rows
        ],
    )
    yield _promises(run[-1])


def _fire(run: Sequence[Line]) -> Iterator[str]:
    fired = run[-1]
    statuses = ", ".join(f"{count} x {status}" for status, count in fired["statuses"].items())
    told = {
        "uploads": f"{fired['uploads']}, seeds from {fired['first']}, {fired['clients']} at a time",
        "answers": statuses,
        "seconds in all, to the slowest answer": f"{fired['seconds']}, {fired['slowest_seconds']}",
        "memory of all processes, MB (RSS), by uploads": ", ".join(f"{count}: {mb:g}" for count, mb in fired["weights_mb"]),
    }
    yield table(["corpus", "seen"], [[name, str(value)] for name, value in told.items()], words=2)
    yield _promises(fired)


def _settings(told: Line) -> str:
    shown = [f"{words} {told[name]}" for name, words in (_SETTINGS | _WAITS).items() if told.get(name) is not None]
    return f"Server: {', '.join(shown)}."


def _promises(line: Line) -> str:
    return table(
        ["promise", "held", "seen"],
        [[one["promise"], "yes" if one["held"] else "**no**", one["seen"].replace("|", "/")] for one in line["promises"]],
        words=3,
    )


def _sizes(sizes: Mapping[str, float]) -> str:
    return ", ".join(f"{count:g} of {size}" for size, count in sizes.items() if size != "mean") or "-"


def _failed(failed: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in failed.items()) or "0"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:g}"


if __name__ == "__main__":
    sys.exit(main())
