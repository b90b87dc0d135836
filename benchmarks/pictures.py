"""Draws the pictures that show the shipped models: README's grids and the page's link preview, without dataset photos.

python -m benchmarks.pictures

Label maps are those of the page's examples, whose ids are CamVid's. Photos are what `camvid-painter` makes of them with
seed 1; below them is what `camvid-segmenter` reads in these photos. Fronts are the examples of `facades-painter`, each
with three seeds.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from serving.models.model import ExportedModel, load_model

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "serving/ui/static"
SCENES = (1, 2, 4)
WIDTH, HEIGHT, GAP = 320, 240, 8


def main() -> None:
    painter, segmenter = (open_model(name) for name in ("camvid-painter", "camvid-segmenter"))
    grid = Image.new("RGB", (len(SCENES) * (WIDTH + GAP) - GAP, 3 * (HEIGHT + GAP) - GAP), "white")
    for column, scene in enumerate(SCENES):
        label = np.asarray(
            Image.open(STATIC / f"examples/street-{scene}.png").resize((256, 192), Image.Resampling.NEAREST)
        )
        photo = painter.run_batch("to_photo", label[None], seeds=[1])["photo"][0]
        enlarged = np.asarray(Image.fromarray(photo).resize((352, 256), Image.Resampling.BICUBIC))
        read = segmenter.run_batch("to_label", enlarged[None], seeds=[1])["label"][0]
        rows = [coloured(painter, label), Image.fromarray(photo), coloured(segmenter, read)]
        for row, (picture, rule) in enumerate(zip(rows, ("NEAREST", "BICUBIC", "NEAREST"), strict=True)):
            picture = picture.resize((WIDTH, HEIGHT), Image.Resampling[rule])
            grid.paste(picture, (column * (WIDTH + GAP), row * (HEIGHT + GAP)))
        if scene == SCENES[0]:
            preview(rows[:2]).save(STATIC / "preview.jpg", quality=88)
    grid.save(ROOT / "docs/street.jpg", quality=90)
    fronts().save(ROOT / "docs/fronts.jpg", quality=90)


def fronts() -> Image.Image:
    """Each example above its photos with seeds 1 to 3."""
    painter = open_model("facades-painter")
    examples = [ROOT / "exported/facades-painter/examples" / f"{name}.png" for name in painter.manifest.examples]
    side = 256 + GAP
    grid = Image.new("RGB", (len(examples) * side - GAP, 4 * side - GAP), "white")
    for column, example in enumerate(examples):
        label = np.asarray(Image.open(example))
        photos = [painter.run_batch("to_photo", label[None], seeds=[seed])["photo"][0] for seed in (1, 2, 3)]
        for row, picture in enumerate([coloured(painter, label), *map(Image.fromarray, photos)]):
            grid.paste(picture, (column * side, row * side))
    return grid


def open_model(name: str) -> ExportedModel:
    return load_model(ROOT / "exported" / name, device="cpu", threads=1)


def coloured(model: ExportedModel, ids: np.ndarray) -> Image.Image:
    colours = np.zeros((256, 3), np.uint8)
    for row in model.manifest.label.classes:
        colours[row.id] = row.color
    return Image.fromarray(colours[ids])


def preview(pictures: list[Image.Image]) -> Image.Image:
    """Map and photo side by side, 1200x630 as link previews are shown."""
    canvas = Image.new("RGB", (1200, 630), (15, 118, 110))
    for column, (picture, rule) in enumerate(zip(pictures, ("NEAREST", "BICUBIC"), strict=True)):
        canvas.paste(picture.resize((560, 420), Image.Resampling[rule]), (26 + 588 * column, 105))
    return canvas


if __name__ == "__main__":
    main()
