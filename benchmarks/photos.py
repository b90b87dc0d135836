"""Measures photos of exported models beside the real photos of the same label maps, into a table of a results page.

python -m benchmarks.photos exported/camvid-painter exported/camvid-hybrid-compact --data camvid --root CAMVID \
    --features mobilenet_v2_features.onnx --splits val devtest --into docs/results/camvid.md

All photos are compared at 96x128, box-filtered, whatever a model's size: KID (enlarged to 224x224); the spectral energy
at periods of 2, 4 and 8 pixels relative to the real photos'; mean level and mean chroma (largest minus smallest
channel) in levels of 0 to 255. Noise is drawn with seed 0. With --own-style each photo has the style that the model
reads in the real one, instead of noise: what would be left of the distance if the label map told the light.
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
from trainer.metrics.distribution import compare_sets, open_extractor
from trainer.metrics.evaluate import classes_of, labelled

SIZE = (96, 128)
PERIODS = {"2": (0.42, 0.5), "4": (0.21, 0.29), "8": (0.105, 0.145)}
"""The cycles a pixel that count as a period of so many pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--splits", nargs="+", required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--own-style", action="store_true")
    options = parser.parse_args()
    extractor = open_extractor(options.features)
    lines = [
        "| model | split | photos | KID | energy at 2, 4, 8 px | mean level (real) | mean chroma (real) |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for split in options.splits:
        for model in options.models:
            generated, real = (np.stack(each) for each in zip(*photos(model, options, split), strict=True))
            sets = (extractor.of_pictures(enlarged(each)).astype(np.float64) for each in (generated, real))
            kid = compare_sets(*sets)["kid"]
            ratios = ", ".join(f"{one / other:.2f}" for one, other in zip(energy(generated), energy(real), strict=True))
            level, chroma = (f"{of(generated):.0f} ({of(real):.0f})" for of in (np.mean, mean_chroma))
            name = f"`{model.name}`" + (" in the style of each real photo" if options.own_style else "")
            lines.append(f"| {name} | {split} | {len(real)} | {kid:.2f} | {ratios} | {level} | {chroma} |")
            print(lines[-1], flush=True)
    between_markers(options.into, "own-style" if options.own_style else "photos", "\n".join(lines))


def photos(model: Path, options: argparse.Namespace, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A generated and a real photo for each label map of the split, both uint8[96,128,3]."""
    manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
    direction = manifest["directions"]["to_photo"]
    session = onnxruntime.InferenceSession(str(model / direction["file"]), providers=["CPUExecutionProvider"])
    reader = None
    if options.own_style:
        file = str(model / manifest["style"]["file"])
        reader = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    height, width = (manifest["resize"][side] for side in ("height", "width"))
    dataset = open_dataset(options.data, options.root)
    ids = classes_of(dataset.label_domain).index_to_id()
    for number, sample in enumerate(labelled(dataset, split)):
        indices = Image.fromarray(dataset.read_label(sample).astype(np.uint8)).resize(
            (width, height), Image.Resampling.NEAREST
        )
        feeds = {direction["input"]["name"]: ids[np.asarray(indices)][None]}
        photo = dataset.read_photo(sample)
        if reader:
            (feeds["noise"],) = reader.run(None, {"photo": _small(photo, manifest["style"]["size"])[None]})
        elif direction["noise"]:
            shape = (1, *direction["noise"]["shape"])
            feeds["noise"] = random(0, number, "benchmark photos").standard_normal(shape, dtype=np.float32)
        yield _small(session.run(None, feeds)[0][0]), _small(photo)


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
