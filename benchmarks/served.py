"""Compare a running server's label maps with those of `fewpair evaluate`, pixel by pixel.

python -m benchmarks.served RUN --model NAME --split devtest --url http://127.0.0.1:3000
"""

import argparse
import io
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image

from benchmarks.figures import Figure, report
from trainer.data.dataset import resized
from trainer.metrics.evaluate import labelled
from trainer.metrics.predict import predict_labels
from trainer.metrics.segmentation import Confusion
from trainer.training.checkpointing import load_method, open_run


def main() -> None:
    """Ask the server for every photo of the split, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--split", default="devtest")
    parser.add_argument("--checkpoint", default="best")
    parser.add_argument("--url", default="http://127.0.0.1:3000")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    method, run, step = load_method(asked.run, checkpoint=asked.checkpoint)
    dataset = open_run(asked.run).dataset()
    classes = dataset.label_domain.classes
    if dataset.root is None or classes is None:
        raise SystemExit(f"{dataset.name} keeps no photo files with class labels: there is nothing to send")
    equal, worst, total = 0, 1.0, 0
    counted = Confusion(classes)
    samples = labelled(dataset, asked.split)
    with httpx.Client(base_url=asked.url, timeout=60) as client:
        for sample in samples:
            photo = dataset.read_photo(sample)
            expected = classes.index_to_id()[
                resized(predict_labels(method, [photo], size=run.size)[0], photo.shape[:2])
            ]
            sent = (dataset.root / str(sample.photo)).read_bytes()
            response = client.post(
                "/segment", files={"image": sent}, data={"model": asked.model, "output": "ids"}
            ).raise_for_status()
            answer = np.asarray(Image.open(io.BytesIO(response.content)))
            same = answer == expected
            equal, total, worst = equal + int(same.sum()), total + same.size, min(worst, float(same.mean()))
            counted.add(dataset.read_label(sample), classes.id_to_index()[answer])
    of = {"model": asked.model, "run step": step, "split": asked.split, "photos": len(samples)}
    report(
        "Over HTTP beside fewpair evaluate",
        [
            Figure("equal pixels", equal / total, "1", of),
            Figure("equal pixels, worst photo", worst, "1", of),
            Figure("mean IoU over HTTP", counted.mean_iou, "1", of),
        ],
    )


if __name__ == "__main__":
    main()
