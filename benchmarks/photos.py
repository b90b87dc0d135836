"""Measures photos of exported models beside the real photos of the same label maps, into a table of a results page.

python -m benchmarks.photos exported/camvid-painter exported/camvid-hybrid-compact --data camvid --root CAMVID \
    --features mobilenet_v2_features.onnx --splits val devtest --into docs/results/camvid.md

All photos are compared at 96x128, box-filtered, whatever a model's size: KID (enlarged to 224x224); the spectral energy
at periods of 2, 4 and 8 pixels relative to the real photos'; mean level and mean chroma (largest minus smallest
channel) in levels of 0 to 255. Noise is drawn with seed 0. With --own-style each photo has the style that the model
reads in the real one, instead of noise: what would be left of the distance if the label map told the light.
--bound puts real photos of `train` in the place of generated ones: all of them, and for each photo of the split the
nearest one in the features that are compared.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from benchmarks.model_page import between_markers
from trainer.batch import random
from trainer.data.catalogue import open_dataset
from trainer.data.dataset import Dataset, resized
from trainer.metrics.distribution import compare_sets, open_extractor
from trainer.metrics.evaluate import classes_of, labelled
from trainer.metrics.judge import FcnScore, open_judge

SIZE = (96, 128)
PERIODS = {"2": (0.42, 0.5), "4": (0.21, 0.29), "8": (0.105, 0.145)}
"""The cycles a pixel that count as a period of so many pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--splits", nargs="+", required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--own-style", action="store_true")
    parser.add_argument("--bound", action="store_true")
    parser.add_argument("--judge", type=Path, help="an exported segmenter: its mean IoU on the photos, into a table")
    options = parser.parse_args()
    extractor = open_extractor(options.features)
    dataset = open_dataset(options.data, options.root)
    judge = options.judge and open_judge(options.judge, dataset.label_domain.classes)
    judged = ["| photos | split | the judge's mean IoU | on the real photos |", "| --- | --- | ---: | ---: |"]
    lines = [
        "| photos | split | photos | KID | energy at 2, 4, 8 px | mean level (real) | mean chroma (real) |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]

    def features(pictures: np.ndarray) -> np.ndarray:
        return extractor.of_pictures(enlarged(pictures)).astype(np.float64)

    def compare(name: str, split: str, pictures: np.ndarray, real: np.ndarray) -> None:
        kid = compare_sets(features(pictures), features(real))["kid"]
        ratios = ", ".join(f"{one / other:.2f}" for one, other in zip(energy(pictures), energy(real), strict=True))
        level, chroma = (f"{of(pictures):.0f} ({of(real):.0f})" for of in (np.mean, mean_chroma))
        lines.append(f"| {name} | {split} | {len(real)} | {kid:.2f} | {ratios} | {level} | {chroma} |")
        print(lines[-1], flush=True)

    for split in options.splits:
        real = real_photos(dataset, split)
        for model in options.models:
            name = f"`{model.name}`" + (" in the style of each real photo" if options.own_style else "")
            pictures = list(generated(model, dataset, split, own_style=options.own_style))
            compare(name, split, np.stack([_small(each) for each in pictures]), real)
            if judge:
                score = FcnScore(judge, classes_of(dataset.label_domain))
                for picture, sample in zip(pictures, labelled(dataset, split), strict=True):
                    photo = resized(dataset.read_photo(sample), picture.shape[:2])
                    score.add(picture, photo, dataset.read_label(sample))
                made, there = (score.figures()[f"{kind}_mean_iou"] for kind in ("judge", "judge_on_real"))
                judged.append(f"| {name} | {split} | {made:.3f} | {there:.3f} |")
        if options.bound and split != "train":
            known = real_photos(dataset, "train")
            distances = np.linalg.norm(features(real)[:, None] - features(known)[None], axis=-1)
            compare(f"all {len(known)} real photos of `train`", split, known, real)
            compare("the nearest real photo of `train` to each", split, known[distances.argmin(1)], real)
    marker = "bound" if options.bound else "own-style" if options.own_style else "photos"
    between_markers(options.into, marker, "\n".join(lines))
    if judge:
        between_markers(options.into, "judged", "\n".join(judged))


def real_photos(dataset: Dataset, split: str) -> np.ndarray:
    """The photos that have a label map, uint8[N,96,128,3]."""
    return np.stack([_small(dataset.read_photo(sample)) for sample in labelled(dataset, split)])


def generated(model: Path, dataset: Dataset, split: str, *, own_style: bool) -> Iterator[np.ndarray]:
    """A generated photo for each label map of the split, uint8[H,W,3] at the model's size."""
    manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
    direction = manifest["directions"]["to_photo"]
    session = onnxruntime.InferenceSession(str(model / direction["file"]), providers=["CPUExecutionProvider"])
    reader = None
    if own_style:
        file = str(model / manifest["style"]["file"])
        reader = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    height, width = (manifest["resize"][side] for side in ("height", "width"))
    ids = classes_of(dataset.label_domain).index_to_id()
    for number, sample in enumerate(labelled(dataset, split)):
        indices = Image.fromarray(dataset.read_label(sample).astype(np.uint8)).resize(
            (width, height), Image.Resampling.NEAREST
        )
        feeds = {direction["input"]["name"]: ids[np.asarray(indices)][None]}
        if reader:
            photo = _small(dataset.read_photo(sample), manifest["style"]["size"])
            (feeds["noise"],) = reader.run(None, {"photo": photo[None]})
        elif direction["noise"]:
            shape = (1, *direction["noise"]["shape"])
            feeds["noise"] = random(0, number, "benchmark photos").standard_normal(shape, dtype=np.float32)
        yield session.run(None, feeds)[0][0]


def enlarged(pictures: np.ndarray) -> np.ndarray:
    return np.stack(
        [np.asarray(Image.fromarray(each).resize((224, 224), Image.Resampling.BILINEAR)) for each in pictures]
    )


def energy(pictures: np.ndarray) -> list[float]:
    """The mean spectral energy of the grey pictures around each period."""
    grey = pictures.astype(np.float64).mean(-1)
    power = (np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))) ** 2).mean(0)
    frequency = np.maximum(*(np.abs(each) for each in np.meshgrid(*map(np.fft.fftfreq, SIZE), indexing="ij")))
    return [float(power[(frequency > low) & (frequency <= high)].mean()) for low, high in PERIODS.values()]


def mean_chroma(pictures: np.ndarray) -> float:
    return float((pictures.max(-1).astype(int) - pictures.min(-1)).mean())


def _small(picture: np.ndarray, size: Sequence[int] = SIZE) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BOX))


if __name__ == "__main__":
    main()
