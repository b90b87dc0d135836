"""What `fewpair demo` does: the whole way once on the built-in scenes, from a choice of pairs to a served model."""

import http.client
import importlib.util
import json
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from trainer.errors import UserError

NAME = "scenes-demo"
"""The recipe, and the model's name."""
MARGIN = 0.10
"""By how much the model's mean IoU must clear both floors."""
JUDGED = 40
"""How many scenes of split `test` judge the model, spread evenly: it was chosen among its checkpoints on `val`."""
READY_WITHIN = 300.0
"""Seconds that the server may take to start."""


@dataclass(frozen=True)
class DemoOptions:
    """What `fewpair demo` takes."""

    port: int = 3000
    """The server's port on this machine."""
    serve: bool = True
    """Serve the model at the end and stay until Ctrl-C; --no-serve: leave it in the models folder."""
    models: Path = Path("exported")
    """Where the model goes, and what is served."""
    run: Path = Path("runs/demo")
    """Where the run and an example photo go."""
    steps: int | None = None
    """Train this many steps; None: as many as the recipe says, or fewer where a step takes so long, as training begins, that these would
    take more than two and a half minutes."""


def main(arguments: list[str]) -> int:
    """Train, evaluate and export unless an earlier demo did; then serve in the foreground."""
    asked = tyro.cli(
        DemoOptions,
        prog="fewpair demo",
        args=arguments,
        description="From 8 labelled photos to a served model, on scenes drawn by fewpair.",
    )
    if asked.serve:
        _refuse_what_cannot_serve(asked.port)  # better now than after the training
    if is_made(asked.models / NAME):
        print(f"{asked.models / NAME} is there from an earlier demo; remove it to train again.")
    elif not make(asked):
        return 1
    example = _example(asked.run)
    return serve(asked.models, port=asked.port, example=example) if asked.serve else 0


def is_made(folder: Path) -> bool:
    """Whether the folder holds what the demo's recipe makes."""
    from trainer.recipes import RECIPES

    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return False
    found, recipe = json.loads(manifest.read_text()), RECIPES[NAME]
    trained = found["training"]
    wanted = {"recipe": NAME, "pairs": recipe.pairs, "unpaired": recipe.unpaired, "size": list(recipe.size), "seed": recipe.seed}
    return {name: trained.get(name) for name in wanted} == wanted and "test" in found["metrics"]


def make(asked: DemoOptions) -> bool:
    """Choose pairs, train, evaluate and export; False, with a sentence, where the model does not clear the floors."""
    from trainer.commands.evaluate import table
    from trainer.demo_training import trained
    from trainer.export import export
    from trainer.metrics.record import evaluate_and_record
    from trainer.rundir import load_method

    folder = trained(asked.run / "run", recipe=NAME, steps=asked.steps)
    print(
        f"\n3. Evaluate on {JUDGED} scenes of split `test`, as the floors are: nothing was trained or chosen on them "
        "(the best checkpoint was chosen on `val`)",
        flush=True,
    )
    dataset = folder.dataset()
    selection = folder.selection(dataset)
    method, _, step = load_method(folder.path)
    result = evaluate_and_record(
        method,
        dataset,
        folder=folder.evaluations,
        provenance=folder.provenance(selection, split="test", step=step, limit=JUDGED),
        train_samples=selection.streams(dataset).pairs,
        progress=True,
    )
    print(table(result.figures, result.floors))
    reached, floor = _mean_iou(result.figures), max(_mean_iou(values) for values in result.floors.values())
    if reached < floor + MARGIN:
        print(
            f"fewpair demo: mean IoU {reached:.3f} does not clear the higher floor, {floor:.3f}, by {MARGIN:.2f}: the model has learnt too "
            f"little to be worth serving. Its sheets are in {folder.samples}; remove {folder.path} and try again with more --steps",
            file=sys.stderr,
        )
        return False
    print(f"Mean IoU {reached:.3f} clears the higher floor, {floor:.3f}, by {reached - floor:.3f} (at least {MARGIN:.2f} was asked).")

    print("\n4. Export to ONNX, and compare with torch", flush=True)
    written = export(folder.path, asked.models, name=NAME, metrics={"test": result.figures}, floors={"test": result.floors})
    print(f"{written} holds {', '.join(sorted(path.name for path in written.iterdir()))}")
    return True


def serve(models: Path, *, port: int, example: Path) -> int:
    """The server as a child in the foreground; returns when Ctrl-C or SIGTERM has stopped it."""
    print("\n5. Serve", flush=True)
    if (why := _why_taken(port)) is not None:
        raise UserError(_another_way(models, port=port, example=example, why=why))
    command = [sys.executable, "-m", "serving", "--models", str(models), "--default-model", NAME, "--port", str(port)]
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        if _until_ready(child, port=port):
            print(_invitation(f"http://127.0.0.1:{port}", example=example), flush=True)
        elif child.wait() and (why := _why_taken(port)) is not None:
            raise UserError(_another_way(models, port=port, example=example, why=why))
        return child.wait()
    except KeyboardInterrupt:
        return child.wait()  # the terminal sent Ctrl-C to the server too, which ends in good order
    finally:
        if child.poll() is None:
            child.kill()


def _example(folder: Path) -> Path:
    """A photo to send: a scene of the test split."""
    path = folder / "example.png"
    if not path.exists():
        from PIL import Image

        from trainer.data.catalogue import open_dataset

        dataset = open_dataset("scenes", None)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.read_photo(dataset.samples("test")[0])).save(path)
    return path


def _refuse_what_cannot_serve(port: int) -> None:
    missing = [name for name in ("onnxruntime", "bentoml", "gradio", "fastapi") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"fewpair demo needs the serving extra too (there is no {', '.join(missing)} here): "
            "pip install '.[serve]' in a clone of the project"
        )
    if (why := _why_taken(port)) is not None:
        raise UserError(f"--port {port} cannot be used ({why}): stop what listens there, or name another port")


def _why_taken(port: int) -> str | None:
    """Why nothing can listen on that port of this machine; None where something can."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        return str(error)
    return None


def _another_way(models: Path, *, port: int, example: Path, why: str) -> str:
    """The sentence for a port that was free before the training."""
    free = next(number for number in [*range(port + 1, 2**16), 0] if _why_taken(number) is None)
    command, usual = f"fewpair demo --port {free}", DemoOptions()
    if models != usual.models:
        command += f" --models {shlex.quote(str(models))}"
    if example.parent != usual.run:
        command += f" --run {shlex.quote(str(example.parent))}"
    return (
        f"--port {port} was taken meanwhile ({why}). The model is kept in {models / NAME}; "
        f"stop what listens there, or serve the model on another port, which trains nothing: {command}"
    )


def _listens(child: "subprocess.Popen[bytes]", *, port: int) -> bool:
    """Whether it is the child, or a process below it, who listens there: another server would answer as well."""
    import psutil  # type: ignore[import-untyped]  # one of BentoML's own dependencies

    try:
        launcher = psutil.Process(child.pid)
        held = [one for process in [launcher, *launcher.children(recursive=True)] for one in process.net_connections(kind="tcp")]
    except psutil.NoSuchProcess:  # one of them ended while it was asked
        return False
    except (psutil.Error, OSError):  # the system does not tell
        return True
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in held)


def _until_ready(child: "subprocess.Popen[bytes]", *, port: int) -> bool:
    """Whether the child and its page answer; False where it ended first (it has said why)."""
    until = time.monotonic() + READY_WITHIN
    waiting = ["/readyz", "/ui/"]  # the page comes some seconds after the API
    while waiting and time.monotonic() < until and child.poll() is None:
        if not _listens(child, port=port):
            time.sleep(0.2)
            continue
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{waiting[0]}", timeout=5).close()
            waiting.pop(0)
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
    if waiting and child.poll() is None:
        child.terminate()
        raise UserError(
            f"{waiting[0]} did not answer within {READY_WITHIN:g} s; start the server alone to see why: fewpair serve --port {port}"
        )
    return not waiting


def _invitation(address: str, *, example: Path) -> str:
    return (
        f"The demo is ready:\n\n"
        f"  page  {address}/ui/\n"
        f"  API   {address}/v1/docs\n"
        f"  try   curl -F image=@{example} -F model={NAME} -F output=overlay {address}/segment -o {example.with_name('overlay.jpg')}\n"
    )


def _mean_iou(figures: dict[str, Any]) -> float:
    return float(figures["mean_iou"])
