"""The shipped models in onnxruntime: the CUDA provider against the CPU provider, and how long an answer takes."""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, report

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
IDS_TOLERANCE = 1e-3
VALUES_TOLERANCE = 1e-3


def main() -> int:
    """Measure every model in the folder; 1 where the providers disagree by more than the contract allows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="whose latency is measured")
    parser.add_argument("--models", type=Path, default=Path("exported"), help="the folder of models")
    parser.add_argument("--quick", action="store_true", help="few runs: shows that it works")
    asked = parser.parse_args()
    folders = sorted(path.parent for path in asked.models.glob("*/manifest.json"))
    if not folders:
        print(f"\nNo model lies in {asked.models}: latency and parity of models are skipped. `make demo` makes one.")
        return 0
    if importlib.util.find_spec("onnxruntime") is None:
        print("\nThis Python has no onnxruntime: latency and parity of models are skipped.")
        return 0
    import onnxruntime

    if asked.device == "cuda":
        if CUDA not in onnxruntime.get_available_providers():
            print(
                f"\nonnxruntime {onnxruntime.__version__} of this Python has no {CUDA} (it needs onnxruntime-gpu): "
                "its parity and latency are skipped. CUDA execution of the exported models: not shown."
            )
            return 0
        onnxruntime.preload_dlls(directory="")
    figures, agree = [], True
    for folder in folders:
        found, equal = measure(folder, asked.device, runs=5 if asked.quick else 100)
        figures += found
        agree = agree and equal
    report(f"Exported models, onnxruntime {onnxruntime.__version__}, one picture at a time", figures)
    return 0 if agree else 1


def measure(folder: Path, device: str, *, runs: int) -> tuple[list[Figure], bool]:
    """Latency of each direction on the device, and how far its answers are from the CPU's."""
    import onnxruntime

    manifest = json.loads((folder / "manifest.json").read_text())
    height, width = _size(manifest)
    figures, agree = [], True
    for direction, spec in manifest["directions"].items():
        of = {"model": manifest["name"], "direction": direction, "size": f"{height}x{width}", "provider": device}
        feed = pictures(manifest, spec, height=height, width=width)
        reference = onnxruntime.InferenceSession(str(folder / spec["file"]), providers=[CPU])
        session = reference
        if device == "cuda":
            session = onnxruntime.InferenceSession(str(folder / spec["file"]), providers=[CUDA, CPU])
            if session.get_providers()[0] != CUDA:
                why = "onnxruntime fell back to the CPU: the CUDA libraries do not load"
                figures.append(Figure("latency", None, "ms", of, note=why))
                agree = False
                continue
        times = []
        for turn in range(runs + 3):
            began = time.perf_counter()
            answers = session.run(None, feed)
            if turn >= 3:
                times.append(1000 * (time.perf_counter() - began))
        figures.append(Figure("latency", statistics.median(times), "ms", of))
        figures.append(Figure("latency, 95th percentile", float(np.percentile(times, 95)), "ms", of))
        if device == "cuda":
            for output, answer, wanted in zip(spec["outputs"], answers, reference.run(None, feed), strict=True):
                difference, tolerance, what = _difference(output["kind"], answer, wanted)
                agree = agree and difference <= tolerance
                note = None if difference <= tolerance else f"over the contract's {tolerance:g}"
                figures.append(Figure(f"{what} of {output['name']} against the CPU", difference, "1", of, note=note))
    return figures, agree


def pictures(manifest: dict[str, Any], spec: dict[str, Any], *, height: int, width: int) -> dict[str, np.ndarray]:
    """A direction's inputs: a synthetic scene or its label in the model's ids, and noise where the graph takes it."""
    from trainer.data.synthetic import scenes

    photo, label = scenes.draw(0, height=height, width=width)
    feed: dict[str, np.ndarray] = {}
    if spec["input"]["kind"] == "label":
        ids = np.array(
            [row["id"] for row in manifest["domains"]["label"]["classes"] if not row["ignore"]], dtype=np.uint8
        )
        feed[spec["input"]["name"]] = ids[label % len(ids)][None]
    else:
        feed[spec["input"]["name"]] = photo[None]
    if spec["noise"] is not None:
        shape = (1, *spec["noise"]["shape"])
        feed[spec["noise"]["name"]] = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return feed


def _difference(kind: str, answer: np.ndarray, wanted: np.ndarray) -> tuple[float, float, str]:
    if kind == "label":
        return float((answer != wanted).mean()), IDS_TOLERANCE, "share of pixels with another class"
    apart = np.abs(answer.astype(int) - wanted.astype(int)) > 1
    return float(apart.mean()), VALUES_TOLERANCE, "share of values over one level apart"


def _size(manifest: dict[str, Any]) -> tuple[int, int]:
    resize = manifest["resize"]
    unit = manifest["multiple_of"]
    height, width = resize["height"] or 128, resize["width"] or 192
    return -(-height // unit) * unit, -(-width // unit) * unit


if __name__ == "__main__":
    sys.exit(main())
