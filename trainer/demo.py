"""`fewpair demo`: select pairs, train, evaluate, export and serve a segmenter of the synthetic street scenes."""

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import tyro
from PIL import Image

from trainer.errors import UserError

NAME = "scenes-demo"
"""The recipe, and the model's name."""


@dataclass(frozen=True)
class DemoOptions:
    """The options of `fewpair demo`."""

    port: int = 3000
    """The server's port on this machine."""
    serve: bool = True
    """Serve the model at the end; --no-serve: leave it in the models folder."""
    models: Path = Path("exported")
    """The folder that the model is exported to and that is served."""
    run: Path = Path("runs/demo")
    """The folder of the run. A demo that was interrupted is continued there."""
    steps: int | None = None
    """Training steps; None: the recipe's."""


def main(arguments: list[str]) -> int:
    """Train, evaluate and export, unless the model is there already; then serve in the foreground."""
    options = tyro.cli(
        DemoOptions,
        prog="fewpair demo",
        args=arguments,
        description="From 8 labelled photos to a served model, on street scenes drawn by fewpair.",
    )
    if options.serve:
        _check_port(options.port)  # before the training
    if (options.models / NAME / "manifest.json").exists():
        print(f"{options.models / NAME} exists; remove it to train again.")
    else:
        make(options)
    return serve(options) if options.serve else 0


def make(options: DemoOptions) -> None:
    """Select pairs, train, evaluate and export. Continues the run in `options.run` if there is one."""
    from trainer.commands.evaluate import evaluate
    from trainer.commands.export import export
    from trainer.commands.train import train
    from trainer.data.catalogue import open_dataset

    run = str(options.run)
    if (options.run / "config.json").exists():
        print(f"1. Continue the training in {run}, to the step it was planned for", flush=True)
        train(["--resume", run])
    else:
        print("1. Train on labelled and unlabelled scenes", flush=True)
        train([NAME, "--out", run, *([] if options.steps is None else ["--steps", str(options.steps)])])
    print("\n2. Evaluate on other scenes, of split test", flush=True)
    evaluate([run, "--split", "test", "--checkpoint", "last"])
    print("\n3. Export to ONNX, and compare with torch", flush=True)
    export([run, "--out", str(options.models), "--name", NAME, "--checkpoint", "last"])
    scenes = open_dataset("scenes", None)
    Image.fromarray(scenes.read_photo(scenes.samples("test")[0])).save(options.run / "example.png")


def serve(options: DemoOptions) -> NoReturn:
    """Become the server, so that what stops this process stops the server."""
    print("\n4. Serve", flush=True)
    example = options.run / "example.png"
    address = f"http://127.0.0.1:{options.port}"
    print(
        f"When the server is ready, open {address}/ui/ or try:\n\n"
        f"  curl -F image=@{example} -F model={NAME} -F output=overlay {address}/segment -o overlay.jpg\n",
        flush=True,
    )
    command = [sys.executable, "-m", "serving", "--models", str(options.models), "--default-model", NAME]
    os.execv(sys.executable, [*command, "--port", str(options.port)])


def _check_port(port: int) -> None:
    """Raise UserError where nothing can listen on that port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise UserError(f"--port {port} cannot be used ({error}); stop its server or name another") from error
