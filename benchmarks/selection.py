"""Time and memory of `fewpair pairs` on a large set of small photos, in a process of its own.

python -m benchmarks.selection --photos 100000 --k 20 [--features extractor.onnx] [--folder FOLDER]

Without --features the extractor is a toy made here: patch means through a fixed random matrix to 2048 values, as many
as ResNet-50 has. It keeps the contract of a real one and costs next to nothing: reading, cache, clustering and medoids
are what is measured.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks.figures import Figure, report

SIDE = 64
"""Height and width of a drawn photo."""
PATCH = 32
"""Side of the patches that the toy extractor averages over, of 224."""
TABLE = "id,name,r,g,b,ignore\n0,thing,128,128,128,0\n"


def main() -> None:
    """Draw, choose, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--rule", default="kmeans-medoid")
    parser.add_argument("--features", type=Path)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep photos and features here, and go on from what is there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        drawing = draw(folder / "set", asked.photos)
        extractor = asked.features or toy_extractor(folder / "toy.onnx", dimensions=asked.dimensions)
        out = folder / f"pairs-{time.time_ns()}.json"
        begun = time.monotonic()
        subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "trainer",
                    "pairs",
                    "--data",
                    "folders",
                    "--root",
                    folder / "set",
                    "--unlabelled",
                ),
                *(
                    "--k",
                    str(asked.k),
                    "--rule",
                    asked.rule,
                    "--features",
                    extractor,
                    "--device",
                    "cpu",
                    "--threads",
                    str(asked.threads),
                ),
                *("--out", out, "--cache", folder / "features"),
            ],
            check=True,
        )
        seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    of = {
        "photos": asked.photos,
        "k": asked.k,
        "rule": asked.rule,
        "extractor": extractor.stem,
        "threads": asked.threads,
    }
    report(
        "fewpair pairs",
        [
            Figure("peak memory of the process", peak, "MiB", of),
            Figure("fewpair pairs", seconds, "s", of, note=f"drawing the photos took {drawing:.0f} s more"),
        ],
    )


def draw(root: Path, count: int) -> float:
    """`count` JPEG photos of 64x64, each of one of 50 kinds of coloured blocks with noise of its own; returns the
    seconds it took.
    """
    begun = time.monotonic()
    kinds = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3))
    for number in range(count):
        path = root / "photos" / f"{number // 1000:04d}" / f"{number:07d}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            numbers = np.random.default_rng([1, number])
            small = kinds[numbers.integers(50)] + numbers.normal(0, 25, (4, 4, 3))
            blocks = Image.fromarray(np.clip(small, 0, 255).astype(np.uint8)).resize(
                (SIDE, SIDE), Image.Resampling.BILINEAR
            )
            blocks.save(path, quality=85)
    (root / "classes.csv").write_text(TABLE)
    return time.monotonic() - begun


def toy_extractor(path: Path, *, dimensions: int) -> Path:
    """An ONNX file with the contract of a feature extractor: patch means, a fixed random matrix, ReLU."""
    values = 3 * (224 // PATCH) ** 2
    weights = np.random.default_rng(0).normal(0, values**-0.5, (values, dimensions)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["image"], ["means"], kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["mixed"]),
        helper.make_node("Relu", ["mixed"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 3, 224, 224])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", dimensions])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


if __name__ == "__main__":
    main()
