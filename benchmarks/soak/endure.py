"""Whether a server with two workers stays as it is for a long time, while everything happens to it that may: a real server, started here.

    python -m benchmarks.soak.endure --minutes 20 --models exported --photos FOLDER --label-maps FOLDER --out FOLDER [--figures FILE]
        [-- SERVER OPTIONS]

The models are copied. Steady clients ask for the same things over and over and hold every answer against the first, byte by byte.
Beside them: bad uploads (benchmarks/soak/uploads.py), reloads after a model was added, replaced, touched, half-written and removed,
jobs, and a SIGKILL to the younger worker now and then. Promises:

- nothing is lost: the only requests without an answer are those that were under way to a worker when it was killed; a job is done in
  any case;
- equal requests have equal answers, half a model never answers, no worker stays behind after a reload, killed workers are replaced;
- memory is flat: of every process that lives for `--least-minutes` after the warm-up, resident memory grows by less than 1 MB (10^6
  bytes) a minute (least squares over all samples). Only the younger worker is killed, so that the other lives through it all. Told
  beside it, and promised by nobody, for kills make them jump: the same of the workers that came back, each after a warm-up of its own;
  the slope of each minute's smallest value; and the sum over all processes, as medians of the first and the last quarter after the
  warm-up;
- no file descriptors leak: nobody asks anything for a moment after the warm-up and at the end, and no process holds more then than
  before, but for `--spare-files` that are opened once;
- no temporary files are left when the server has stopped, those of killed workers included: BentoML keeps a folder for each request that
  a worker ever had at a time, and one more, and a killed worker takes none of them along.

FOLDER gets samples.csv (memory and open files of each process, every 5 s), events.jsonl and server.log while it runs. Ctrl-C ends it
early, in order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from benchmarks.soak import actors
from benchmarks.soak.actors import ADMIN_TOKEN, Soak
from benchmarks.soak.deck import form, get, pictures_of, varied
from benchmarks.soak.exchange import Asked, ask
from benchmarks.soak.record import Figures, Promises
from benchmarks.soak.samples import Samples, leaked, stretches, together
from benchmarks.soak.server import running
from benchmarks.soak.shelves import VISITOR, Visitor, copied

_MOST = 1.0  # MB a minute
_OPTIONS = ("--no-ui", "--workers", "2")
_TOLD = ("workers", "threads a run", "runs_at_once", "queue", "queue_wait", "batch", "batch_wait")


def main(argv: Sequence[str] | None = None) -> int:
    """0 where every promise held."""
    words = list(sys.argv[1:] if argv is None else argv)
    asked = _parser().parse_args(words)
    asked.out.mkdir(parents=True, exist_ok=True)
    figures, promises = Figures("endure", asked.figures, words), Promises()
    home = Path(tempfile.mkdtemp(prefix="fewpair-endure-"))
    try:
        sources = copied(asked.models, home / "models")
        variables = {"FEWPAIR_ADMIN_TOKEN": ADMIN_TOKEN, "FEWPAIR_JOBS": str(home / "jobs")}
        with running(home / "models", home, [*_OPTIONS, *asked.server], **variables) as server:
            samples, events = Samples(server, asked.out / "samples.csv"), _Events(asked.out / "events.jsonl")
            soak = Soak(server, asked.deadline, events.tell)
            try:
                warm = asyncio.run(_soak(soak, samples, sources, asked=asked))
            finally:
                samples.close()
                shutil.copy(home / "server.log", asked.out)
            settings = server.settings()
            code = server.stop()
            shutil.copy(home / "server.log", asked.out)
            left = server.left_over()
        _judge(soak, samples, asked=asked, warm=warm, left=left, code=code, settings=settings, figures=figures, promises=promises)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 1 if promises.broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.endure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20, help="with the warm-up (default: 20)")
    parser.add_argument("--warm-up", type=float, default=5, metavar="MINUTES", help="that do not count for memory (default: 5)")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--label-maps", type=Path, required=True, help="a folder of label maps that the models understand")
    parser.add_argument("--out", type=Path, required=True, help="a folder for samples.csv, events.jsonl and server.log")
    parser.add_argument("--clients", type=int, default=4, help="steady clients (default: 4)")
    parser.add_argument("--reload-every", type=float, default=60, metavar="SECONDS")
    parser.add_argument("--kill-every", type=float, default=120, metavar="SECONDS")
    parser.add_argument("--job-every", type=float, default=45, metavar="SECONDS")
    parser.add_argument("--sample-every", type=float, default=5, metavar="SECONDS")
    parser.add_argument("--least-minutes", type=float, default=5, help="that a slope has to be taken over to count (default: 5)")
    parser.add_argument("--life-warm-up", type=float, default=60, metavar="SECONDS", help="of a worker that came back (default: 60)")
    parser.add_argument("--spare-files", type=int, default=2, help="file descriptors more that count as no leak (default: 2)")
    parser.add_argument("--settle", type=float, default=3, metavar="SECONDS", help="of rest before files are counted (default: 3)")
    parser.add_argument("--first-upload", type=int, default=100_000, help="the seed of the first bad upload (default: 100000)")
    parser.add_argument("--deadline", type=float, default=120, help="seconds after which an answer counts as a hang (default: 120)")
    parser.add_argument("--figures", type=Path, help="a file of JSON lines to add the figures to")
    parser.add_argument("server", nargs="*", metavar="-- SERVER OPTIONS", help="settings of the server, beside --no-ui --workers 2")
    return parser


class _Events:
    """What happened when, as JSON lines, at once."""

    def __init__(self, file: Path) -> None:
        self._file, self._began = file, time.monotonic()
        file.write_text("")

    def tell(self, event: str, **values: Any) -> None:
        line = json.dumps({"seconds": round(time.monotonic() - self._began, 2), "event": event, **values}, ensure_ascii=False)
        print(line, flush=True)
        with self._file.open("a", encoding="utf-8") as out:
            out.write(line + "\n")


async def _soak(soak: Soak, samples: Samples, sources: Sequence[Path], *, asked: argparse.Namespace) -> float:
    """Let it all happen; when the warm-up was over, in seconds of the samples. Interrupted, it comes to its end at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, soak.ended.set)
    photos, labels = pictures_of(asked.photos, most=6), pictures_of(asked.label_maps, most=6)
    visitor = Visitor(soak.server.home / "models", sources, photos[0].read_bytes())
    people = await _people(soak, visitor, photos, labels, asked=asked)
    samples.take()
    tasks = [asyncio.create_task(one) for one in people]
    watching = asyncio.create_task(_watch(soak, samples, tasks, every=asked.sample_every))
    await soak.rest(60 * asked.warm_up)
    async with soak.pause(settle=asked.settle):
        samples.take(quiet=True)
    warm = samples.seconds
    await soak.rest(60 * (asked.minutes - asked.warm_up))
    async with soak.pause(settle=asked.settle):
        samples.take(quiet=True)
        soak.ended.set()
    await asyncio.gather(*tasks, watching, return_exceptions=True)  # _watch has told of those that failed
    return warm


async def _people(
    soak: Soak, visitor: Visitor, photos: Sequence[Path], labels: Sequence[Path], *, asked: argparse.Namespace
) -> list[Coroutine[Any, Any, None]]:
    """Everybody who will ask, after the first answers were taken while nobody else did."""
    listed = await ask(soak.address, get("/v1/models"), deadline=soak.deadline)
    deck = varied(json.loads(listed.body)["models"], photos, labels)
    visits = _visits(visitor, photos, labels)
    of_job = [(photo.name, photo.read_bytes()) for photo in photos[:3]]
    told = {"model": visitor.sources[0].name, "output": "colours"}
    for one in deck:
        soak.compare(one.name, await ask(soak.address, one, deadline=soak.deadline), who="before")
    for (source, name), request in visits.items():
        answered = await ask(soak.address, request, deadline=soak.deadline)
        visitor.answers[source, name] = answered.body
    expected = await ask(soak.address, form("job", "/v1/segment", of_job, **told), deadline=soak.deadline)
    job = form("job", "/v1/jobs", of_job, operation="segment", **told)
    asks_visitor = [
        one for (source, _), one in _visits(visitor, photos, labels, model=VISITOR).items() if source == visitor.sources[0].name
    ]
    return [
        *(actors.steady_client(soak, deck, seed=seed) for seed in range(asked.clients)),
        actors.stranger(soak, first=asked.first_upload, pause=0.1),
        actors.visitors_client(soak, visitor, asks_visitor, seed=0),
        actors.operator(soak, visitor, every=asked.reload_every),
        actors.killer(soak, every=asked.kill_every),
        actors.job_sender(soak, job, expected=expected.body, every=asked.job_every),
    ]


def _visits(visitor: Visitor, photos: Sequence[Path], labels: Sequence[Path], *, model: str | None = None) -> dict[tuple[str, str], Asked]:
    """What the visitor is asked, by source and name; `model` is asked instead of the sources. None of the answers holds a model's name."""
    found: dict[tuple[str, str], Asked] = {}
    for source in visitor.sources:
        directions = json.loads((source / "manifest.json").read_text())["directions"]
        who = model or source.name
        if "to_label" in directions:
            found[source.name, "visitor's label map"] = form(
                "visitor's label map", "/segment", [(photos[0].name, photos[0].read_bytes())], model=who
            )
        if "to_photo" in directions:
            sent = [(labels[0].name, labels[0].read_bytes())]
            found[source.name, "visitor's photo"] = form("visitor's photo", "/v1/synthesize", sent, model=who, seed=5, format="png")
    return found


async def _watch(soak: Soak, samples: Samples, tasks: Sequence[asyncio.Task[None]], *, every: float) -> None:
    """Sample, and end it all where somebody stops who should not."""
    ticks = 0
    while not soak.ended.is_set():
        if soak.going.is_set():
            await asyncio.to_thread(samples.take)
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                soak.wrong(f"the soak itself failed: {task.exception()!r}")
                soak.ended.set()
        ticks += 1
        if ticks % max(1, round(60 / every)) == 0:
            soak.tell("counts", **soak.counts)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(soak.ended.wait(), every)


def _judge(
    soak: Soak,
    samples: Samples,
    *,
    asked: argparse.Namespace,
    warm: float,
    left: dict[str, int],
    code: int,
    settings: dict[str, str],
    figures: Figures,
    promises: Promises,
) -> None:
    ends = max(one.seconds for one in samples.taken)
    lives = stretches(samples.taken, after=warm, warm_up=asked.life_warm_up, until=ends)
    whole = [life for life in lives if life["minutes"] >= asked.least_minutes]
    summed = together(samples.taken, after=warm, until=ends)
    more = leaked(samples.taken)
    promises.hold("nothing is lost, and nothing else goes wrong", not soak.faults, f"{len(soak.faults)} faults {soak.faults[:3] or ''}")
    compared, different = soak.counts["answers compared"], soak.counts["different answers"]
    promises.hold("equal requests have equal answers", different == 0 and compared > 0, f"{different} of {compared} differ")
    steepest = max((life["rss_mb_a_minute"] for life in whole), default=None)
    promises.hold(
        f"memory grows by less than {_MOST:g} MB a minute in every process",
        steepest is not None and steepest < _MOST and any(life["role"] == "worker" for life in whole),
        f"{steepest} MB a minute at most, over {[life['minutes'] for life in whole]} minutes",
    )
    promises.hold("no file descriptors leak", bool(more) and max(more.values()) <= asked.spare_files, f"{more} more, by process")
    promises.hold("no temporary files are left", not left, f"{left or 'none'} left after {len(soak.kills)} kills")
    promises.hold(
        "every killed worker was replaced",
        len(soak.returns) >= len(soak.kills) - 1,
        f"{len(soak.kills)} kills, back after {soak.returns} s",
    )
    promises.hold("the server stopped in order", code == 0, f"exit code {code}")
    figures.add(
        "soak",
        settings={name: settings.get(name) for name in _TOLD},
        minutes=round(ends / 60, 2),
        warm_up_minutes=round(warm / 60, 2),
        counts=dict(sorted(soak.counts.items())),
        faults=soak.faults[:20],
        lives=lives,
        together=summed,
        more_files=more,
        left_over=left,
        back_after_s=soak.returns,
        tracebacks=(asked.out / "server.log").read_text(errors="replace").count("Traceback (most recent call last)"),
        promises=promises.made,
    )


if __name__ == "__main__":
    sys.exit(main())
