"""From a run to exported/<name>/: its directions as ONNX, compared with torch before the folder is in place."""

import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import jsonschema
import onnx

from trainer.batch import Domain
from trainer.errors import UserError
from trainer.export.card import card, pairs_picture, preview, write_examples
from trainer.export.graphs import NOISE, PREVIOUS, Direction, Graph, Port, draw_graph, draw_style, stored_half
from trainer.export.int8 import quantized
from trainer.export.parity import IDS_TOLERANCE, VALUES_TOLERANCE, compared, drawn, prove, prove_style
from trainer.methods.base import Method
from trainer.metrics.predict import evaluating
from trainer.networks.init import fuse_spectral_norm
from trainer.training.checkpointing import RunDir, load_method, open_run

WORDS: dict[Direction, str] = {"to_label": "photo to label map", "to_photo": "label map to photo"}
NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}")
SCHEMA = "manifest.schema.json"
BASELINE = "commonest_class_per_pixel"
EVALUATED = {"to_label": ("mean_iou", "picture_accuracy"), "to_photo": ("photo_l1_levels",)}
"""The figures that show that a direction was evaluated."""
COMPARED = {"to_label": "mean_iou", "to_photo": "judge_mean_iou"}
"""The figure of a direction that is compared with the baseline's mean IoU, where there is one."""
OF_LABELS = re.compile("(pixel_accuracy|mean_class_accuracy|mean_iou|per_class_iou|picture_).*")
"""The figures of photo to label map; but for the counts of samples, the others are of photos."""
Figures = Mapping[str, Mapping[str, Any]]
"""Split -> figures, or split -> baseline -> figures."""


def export(
    run_path: Path,
    out: Path,
    *,
    name: str | None = None,
    checkpoint: str = "best",
    weights: Literal["averaged", "raw"] = "averaged",
    direction: Direction | None = None,
    half: bool = False,
    int8: bool = False,
    force: bool = False,
    overwrite: bool = False,
    description: str | None = None,
    examples: Path | None = None,
) -> Path:
    """Write the run's method to `out`/<name>/ under the manifest contract and return that folder.

    `direction` is the only one to export. A direction that was not evaluated or does not exceed its baseline is left
    out unless `force`; where none is left, the export is refused. `half` stores the weights in fp16; `int8` adds the
    graphs in 8 bits, for CPUs; `overwrite` replaces an earlier export of the name; `examples` is a folder of label maps
    (for a model that makes photos) or photos, which go with the model. Raises UserError where parity with torch exceeds
    a tolerance or int8 changes too much; then, and whenever else it fails, `out` is left as it was.
    """
    folder = open_run(run_path)
    recipe, data = folder.run.recipe, folder.run.data
    name = name or (recipe if recipe.startswith(data) else f"{data}-{recipe}")
    if not NAME.fullmatch(name):
        raise UserError(f"--name {name!r} cannot name a model: use at most 64 of a-z 0-9 . _ - and begin with a letter")
    if examples is not None and not examples.is_dir():
        raise UserError(f"--examples {examples}: there is no such folder")
    if (out / name).exists() and not overwrite:
        raise UserError(f"{out / name} exists: name the model otherwise with --name, or replace it with --overwrite")
    method, run, step = load_method(run_path, checkpoint=checkpoint, weights=weights)
    method = fuse_spectral_norm(method)  # plain convolutions in the file
    dataset = folder.dataset()
    selection = folder.selection(dataset)
    metrics, baselines = _evaluations(folder, checkpoint=checkpoint, weights=weights, step=step)
    directions = [each for each in WORDS if each in method.directions and direction in (each, None)]
    if not directions:
        raise UserError(f"--direction {direction}: {run.method} has only {', '.join(method.directions)}")
    against = {} if force else reasons_against(directions, metrics, baselines)
    for each, reason in against.items():
        if len(against) == len(directions):
            advice = f"fewpair evaluate {folder.path} --checkpoint {checkpoint}, train longer, or export with --force"
            raise UserError(f"{run_path} is not worth serving: {each} {reason}; {advice}")
        print(f"{each} is left out: it {reason} (--force exports it)", file=sys.stderr)
    environment, other = folder.environment(), selection.external
    terms = dataset.terms + (f"; unpaired label maps from {other.name}: {other.terms}" if other else "")
    style_size = method.style_size
    with evaluating(method, "cpu"):
        kept = [each for each in directions if each not in against]
        graphs = [draw_graph(method, each, size=run.size) for each in kept]
        style = draw_style(method) if style_size and "to_photo" in kept else None
    if style is not None:
        prove_style(style, method)
    parity = {graph.direction: prove(graph, method, size=run.size) for graph in graphs}
    if half:
        graphs = [replace(graph, model=stored_half(graph.model)) for graph in graphs]
        style = style and stored_half(style)
    rounding = _rounding(graphs, method, size=run.size) if half else None
    small = {graph.direction: quantized(graph, dataset, selection, size=run.size) for graph in graphs if int8}
    ways = " and ".join(WORDS[each] for each in kept)
    learned = f"{len(selection.pairs)} labelled pairs of {run.data} at {run.size[0]}x{run.size[1]}"
    manifest: dict[str, Any] = {
        "format": 1,
        "name": name,
        "description": description or f"{ways[0].upper()}{ways[1:]}, learnt with {run.method} from {learned}.",
        "directions": {},
        "domains": {"photo": _domain(Domain("picture")), "label": _domain(method.label_domain)},
        "resize": {"rule": "exact", "height": run.size[0], "width": run.size[1], "filter": "bicubic"},
        "multiple_of": method.multiple_of,
        "tiling": method.tiling,
        "training": {
            "method": run.method,
            "recipe": run.recipe,
            "dataset": run.data,
            "terms": terms,
            "pairs": len(selection.pairs),
            "unpaired": len(selection.unpaired_photos),
            "steps": step,
            "size": list(run.size),
            "seed": run.seed,
            "weights": weights,
            "commit": environment["commit"],
            "versions": {"python": environment["python"], **environment["versions"]},
        },
        "metrics": {split: _of(kept, figures) for split, figures in metrics.items()},
        "baselines": baselines if "to_label" in kept else {},
        "parity": parity,
    }
    with _whole_folder(out / name) as building:
        manifest["directions"] = {
            graph.direction: {
                **_written(graph.model, f"{graph.direction}.onnx", building),
                "input": graph.input.described(),
                "outputs": [output.described() for output in graph.outputs],
                "noise": None if graph.noise_shape is None else {"name": NOISE, "shape": list(graph.noise_shape)},
                **({"previous": Port(PREVIOUS, "photo").described()} if graph.previous else {}),
            }
            for graph in graphs
        }
        for each, (model, change) in small.items():
            manifest["directions"][each]["int8"] = _written(model, f"{each}.int8.onnx", building) | {"change": change}
        if style is not None and style_size is not None:
            manifest["style"] = {**_written(style, "style.onnx", building), "size": list(style_size)}
        if examples is not None:
            given, examples = examples, building / "examples"
            manifest["examples"] = write_examples(given, graphs, method.label_domain, size=run.size, out=examples)
        shown = preview(graphs, method.label_domain, size=run.size, name=name, examples=examples)
        shown.save(building / "preview.png", optimize=True)
        if dataset.terms.startswith("synthetic") and selection.pairs:  # other photos are not ours to pass on
            pairs_picture(dataset, selection.pairs).save(building / "pairs.jpg", quality=90)
        (building / "README.md").write_text(card(manifest, rounding=rounding), encoding="utf-8")
        jsonschema.validate(manifest, schema())
        text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
        (building / "manifest.json").write_text(text, encoding="utf-8")
    return out / name


def schema() -> dict[str, Any]:
    """The manifest's contract: from the checkout, or from beside the installed packages."""
    root = Path(__file__).parents[2]
    for path in (root / "exported" / SCHEMA, root / "serving" / "exported" / SCHEMA):
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    raise UserError(f"{SCHEMA} is not in {root / 'exported'} or {root / 'serving' / 'exported'}: install fewpair again")


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """A folder to build in that becomes `target` at the end, in place of an earlier one; on failure it vanishes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    former = building.with_suffix(".former")
    try:
        yield building
        building.chmod(0o755)  # mkdtemp gives 0700, but a server may run as another user
        if target.exists():
            target.rename(former)
        building.rename(target)
    except OSError as error:
        raise UserError(f"{target} could not be written ({error}): free some space or name another --out") from error
    finally:
        if former.exists() and not target.exists():
            former.rename(target)
        for left in (building, former):
            shutil.rmtree(left, ignore_errors=True)


def _of(directions: Sequence[Direction], figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of these directions."""
    counts = ("samples", "seen_in_training")
    whose: dict[str, Direction] = {name: "to_label" if OF_LABELS.match(name) else "to_photo" for name in figures}
    return {name: value for name, value in figures.items() if name in counts or whose[name] in directions}


def _written(model: onnx.ModelProto, file: str, folder: Path) -> dict[str, Any]:
    """Save a graph and describe its file for the manifest."""
    content = model.SerializeToString()
    (folder / file).write_bytes(content)
    return {"file": file, "sha256": hashlib.sha256(content).hexdigest()}


def _domain(domain: Domain) -> dict[str, Any]:
    rows = None if domain.classes is None else domain.classes.rows
    return {"kind": domain.kind, "classes": rows and [asdict(row) | {"color": list(row.color)} for row in rows]}


def _rounding(graphs: Sequence[Graph], method: Method, *, size: tuple[int, int]) -> str:
    """What storing the weights in fp16 changed against the trained ones, in a sentence; too much of it is refused."""
    changes = []
    for graph in graphs:
        row = compared(graph, method, *drawn(method.label_domain.classes, 4, size))
        if row.ids_different is None:
            share, limit = row.values_over_one_level, VALUES_TOLERANCE
            changed = f"{share:.3%} of the {graph.outputs[0].name}'s levels by more than one"
        else:
            share, limit = row.ids_different, IDS_TOLERANCE
            changed = f"the class of {share:.3%} of the pixels"
        if share > limit:
            raise UserError(f"fp16 weights change {changed} (at most {limit:.1%} is allowed): export without half")
        changes.append(changed)
    return (
        "The weights are stored in fp16 and cast to fp32 as the file is loaded; the table is of the graphs before "
        "that. Rounding changes "
        f"{' and '.join(changes)} (on four synthetic scenes)."
    )


def reasons_against(directions: Sequence[Direction], metrics: Figures, baselines: Figures) -> dict[Direction, str]:
    """For each direction that should not be served, why: not evaluated, or below the baseline on a split.

    Figures of the training photos count only where no other split was evaluated.
    """
    others = {split: figures for split, figures in metrics.items() if split != "train"}
    reasons: dict[Direction, str] = {}
    for direction in directions:
        splits = {
            split: figures
            for split, figures in (others or metrics).items()
            if any(name in figures for name in EVALUATED[direction])
        }
        if not splits:
            reasons[direction] = "has not been evaluated"
        for split, figures in splits.items():
            reached = figures.get(COMPARED[direction])
            baseline = baselines.get(split, {}).get(BASELINE, {}).get("mean_iou")
            if reached is not None and baseline is not None and reached <= baseline:
                reasons[direction] = (
                    f"reaches mean IoU {reached:.3f} on {split}, not above the baseline {baseline:.3f} "
                    "(the commonest class at each pixel)"
                )
    return reasons


def _evaluations(folder: RunDir, *, checkpoint: str, weights: str, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return split -> figures and split -> baselines of the run's full evaluations of these weights."""
    figures: dict[str, Any] = {}
    baselines: dict[str, Any] = {}
    for path in sorted(folder.evaluations.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if (found.get("checkpoint"), found.get("weights"), found.get("limit")) != (checkpoint, weights, None):
            continue
        if found.get("step") != step:
            print(
                f"{path} is left out: it evaluated step {found.get('step')}, but {checkpoint} is now at step {step}; "
                f"evaluate again: fewpair evaluate {folder.path} --split {found['split']} --checkpoint {checkpoint} "
                f"--weights {weights}",
                file=sys.stderr,
            )
            continue
        figures.setdefault(found["split"], {}).update(found["figures"])
        baselines.setdefault(found["split"], {}).update(found.get("baselines", {}))
    return figures, baselines
