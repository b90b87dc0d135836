"""The models folder of a soak: a copy in which one model comes, changes, is half-written and goes, and what it may answer when."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.soak.exchange import Answered

VISITOR, HALF = "visitor", "half"
GONE = "gone"  # the content of a model that is not there: its requests are 404


@dataclass(frozen=True)
class Change:
    """One change of the models folder: what the visitor may be afterwards, and whether GET /v1/models may list it."""

    what: str
    contents: frozenset[str]

    @property
    def listed(self) -> frozenset[bool]:
        return frozenset(content != GONE for content in self.contents)


@dataclass
class Visitor:
    """The model `visitor`: copies of the models in `sources`, by turns. `answers`: what each source answers to each request."""

    models: Path
    sources: Sequence[Path]
    photo: bytes
    answers: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _allowed: list[tuple[float, frozenset[str]]] = field(default_factory=lambda: [(0.0, frozenset({GONE}))])

    def change(self, turn: int) -> Change:
        """Do the next change to the folder, and allow from now on what was as well as what will be."""
        first, last = self.sources[0], self.sources[-1]
        steps = (
            ("a model is added", {first.name}, lambda: self._put(first)),
            ("it is replaced", {last.name}, lambda: self._put(last)),
            ("it is touched", {last.name}, lambda: (self.models / VISITOR / "manifest.json").touch()),
            ("half a model is written", {last.name}, lambda: self._write_half(self.models / HALF, first)),
            ("half a model is written over it", {last.name, GONE}, lambda: self._write_half(self.models / VISITOR, first)),
            ("it is whole again, half a model is removed", {first.name}, self._mend),
            ("it is removed", {GONE}, lambda: shutil.rmtree(self.models / VISITOR)),
        )
        what, contents, do = steps[turn % len(steps)]
        change = Change(what, frozenset(contents))
        self._allowed.append((time.monotonic(), self._allowed[-1][1] | change.contents))
        do()
        return change

    def settled(self, change: Change) -> None:
        """Every worker has followed."""
        self._allowed.append((time.monotonic(), change.contents))

    def why_wrong(self, name: str, answered: Answered) -> str | None:
        """What is wrong with an answer of the visitor to the request of that name; None where it had such a content while it was asked."""
        allowed = set[str]()
        for index, (since, contents) in enumerate(self._allowed):
            until = self._allowed[index + 1][0] if index + 1 < len(self._allowed) else float("inf")
            if since <= answered.ended and until >= answered.began:
                allowed |= contents
        if answered.status == 404 and GONE in allowed:
            return None
        if answered.status == 200 and any(self.answers[content, name] == answered.body for content in allowed - {GONE}):
            return None
        known = [content for (content, asked), body in self.answers.items() if asked == name and body == answered.body]
        return f"status {answered.status} with the answer of {known or 'none'}, while it could be {sorted(allowed)}"

    def _put(self, source: Path) -> None:
        """As an export does: built under a name with a dot, the former one moved away, renamed."""
        built, former, place = (self.models / name for name in (f".{VISITOR}.new", f".{VISITOR}.former", VISITOR))
        shutil.copytree(source, built)
        _rename_manifest(built, VISITOR)
        if place.exists():
            place.rename(former)
        built.rename(place)
        shutil.rmtree(former, ignore_errors=True)

    def _write_half(self, place: Path, source: Path) -> None:
        """As a copy that has not come to its end: the manifest is there, of each graph the first half."""
        place.mkdir(exist_ok=True)
        shutil.copy(source / "manifest.json", place)
        _rename_manifest(place, place.name)
        for graph in source.glob("*.onnx"):
            whole = graph.read_bytes()
            (place / graph.name).write_bytes(whole[: len(whole) // 2])

    def _mend(self) -> None:
        shutil.rmtree(self.models / HALF)
        self._put(self.sources[0])


def copied(models: Path, target: Path) -> list[Path]:
    """A copy of every model of a models folder; the copies, by name."""
    shutil.copytree(models, target)
    return sorted(path for path in target.iterdir() if (path / "manifest.json").is_file())


def _rename_manifest(folder: Path, name: str) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": name}))
