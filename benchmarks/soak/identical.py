"""Whether the same request has the same answer, byte for byte: alone, among strangers, from each of two workers, and after a restart.

    python -m benchmarks.soak.identical --models exported --photos FOLDER --label-maps FOLDER [--figures FILE] [-- SERVER OPTIONS]

On the CPU. The requests are of every kind, to every model (deck.py): both faces, all outputs and formats, seeds, count=3, several
photos, odd sizes. The answer that a fresh server with one worker gives to each of them alone is what all others are held against:
status, type, X-Seed, X-Model and body.

- alone again, on the same server;
- among strangers: several of them at a time, while other clients ask the same server for other sizes of other pictures of all models
  (with `batch = 4`; the figures say how many pictures went into a run then, so that it shows whether runs were shared);
- from two workers (`--no-ui --workers 2`), each request so often that both have answered it: the log says which did;
- after a restart;
- with another number of threads, which may change the order of sums: this is told, and promised by nobody.

The two faces, /segment and /v1/segment, are held against each other as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.soak.deck import form, get, pictures_of, same_to_both, varied
from benchmarks.soak.exchange import Address, Answered, Asked, ask
from benchmarks.soak.record import Figures, Promises
from benchmarks.soak.server import Server, batch_sizes, running

_HEADERS = ("content-type", "x-seed", "x-model", "x-tiling", "x-label-spelling")
_SHARED = ("--batch", "4")  # on the CPU nobody shares a run unless told
_MOST_ROUNDS = 60  # in which two workers have to have answered every request
Seen = tuple[int, tuple[str | None, ...], bytes]


def main(argv: Sequence[str] | None = None) -> int:
    """0 where no promised answer differed."""
    words = list(sys.argv[1:] if argv is None else argv)
    asked = _parser().parse_args(words)
    figures, promises = Figures("identical", asked.figures, words), Promises()
    photos, labels = pictures_of(asked.photos, most=asked.pictures), pictures_of(asked.label_maps, most=asked.pictures)
    compared = _Compared(figures, promises)
    with tempfile.TemporaryDirectory(prefix="fewpair-identical-") as folder:
        home = Path(folder)

        def server(name: str, *options: str, threads: int = asked.threads) -> contextlib.AbstractContextManager[Server]:
            return running(asked.models, home / name, ["--threads", str(threads), *_SHARED, *options, *asked.server], FEWPAIR_LOG="json")

        with server("first", "--no-ui") as first:
            deck = asyncio.run(_deck(first, photos, labels, deadline=asked.deadline))
            numbered = list(enumerate(deck))
            compared.references = asyncio.run(_each(first, numbered, deadline=asked.deadline))
            compared.check_references()
            compared.check_faces(deck)
            compared.hold("alone again", [asyncio.run(_each(first, numbered, deadline=asked.deadline))])
            before = first.metrics()
            rounds = asyncio.run(_among_strangers(first, deck, photos, labels, asked=asked))
            sizes = batch_sizes(before, first.metrics())
            compared.hold("among strangers", rounds, pictures_in_a_run=sizes)
            promises.hold("and runs were shared with them", (sizes.get("mean") or 0) > 1, f"{sizes}")
        with server("workers", "--no-ui", "--workers", "2") as two:
            rounds, by_worker = asyncio.run(_both_workers(two, deck, deadline=asked.deadline))
            compared.hold("from two workers", rounds, answers_by_worker=by_worker)
            both = len(by_worker) == 2 and set(by_worker.values()) == {len(deck)}
            promises.hold("both workers answered every request", both, f"{by_worker}")
        with server("again", "--no-ui") as again:
            compared.hold("after a restart", [asyncio.run(_each(again, numbered, deadline=asked.deadline))])
        if asked.other_threads:
            with server("threads", "--no-ui", threads=asked.other_threads) as other:
                seen = asyncio.run(_each(other, numbered, deadline=asked.deadline))
                compared.tell(f"with {asked.other_threads} threads instead of {asked.threads}", [seen])
    figures.add("verdict", promises=promises.made)
    return 1 if promises.broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.identical", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--label-maps", type=Path, required=True, help="a folder of label maps that the models understand")
    parser.add_argument("--pictures", type=int, default=6, help="of each folder (default: 6)")
    parser.add_argument("--threads", type=int, default=1, help="of a run (default: 1)")
    parser.add_argument("--other-threads", type=int, default=2, help="to tell whether they change answers; 0: do not ask (default: 2)")
    parser.add_argument("--strangers", type=int, default=6, help="clients that ask for other things meanwhile (default: 6)")
    parser.add_argument("--rounds", type=int, default=3, help="among strangers (default: 3)")
    parser.add_argument("--deadline", type=float, default=120, help="seconds for an answer (default: 120)")
    parser.add_argument("--figures", type=Path, help="a file of JSON lines to add the figures to")
    parser.add_argument("server", nargs="*", metavar="-- SERVER OPTIONS", help="settings of every server that is started")
    return parser


class _Compared:
    """The first answers, and every other one held against them."""

    def __init__(self, figures: Figures, promises: Promises) -> None:
        self.references: Mapping[str, Seen] = {}
        self._figures, self._promises = figures, promises

    def check_references(self) -> None:
        """An answer that is none would be equal to itself every time."""
        wrong = [f"{name}: {status} {body[:200]!r}" for name, (status, _, body) in self.references.items() if status != 200]
        self._promises.hold("every request is answered", not wrong, str(wrong or f"{len(self.references)} requests"))

    def check_faces(self, deck: Sequence[Asked]) -> None:
        """The short face and /v1 say the same."""
        pairs = same_to_both(deck)
        different = [short for short, full in pairs if self.references[short] != self.references[full]]
        self._figures.add("both faces", requests=len(pairs), compared=len(pairs), different=len(different), which=different[:10])
        self._promises.hold("both faces answer alike", not different, f"{len(different)} of {len(pairs)} differ")

    def hold(self, where: str, rounds: Sequence[Mapping[str, Seen]], **more: Any) -> None:
        """A promise."""
        different = self.tell(where, rounds, **more)
        self._promises.hold(f"equal {where}", not different, f"{len(different)} differ")

    def tell(self, where: str, rounds: Sequence[Mapping[str, Seen]], **more: Any) -> list[str]:
        """A figure; the names of the requests whose answers differ."""
        different = [name for seen in rounds for name, one in seen.items() if one != self.references[name]]
        compared = sum(len(seen) for seen in rounds)
        which = sorted(set(different))[:10]
        self._figures.add(where, requests=len(self.references), compared=compared, different=len(different), which=which, **more)
        return different


async def _deck(server: Server, photos: Sequence[Path], labels: Sequence[Path], *, deadline: float) -> list[Asked]:
    listed = await ask(Address.of(server.url), get("/v1/models"), deadline=deadline)
    return varied(json.loads(listed.body)["models"], photos, labels)


async def _each(
    server: Server, deck: Sequence[tuple[int, Asked]], *, deadline: float, at_once: int = 1, mark: str = "alone"
) -> dict[str, Seen]:
    """Every request once, so many at a time; one that finds no room comes again. `mark` and its number are its id in the log."""
    address, seen = Address.of(server.url), dict[str, Seen]()
    left = iter(deck)

    async def client() -> None:
        for number, asked in left:
            answered = await ask(address, asked, deadline=deadline, request_id=f"{mark}.{number}")
            while answered.refused:
                await asyncio.sleep(0.2)
                answered = await ask(address, asked, deadline=deadline, request_id=f"{mark}.{number}")
            seen[asked.name] = _kept(answered)

    await asyncio.gather(*(client() for _ in range(at_once)))
    return seen


def _kept(answered: Answered) -> Seen:
    body = answered.body if answered.trouble is None else answered.trouble.encode()
    return answered.status, tuple(answered.headers.get(name) for name in _HEADERS), body


async def _among_strangers(
    server: Server, deck: Sequence[Asked], photos: Sequence[Path], labels: Sequence[Path], *, asked: argparse.Namespace
) -> list[dict[str, Seen]]:
    """The requests in another order each time, four at once, while strangers ask for other pictures and seeds."""
    address, over = Address.of(server.url), asyncio.Event()
    others = await _strangers_deck(server, photos, labels, deadline=asked.deadline)

    async def stranger(start: int) -> None:
        for number in itertools.count(start * 5):
            if over.is_set():
                return
            answered = await ask(address, others[number % len(others)], deadline=asked.deadline)
            if answered.refused:
                await asyncio.sleep(0.2)

    strangers = [asyncio.create_task(stranger(number)) for number in range(asked.strangers)]
    rounds = []
    for number in range(asked.rounds):
        shuffled = random.Random(number).sample(list(enumerate(deck)), len(deck))
        rounds.append(await _each(server, shuffled, deadline=asked.deadline, at_once=4))
    over.set()
    await asyncio.gather(*strangers)
    return rounds


async def _strangers_deck(server: Server, photos: Sequence[Path], labels: Sequence[Path], *, deadline: float) -> list[Asked]:
    """Other pictures and seeds than those that are compared, to all models; also the very same pictures."""
    listed = json.loads((await ask(Address.of(server.url), get("/v1/models"), deadline=deadline)).body)["models"]
    found = [asked for asked in varied(listed, photos[::-1], labels[::-1]) if "polygons" not in asked.name]
    for card in listed:
        if "to_photo" in card["directions"]:
            found += [
                form(
                    f"stranger {card['name']} {seed}", "/synthesize", [("map.png", label.read_bytes())], model=card["name"], seed=100 + seed
                )
                for seed, label in enumerate(labels)
            ]
    return found


async def _both_workers(server: Server, deck: Sequence[Asked], *, deadline: float) -> tuple[list[dict[str, Seen]], dict[int, int]]:
    """Ask until each of the two workers has answered every request; the answers, and by worker how many requests it answered."""
    rounds: list[dict[str, Seen]] = []
    left = list(range(len(deck)))
    for number in range(_MOST_ROUNDS):
        some = [(index, deck[index]) for index in left]
        rounds.append(await _each(server, some, deadline=deadline, at_once=8, mark=f"round.{number}"))
        answered = list(_answered_by(server).values())
        left = [index for index in left if len(answered) < 2 or any(str(index) not in requests for requests in answered)]
        if not left:
            break
        await asyncio.sleep(0.1)
    return rounds, {worker: len(requests) for worker, requests in _answered_by(server).items()}


def _answered_by(server: Server) -> dict[int, set[str]]:
    """The requests that each worker has answered, by the server's log."""
    found: dict[int, set[str]] = {}
    for line in server.said().splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            told = json.loads(line)
            mark, number, request = told["request_id"].split(".")
            if mark == "round" and number.isdigit() and told["status"] == 200:
                found.setdefault(told["pid"], set()).add(request)
    return found


if __name__ == "__main__":
    sys.exit(main())
