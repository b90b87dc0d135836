"""What spinning threads of onnxruntime cost a server: `python -m benchmarks.sessions --models exported`.

A server keeps a session for each direction of each model, each with threads of its own. Sessions whose threads spin
while they have nothing to do, and sessions whose threads rest, answer the same requests in turn, one direction after
the other, in one process. The figure is how many times as long a request takes with spinning threads: the median of
rounds that are run side by side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.figures import Figure, report

SIZE = (128, 192)
Session = tuple[onnxruntime.InferenceSession, dict[str, Any], str]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("exported"))
    parser.add_argument("--sessions", type=int, default=99, help="at most")
    parser.add_argument("--threads", type=int, default=0, help="of a session; 0: onnxruntime's own choice")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=6, help="in a round")
    asked = parser.parse_args()
    of = {"threads": asked.threads, "rounds": asked.rounds, "size": "x".join(map(str, SIZE))}
    spinning = _ratio(_opened(asked, spin=True), _opened(asked, spin=False), asked)
    report("Sessions", [Figure("a request with spinning threads, relative to one without", spinning, "1", of)])


def _ratio(one: Sequence[Session], other: Sequence[Session], asked: argparse.Namespace) -> float:
    """How many times as long a request to the one takes: the median over rounds."""
    ratios = []
    for turn in range(asked.rounds + 1):
        took = {}
        for which in (0, 1) if turn % 2 else (1, 0):
            time.sleep(0.2)  # threads of the other round stop spinning
            began = time.perf_counter()
            for request in range(asked.requests):
                session, feed, _ = (one, other)[which][request % len(one)]
                session.run(None, feed)
            took[which] = time.perf_counter() - began
        if turn:  # the first warms up
            ratios.append(took[0] / took[1])
    return statistics.median(ratios)


def _opened(asked: argparse.Namespace, *, spin: bool) -> list[Session]:
    drawn = np.random.default_rng(0)
    shelf: list[Session] = []
    for folder in sorted(path for path in asked.models.iterdir() if (path / "manifest.json").exists()):
        for direction in json.loads((folder / "manifest.json").read_text())["directions"].values():
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = asked.threads
            options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
            session = onnxruntime.InferenceSession(
                folder / direction["file"], options, providers=["CPUExecutionProvider"]
            )
            picture = direction["input"]["name"]
            shape = (1, *SIZE, 3) if direction["input"]["layout"] == "NHWC" else (1, *SIZE)
            feed: dict[str, Any] = {picture: drawn.integers(0, 11, shape, dtype=np.uint8)}
            if direction["noise"] is not None:
                feed[direction["noise"]["name"]] = drawn.standard_normal(
                    (1, *direction["noise"]["shape"]), dtype=np.float32
                )
            shelf.append((session, feed, picture))
    return shelf[: asked.sessions]


if __name__ == "__main__":
    main()
