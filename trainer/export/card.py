"""The card and the preview of an exported model; previews show synthetic pictures, never those of a dataset."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from trainer.batch import Classes, Domain, random
from trainer.data.dataset import Dataset, Sample
from trainer.data.synthetic import scenes
from trainer.export.graphs import NOISE, Graph
from trainer.export.parity import mirrored, run, translated
from trainer.grids import sample_grid
from trainer.metrics.pictures import colourise, paint_label

SCENES = (3, 11)
"""Which scenes of split `val` a preview shows."""
PAIR_SIZE, SHOWN_PAIRS = (120, 160), 8
_BY_CLASS = {
    "per_class_iou": "IoU of {}, photo to label map",
    "judge_per_class_iou": "the judge's IoU of {} on photos made from label maps",
    "judge_on_real_per_class_iou": "the judge's IoU of {} on the real photos",
}


def preview(graphs: Sequence[Graph], label_domain: Domain, *, size: tuple[int, int], name: str) -> Image.Image:
    """Show the graphs on synthetic pictures: photo, label, and what the model makes of them, with a legend.

    Street scenes where the model knows most of their classes; else blocks of the model's own classes in their colours.
    """
    classes = label_domain.classes
    streets = classes is None or len(set(classes.names) & set(scenes.CLASSES.names)) > classes.count // 2
    rows = []
    for index in SCENES:
        if classes is None or streets:
            photo, label = scenes.draw(index, height=size[0], width=size[1], split="val")
            known = mirrored(photo) if classes is None else translated(label, classes)
        else:
            known = _blocks(classes, index, size)
            photo = _shown(known, classes)
        row = {"photo": photo, "label": _shown(known, classes)}
        for graph in graphs:
            if graph.direction == "to_label":
                row["label from photo"] = _shown(_first_output(graph, photo), classes)
            else:
                row["photo from label"] = _first_output(graph, known)
        rows.append(row)
    drawn = "street scenes" if streets else "blocks of its classes"
    caption = f"{name} on {drawn} that fewpair draws itself"
    return sample_grid(rows, scale=max(1, 200 // size[1]), caption=caption, classes=classes)


def _blocks(classes: Classes, index: int, size: tuple[int, int]) -> np.ndarray:
    """A label map uint8[H,W] of raw ids: a background and rectangles of the other classes."""
    draw = random(index, 0, "preview blocks")
    ids = classes.index_to_id()
    order = draw.permutation(classes.count)
    label = np.full(size, ids[order[0]], dtype=np.uint8)
    for each in order[1:9]:
        height, width = (int(draw.integers(side // 6, side // 2 + 1)) for side in size)
        top, left = (
            int(draw.integers(0, side - extent + 1)) for side, extent in zip(size, (height, width), strict=True)
        )
        label[top : top + height, left : left + width] = ids[each]
    return label


def pairs_picture(dataset: Dataset, pairs: Sequence[Sample]) -> Image.Image:
    """The first pairs side by side, each photo above its label map in class colours."""
    height, width = PAIR_SIZE
    columns = []
    for pair in pairs[:SHOWN_PAIRS]:
        photo = Image.fromarray(dataset.read_photo(pair)).resize((width, height), Image.Resampling.LANCZOS)
        columns.append(np.concatenate([np.asarray(photo), paint_label(dataset, dataset.read_label(pair), PAIR_SIZE)]))
    return Image.fromarray(np.concatenate(columns, axis=1))


def card(manifest: Mapping[str, Any], *, rounding: str | None) -> str:
    """The README of an exported folder; `rounding` says what storing in fp16 changed."""
    training = manifest["training"]
    height, width = training["size"]
    directions = manifest["directions"].values()
    files = "\n".join(f"- `{direction['file']}`: {_direction_words(direction)}" for direction in directions)
    if "style" in manifest:
        files += "\n- `style.onnx`: photo in, the noise that gives its look out"
    versions = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    return f"""# {manifest["name"]}

{manifest["description"]}

![The model on two synthetic pictures](preview.png)

## What is in this folder

{files}
- `manifest.json`: how to run them; its contract is `../manifest.schema.json`
- `preview.png`: synthetic pictures, no photos of the dataset

## Data and terms

Trained on `{training["dataset"]}`: {training["pairs"]} labelled pairs and {training["unpaired"]} unpaired samples
of its training split. Terms of the data, as its publisher states them: {training["terms"]}. They may bind the use of
the weights.

## How it was trained

Method `{training["method"]}`, recipe `{training["recipe"]}`, {training["steps"]} steps at {height}x{width}, seed
{training["seed"]}, {training["weights"]} weights, commit `{training["commit"]}`. {versions}.

## Figures

{_figures_table(manifest["metrics"], manifest["baselines"])}

## Limits

{_limits(manifest)}

## Parity

Differences between onnxruntime and torch, measured at export:

{_parity_table(manifest["parity"])}

{rounding or "The weights are stored in fp32."}

## License

The files in this folder are released under the Apache License 2.0 as far as fewpair's authors hold rights in them;
the terms of the data above apply too.
"""


def _first_output(graph: Graph, given: np.ndarray) -> np.ndarray:
    feeds = {graph.input.name: given[None]}
    if graph.noise_shape is not None:
        feeds[NOISE] = random(0, 0, "preview").standard_normal((1, *graph.noise_shape), dtype=np.float32)
    return run(graph.model, feeds)[graph.outputs[0].name][0]


def _shown(label: np.ndarray, classes: Classes | None) -> np.ndarray:
    return label if classes is None else colourise(classes.id_to_index()[label], classes)


def _direction_words(direction: Mapping[str, Any]) -> str:
    outputs = " and ".join(output["name"] for output in direction["outputs"])
    noise = f", with noise {direction['noise']['shape']}" if direction["noise"] else ""
    return f"{direction['input']['name']} in, {outputs} out, uint8 on both sides{noise}"


def _figures_table(metrics: Mapping[str, Mapping[str, Any]], baselines: Mapping[str, Mapping[str, Any]]) -> str:
    if not metrics:
        return "None: this run had not been evaluated when it was exported."
    parts = []
    for split, figures in metrics.items():
        rows = [
            (name.replace("_", " "), _number(value)) for name, value in figures.items() if not isinstance(value, dict)
        ]
        for baseline, values in baselines.get(split, {}).items():
            rows.append((f"mean iou of the baseline: {baseline.replace('_', ' ')}", _number(values["mean_iou"])))
        for kind, words in _BY_CLASS.items():
            rows += [(words.format(name), _number(value)) for name, value in figures.get(kind, {}).items()]
        seen = figures.get("seen_in_training")
        heading = f"On split `{split}`" + (f" ({seen} of its photos were seen in training)" if seen else "")
        parts.append(
            f"{heading}:\n\n| figure | value |\n|---|---|\n"
            + "\n".join(f"| {name} | {value} |" for name, value in rows)
        )
    parts.append(
        "Mean IoU is the mean over the classes that the truth holds; photo figures are taken at the network's "
        "resolution."
    )
    return "\n\n".join(parts)


def _limits(manifest: Mapping[str, Any]) -> str:
    height, width = manifest["training"]["size"]
    pairs = manifest["training"]["pairs"]
    lines = [
        f"- It was trained on pictures of {height}x{width}; uploads are resized to that size, so details thinner than "
        "a pixel there are lost.",
        f"- It was trained on {pairs} pairs of one dataset; accuracy is lower for other cameras, places, weather or "
        "light.",
    ]
    if manifest["tiling"] == "forbidden":
        lines.append(
            "- Its normalisation depends on the whole picture: tiles that are translated one by one do not fit "
            "together."
        )
    lines.append(
        "- Rare and thin classes are the weakest; see the table by class. Do not use it where errors can do harm."
    )
    return "\n".join(lines)


def _parity_table(parity: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    lines = [
        "| direction | batch x height x width | floats, largest difference | levels off by more than 1 | other class |",
        "|---|---|---|---|---|",
    ]
    for direction, rows in parity.items():
        for row in rows:
            raw = "-" if row["raw_max_difference"] is None else f"{row['raw_max_difference']:.1e}"
            ids = "-" if row["ids_different"] is None else f"{row['ids_different']:.3%}"
            size = f"{row['batch']} x {row['height']} x {row['width']}"
            lines.append(f"| {direction} | {size} | {raw} | {row['values_over_one_level']:.3%} | {ids} |")
    return "\n".join(lines)


def _number(value: object) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
