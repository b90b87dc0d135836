"""Whether onnxruntime's threads should spin when they have nothing to do: `python -m benchmarks.spinning --models exported`.

A server keeps a session for each direction of each model, each with threads of its own. Both ways of it answer the same requests in
turn, one direction after the other, in one process; the figure is how many times as long a request takes with spinning threads (the
median of rounds that are run side by side).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.figures import Figure, report

SIZE = (128, 192)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("exported"))
    parser.add_argument("--sessions", type=int, default=99, help="at most")
    parser.add_argument("--threads", type=int, default=0, help="of a session; 0: onnxruntime's own choice")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=6, help="in a round")
    asked = parser.parse_args()
    shelves = {spin: _shelf(asked.models, spin=spin, threads=asked.threads)[: asked.sessions] for spin in (True, False)}
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(asked.rounds + 1):
        for spin in (True, False) if turn % 2 else (False, True):
            time.sleep(0.2)  # threads of the other round stop spinning
            began = time.perf_counter()
            for request in range(asked.requests):
                session, feed = shelves[spin][request % len(shelves[spin])]
                session.run(None, feed)
            if turn:  # the first warms up
                seconds[spin].append((time.perf_counter() - began) / asked.requests)
    ratios = [spinning / resting for spinning, resting in zip(seconds[True], seconds[False], strict=True)]
    of = {"sessions": len(shelves[True]), "threads": asked.threads, "rounds": asked.rounds, "size": "x".join(map(str, SIZE))}
    report("Spinning threads", [Figure("a request with spinning threads, relative to one without", statistics.median(ratios), "1", of)])


def _shelf(models: Path, *, spin: bool, threads: int) -> list[tuple[onnxruntime.InferenceSession, dict[str, Any]]]:
    drawn, shelf = np.random.default_rng(0), []
    for folder in sorted(path for path in models.iterdir() if (path / "manifest.json").exists()):
        for direction in json.loads((folder / "manifest.json").read_text())["directions"].values():
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
            session = onnxruntime.InferenceSession(folder / direction["file"], options, providers=["CPUExecutionProvider"])
            shape = (1, *SIZE, 3) if direction["input"]["layout"] == "NHWC" else (1, *SIZE)
            feed: dict[str, Any] = {direction["input"]["name"]: drawn.integers(0, 11, shape, dtype=np.uint8)}
            if direction["noise"] is not None:
                feed[direction["noise"]["name"]] = drawn.standard_normal((1, *direction["noise"]["shape"]), dtype=np.float32)
            shelf.append((session, feed))
    return shelf


if __name__ == "__main__":
    main()
