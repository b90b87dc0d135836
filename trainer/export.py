"""From a run to exported/<name>/: both directions as ONNX, proven equal to torch in onnxruntime before the folder is called done."""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jsonschema

from trainer.batch import Domain
from trainer.card import card, preview
from trainer.data.dataset import Dataset
from trainer.data.pairs import Selection
from trainer.errors import UserError
from trainer.graphs import NOISE, Direction, Graph, Spot, draw_graph, with_rounded_weights
from trainer.methods.base import Method
from trainer.metrics.evaluate import judging
from trainer.networks.spectral import folded
from trainer.parity import IDS_TOLERANCE, Material, compared, drawn, prove
from trainer.recipes import Run
from trainer.rundir import RunDir, load_method, open_run, sync_folder

DIRECTIONS: tuple[Direction, ...] = ("to_label", "to_photo")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SCHEMA = "manifest.schema.json"


def export(
    run_path: Path,
    out: Path,
    *,
    name: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    weights: Literal["averaged", "raw"] = "averaged",
    half: bool = False,
    description: str | None = None,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    floors: Mapping[str, Mapping[str, Any]] | None = None,
    terms: str | None = None,
    material: Material | None = None,
) -> Path:
    """Write the run's method to `out`/<name>/ under the manifest contract and return that folder.

    `half` stores the weights in fp16. `metrics` (split -> figures) and `floors` stand in for what the run's evaluation/ holds for these
    weights; `terms` for what the dataset says of its own. Parity is measured on `material`, built-in scenes where there is none.
    Raises UserError over a tolerance; then, and whenever else it fails, `out` is left as it was.
    """
    folder = open_run(run_path)
    name = folder.run.recipe if name is None and folder.run.recipe.startswith(folder.run.data) else name
    name = f"{folder.run.data}-{folder.run.recipe}" if name is None else name
    if not NAME.fullmatch(name):
        raise UserError(f"--name {name!r} cannot name a model: use at most 64 of a-z 0-9 . _ - and begin with a letter or a digit")
    trained, run, step = load_method(run_path, checkpoint=checkpoint, weights=weights)
    trained = folded(trained)  # plain convolutions in the file, and rounded as what they are
    dataset = folder.dataset()
    selection = folder.selection(dataset)
    if metrics is None:
        metrics, floors = _evaluations(folder, checkpoint=checkpoint, weights=weights, step=step)
    environment = _environment(folder)
    material = drawn(trained.label_domain.classes) if material is None else material
    method = with_rounded_weights(trained) if half else trained
    with judging(method, "cpu"):
        graphs = [
            draw_graph(method, direction, name=name, size=run.size, half=half)
            for direction in DIRECTIONS
            if direction in trained.directions
        ]
    parity = {graph.direction: prove(graph, method, size=run.size, material=material) for graph in graphs}
    rounding = _rounding(graphs, trained, size=run.size, material=material) if half else None
    manifest = {
        "format": 1,
        "name": name,
        "description": description or _description(run, trained, pairs=len(selection.pairs)),
        "directions": {},
        "domains": {"photo": _domain(trained.photo_domain), "label": _domain(trained.label_domain)},
        "resize": {"rule": "exact", "height": run.size[0], "width": run.size[1], "filter": "bicubic"},
        "multiple_of": trained.multiple_of,
        "tiling": trained.tiling,
        "training": {
            "method": run.method,
            "recipe": run.recipe,
            "dataset": run.data,
            "terms": _terms(dataset, selection) if terms is None else terms,
            "pairs": len(selection.pairs),
            "unpaired": len(selection.unpaired_photos),
            "steps": step,
            "size": list(run.size),
            "seed": run.seed,
            "weights": weights,
            "commit": str(environment.get("commit", "unknown")),
            "versions": _versions(environment),
        },
        "metrics": {split: dict(figures) for split, figures in metrics.items()},
        "parity": parity,
    }
    with _whole_folder(out, name) as building:
        manifest["directions"] = {graph.direction: _written(graph, building) for graph in graphs}
        preview(graphs, trained.label_domain, size=run.size, name=name).save(building / "preview.png", optimize=True)
        (building / "README.md").write_text(card(manifest, floors=floors or {}, rounding=rounding), encoding="utf-8")
        jsonschema.validate(manifest, schema())
        (building / "manifest.json").write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return out / name


def _terms(dataset: Dataset, selection: Selection) -> str:
    """The terms of the data, and of the other dataset whose label maps were learnt from, if there is one."""
    lender = selection.source
    return dataset.terms if lender is None else f"{dataset.terms}; unpaired label maps from {lender.name}: {lender.terms}"


def schema() -> dict[str, Any]:
    """The manifest's contract: from the checkout, or from beside the installed packages."""
    root = Path(__file__).parent.parent
    for path in (root / "exported" / SCHEMA, root / "serving" / "exported" / SCHEMA):
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    raise UserError(f"{SCHEMA} lies neither in {root / 'exported'} nor in {root / 'serving' / 'exported'}: install fewpair again")


@contextmanager
def _whole_folder(out: Path, name: str) -> Iterator[Path]:
    """A folder to build in that becomes `out`/<name> at the end, in place of an earlier one; on failure it vanishes."""
    out.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".exporting", dir=out))
    target, former = out / name, building.with_suffix(".former")
    try:
        yield building
        building.chmod(0o755)  # mkdtemp gives 0700, but a server may run as somebody else
        for path in building.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(building)
        if target.exists():
            target.rename(former)
        try:
            building.rename(target)
        except OSError:
            if former.exists():
                former.rename(target)
            raise
        sync_folder(out)
    except OSError as error:
        raise UserError(f"{target} could not be written ({error}): free some space or name another folder with --out") from error
    finally:
        for left in (building, former):
            shutil.rmtree(left, ignore_errors=True)


def _written(graph: Graph, folder: Path) -> dict[str, Any]:
    """Save the graph's file and describe it for the manifest."""
    content = graph.model.SerializeToString()
    path = folder / f"{graph.direction}.onnx"
    path.write_bytes(content)
    return {
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "input": _spot(graph.input),
        "outputs": [_spot(output) for output in graph.outputs],
        "noise": None if graph.noise_shape is None else {"name": NOISE, "shape": list(graph.noise_shape)},
    }


def _spot(spot: Spot) -> dict[str, str]:
    return {"name": spot.name, "kind": spot.kind, "dtype": "uint8", "layout": spot.layout}


def _domain(domain: Domain) -> dict[str, Any]:
    rows = None if domain.classes is None else domain.classes.rows
    classes = rows and [{"id": row.id, "name": row.name, "color": list(row.color), "ignore": row.ignore} for row in rows]
    return {"kind": domain.kind, "classes": classes}


def _description(run: Run, method: Method, *, pairs: int) -> str:
    words = {"to_label": "photo to label map", "to_photo": "label map to photo"}
    ways = " and ".join(words[direction] for direction in DIRECTIONS if direction in method.directions)
    sentence = f"{ways}, learnt with {run.method} from {pairs} labelled pairs of {run.data} at {run.size[0]}x{run.size[1]}."
    return sentence[0].upper() + sentence[1:]


def _rounding(graphs: list[Graph], trained: Method, *, size: tuple[int, int], material: Material) -> str:
    """What storing the weights in fp16 changed against the trained ones, in a sentence; too much of it is refused."""
    told = []
    for graph in graphs:
        row = compared(graph, trained, *material(4, *size))
        if row.ids_different is not None:
            if row.ids_different > IDS_TOLERANCE:
                raise UserError(
                    f"fp16 weights change the class of {row.ids_different:.2%} of the pixels (at most {IDS_TOLERANCE:.1%} is allowed): "
                    "export without half"
                )
            told.append(f"the class of {row.ids_different:.3%} of the pixels")
        if any(output.kind in ("photo", "picture") for output in graph.outputs):
            told.append(f"{row.values_over_one_level:.3%} of the {graph.outputs[0].name}'s levels by more than one")
    return (
        "The weights are stored in fp16 and cast to fp32 as the file is loaded; the table compares with torch holding the same rounded "
        "weights. "
        f"Against the trained weights, rounding changes {' and '.join(told)} (on four built-in scenes)."
    )


def _evaluations(folder: RunDir, *, checkpoint: str, weights: str, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split -> figures, and split -> floors, of the run's full evaluations of these weights at this step; others are left out, and said."""
    figures, floors = {}, {}
    for path in sorted(folder.evaluations.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if (found.get("checkpoint"), found.get("weights"), found.get("limit")) != (checkpoint, weights, None):
            continue
        if found.get("step") != step:
            print(
                f"{path} is left out: it judged {checkpoint} at step {found.get('step')}, and {checkpoint} is now at step {step}; "
                f"evaluate it again: fewpair evaluate {folder.path} --split {found['split']} --checkpoint {checkpoint} --weights {weights}",
                file=sys.stderr,
            )
        else:
            figures[found["split"]], floors[found["split"]] = found["figures"], found["floors"]
    return figures, floors


def _environment(folder: RunDir) -> dict[str, Any]:
    path = folder.path / "environment.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _versions(environment: Mapping[str, Any]) -> dict[str, str]:
    python = {"python": str(environment["python"])} if "python" in environment else {}
    return python | {str(name): str(version) for name, version in environment.get("versions", {}).items()}
