"""What a person reads and sees of an exported model: its README card and its preview, which shows built-in scenes only."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from trainer.batch import Classes, Domain, random
from trainer.data import scenes
from trainer.graphs import NOISE, Graph
from trainer.metrics.pictures import colourise, sheet
from trainer.parity import mirrored, run, translated

SCENES = (3, 11)
"""Which scenes of split `val` a preview shows."""
_BY_CLASS = {
    "per_class_iou": "IoU of {}, photo to label map",
    "judge_per_class_iou": "the judge's IoU of {} on photos made from label maps",
    "judge_on_real_per_class_iou": "the judge's IoU of {} on the real photos",
}


def preview(graphs: Sequence[Graph], label_domain: Domain, *, size: tuple[int, int], name: str) -> Image.Image:
    """The shipped graphs at work on built-in scenes: photo, its label, the model's label, the model's photo from the label."""
    by_direction = {graph.direction: graph for graph in graphs}
    rows = []
    for index in SCENES:
        photo, label = scenes.draw(index, height=size[0], width=size[1], split="val")
        known = mirrored(photo) if label_domain.classes is None else translated(label, label_domain.classes)
        made_label = made_photo = None
        if "to_label" in by_direction:
            made_label = _shown(_first_output(by_direction["to_label"], photo), label_domain.classes)
        if "to_photo" in by_direction:
            made_photo = _first_output(by_direction["to_photo"], known)
        rows.append([photo, _shown(known, label_domain.classes), made_label, made_photo])
    columns = ["photo", "label", "label from the photo", "photo from the label"]
    used = [column for column in range(4) if any(row[column] is not None for row in rows)]
    scale = max(1, 200 // size[1])
    caption = f"{name} on scenes that fewpair draws itself"
    return sheet([columns[column] for column in used], [[row[column] for column in used] for row in rows], scale=scale, caption=caption)


def card(manifest: Mapping[str, Any], *, floors: Mapping[str, Mapping[str, Any]], rounding: str | None) -> str:
    """The README of an exported folder; `floors` are the evaluated splits' floors, `rounding` says what storing in fp16 changed."""
    training = manifest["training"]
    height, width = training["size"]
    parts = [
        f"# {manifest['name']}",
        manifest["description"],
        "![The model on two built-in scenes](preview.png)",
        "## What is in this folder",
        "\n".join(
            [f"- `{direction['file']}`: {_direction_words(direction)}" for direction in manifest["directions"].values()]
            + [
                "- `manifest.json`: how to run them; the contract is `manifest.schema.json`, one folder up",
                "- `preview.png`: drawn scenes, no dataset photos",
            ]
        ),
        "## Data and terms",
        f"Trained on `{training['dataset']}`: {training['pairs']} labelled pairs and {training['unpaired']} unpaired samples of its "
        "training split. "
        f"Terms of the data, as its publisher states them: {training.get('terms', 'not stated')}. "
        "Whoever uses the weights is bound by what these terms say of works derived from the data.",
        "## How it was trained",
        f"Method `{training['method']}`, recipe `{training['recipe']}`, {training['steps']} steps at {height}x{width} (height x width), "
        f"seed {training['seed']}, {training['weights']} weights, commit `{training['commit']}`. "
        + ", ".join(f"{name} {version}" for name, version in training["versions"].items())
        + ".",
        "## Figures",
        _figures_table(manifest["metrics"], floors),
        "## Limits",
        _limits(manifest),
        "## Parity",
        "The files in onnxruntime against torch, measured at export:",
        _parity_table(manifest["parity"]),
        *([rounding] if rounding else []),
        "## License",
        "The files in this folder are released under the Apache License 2.0 as far as fewpair's authors hold rights in them; the terms "
        "of the data above apply beside it.",
    ]
    return "\n\n".join(parts) + "\n"


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


def _figures_table(metrics: Mapping[str, Mapping[str, Any]], floors: Mapping[str, Mapping[str, Any]]) -> str:
    if not metrics:
        return "None: this run had not been evaluated when it was exported."
    parts = []
    for split, figures in metrics.items():
        rows = [(name.replace("_", " "), _number(value)) for name, value in figures.items() if not isinstance(value, dict)]
        for floor, values in floors.get(split, {}).items():
            rows.append((f"mean iou of the floor: {floor.replace('_', ' ')}", _number(values["mean_iou"])))
        for kind, words in _BY_CLASS.items():
            rows += [(words.format(name), _number(value)) for name, value in figures.get(kind, {}).items()]
        parts.append(f"On split `{split}`:\n\n| figure | value |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows))
    parts.append("Mean IoU is the mean over the classes that the truth holds; photo figures are taken at the network's resolution.")
    return "\n\n".join(parts)


def _limits(manifest: Mapping[str, Any]) -> str:
    height, width = manifest["training"]["size"]
    lines = [
        f"- It saw pictures of {height}x{width}; an upload is brought to that size, so what is thinner than a pixel there is lost.",
        f"- It learnt from {manifest['training']['pairs']} pairs of one dataset; other cameras, places, weather or light cost accuracy.",
    ]
    if manifest["tiling"] == "forbidden":
        lines.append("- Its normalisation looks at the whole picture: tiles translated one by one do not fit together.")
    lines.append("- Rare and thin classes are the weakest; read the table by class. Do not use it where a mistake can hurt anybody.")
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
