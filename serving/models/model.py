"""One exported folder as a callable on arrays: ONNX Runtime sessions, checked against the manifest and warmed up."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _exceptions
from PIL import Image

from serving.errors import ModelError, Refusal
from serving.imaging.decode import Bytes
from serving.imaging.resize import Scaled, from_model, to_model
from serving.imaging.tiling import BATCH_PIXELS, Grid, Tiles, lay
from serving.models.manifest import DirectionName, Manifest, read_manifest
from serving.models.session import CPU, first_line, has_vnni, open_session, why_no_cuda
from serving.settings import Device

logger = logging.getLogger("fewpair.serving")
_WARM_UP_SIZE = (128, 192)
_TILE = 1024  # side of a tile, where the manifest names no size
_AUTO_PIXELS = 2**22  # pixels that tiles=auto still runs in one piece
Noise = NDArray[np.float32]
# What a run raises: ONNX Runtime's exceptions have no base class of their own, and C++ exceptions arrive as
# RuntimeError.
RUN_FAILURES: tuple[type[Exception], ...] = (
    MemoryError,
    RuntimeError,
    *(kind for kind in vars(_exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)
_RUN_ERRORS: tuple[type[Exception], ...] = (Refusal, *RUN_FAILURES)
_BAD_SIZE: type[Exception] = _exceptions.InvalidArgument  # reflection padding needs more pixels than it adds


class CancelToken:
    """The options of a run; `cancel` ends it between two nodes of its graph."""

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()
        # The run's memory goes back to the system; the arena would keep that of the largest run.
        self.options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def cancel(self) -> None:
        self.options.terminate = True


@dataclass
class Frames:
    """Pictures in a row: a graph that takes the frame before is given its last answer."""

    last: Bytes | None = None


@dataclass(eq=False)
class ExportedModel:
    """The graphs of one model folder, `to_label` and `to_photo`, as functions of arrays."""

    manifest: Manifest
    sessions: Mapping[DirectionName, onnxruntime.InferenceSession]
    style: onnxruntime.InferenceSession | None  # reads the style of photos
    int8: bool = False  # whether graphs in 8 bits run
    batches: bool = False  # whether pictures of different requests may share a run

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def provider(self) -> str:
        """The execution provider that the sessions report."""
        return str(next(iter(self.sessions.values())).get_providers()[0])

    def offers(self, direction: DirectionName) -> bool:
        return direction in self.manifest.directions

    @property
    def has_confidence(self) -> bool:
        """Whether the model returns a confidence for each pixel of a label map."""
        outputs = self.manifest.directions["to_label"].outputs if self.offers("to_label") else ()
        return any(output.kind == "confidence" for output in outputs)

    def prepare(self, pixels: Bytes) -> Scaled:
        """Bring an upload to the model's scale."""
        return to_model(
            pixels, resize=self.manifest.resize, multiple_of=self.manifest.multiple_of, void=self.manifest.label.void
        )

    def check_tiles(self, tiles: Tiles) -> None:
        """Raise Refusal where tiles are requested and the manifest forbids them."""
        if tiles == "always" and self.manifest.tiling == "forbidden":
            message = f"model {self.name} cannot be run in tiles: its output at a pixel depends on the whole picture."
            hint = "Set tiles to auto: the picture is run in one piece, at the model's scale."
            raise Refusal(400, "tiling_forbidden", message, hint=hint)

    def plan(self, size: tuple[int, int], tiles: Tiles) -> Grid | None:
        """Return the grid over a picture of (height, width), or None where it is run in one piece at the model's scale.

        `auto` tiles pictures over 4 megapixels where the model was trained at the pictures' own scale (rule none); one
        trained on shrunk pictures (exact, fit) would see things larger than in training. `always` tiles whatever is
        larger than a tile.
        """
        (height, width), manifest = size, self.manifest
        resize = manifest.resize
        if tiles == "never" or manifest.tiling == "forbidden":
            return None
        if tiles == "auto" and (resize.rule != "none" or height * width <= _AUTO_PIXELS):
            return None
        tile_height, tile_width = resize.height or _TILE, resize.width or _TILE
        if height <= tile_height and width <= tile_width:
            return None
        return Grid(
            lay(height, tile=tile_height, multiple_of=manifest.multiple_of),
            lay(width, tile=tile_width, multiple_of=manifest.multiple_of),
        )

    def check_noise(self, seed: int | None, count: int, style: str | None) -> None:
        """Raise Refusal where the model takes no noise for several photos, or a style does not fit it or the rest."""
        noise = self.manifest.directions["to_photo"].noise
        if count > 1 and noise is None:
            message = f"model {self.name} takes no noise, so every seed gives the same photo."
            raise Refusal(400, "no_noise", message, hint="Leave count out.")
        if style is not None:
            if seed is not None or count > 1:
                message = "with a style there is one photo, whatever the seed."
                raise Refusal(400, "style_and_seed", message, hint="Leave seed and count out, or style.")
            given, wanted = style.count(",") + 1, 0 if noise is None else math.prod(noise.shape)
            if given != wanted:
                message = f"the style has {given} numbers, model {self.name} takes {wanted}."
                raise Refusal(400, "unfit_style", message, hint="Send what POST /v1/style answered for this model.")

    def run_batch(
        self,
        direction: DirectionName,
        pixels: Bytes,
        *,
        seeds: Sequence[int | Noise],
        cancel: CancelToken | None = None,
        frames: Frames | None = None,
    ) -> dict[str, Bytes]:
        """Run [N,H,W] or [N,H,W,3], each with its noise or that of its seed; return name -> [N,H,W] or [N,H,W,3]."""
        spec = self.manifest.directions[direction]
        feed: dict[str, NDArray[Any]] = {spec.input.name: pixels}
        if spec.noise is not None:
            shape = spec.noise.shape
            noise = [draw_noise(seed, shape) if isinstance(seed, int) else seed.reshape(shape) for seed in seeds]
            feed[spec.noise.name] = np.stack(noise)
        return self.infer(direction, feed, cancel=cancel, frames=frames)

    def run_shared(
        self, direction: DirectionName, frames: Frames | None, items: Sequence[Any], cancel: CancelToken
    ) -> list[dict[str, Bytes]]:
        """Run the images of several callers, (pixels, seeds) each, and return the outputs of each."""
        pixels = np.concatenate([pixels for pixels, _ in items])
        seeds = [seed for _, seeds in items for seed in seeds]
        found = self.run_batch(direction, pixels, seeds=seeds, cancel=cancel, frames=frames)
        ends = np.cumsum([len(seeds) for _, seeds in items])
        return [
            {name: value[end - len(seeds) : end] for name, value in found.items()}
            for end, (_, seeds) in zip(ends, items, strict=True)
        ]

    def infer(
        self,
        direction: DirectionName,
        feed: Mapping[str, NDArray[Any]],
        *,
        cancel: CancelToken | None = None,
        frames: Frames | None = None,
    ) -> dict[str, Bytes]:
        """Run the graph on its own inputs, noise included; return output name -> [N,H,W] or [N,H,W,3].

        Raises Refusal where the graph does not run on pictures of this size, RuntimeError where the run was cancelled.
        """
        spec = self.manifest.directions[direction]
        names = [output.name for output in spec.outputs]
        if spec.previous is not None:
            shape = (*feed[spec.input.name].shape[:3], 3)
            before = None if frames is None else frames.last
            if before is None or before.shape != shape:
                before = np.full(shape, 128, np.uint8)
            feed = {**feed, spec.previous.name: before}
        try:
            found = self.sessions[direction].run(names, dict(feed), (cancel or CancelToken()).options)
        except _BAD_SIZE as error:
            sides = " x ".join(map(str, feed[spec.input.name].shape[1:3]))
            message = f"the graph of {self.name} does not run on {sides} pixels: {first_line(error)}."
            hint = "Send larger pictures; GET /v1/models shows the size the model runs at."
            raise Refusal(400, "unfit_size", message, hint=hint) from error
        if spec.previous is not None and frames is not None:
            frames.last = np.asarray(found[0])
        return {name: np.asarray(value) for name, value in zip(names, found, strict=True)}

    def read_style(self, photo: Bytes) -> Noise:
        """Return the noise that gives photos the look of this one, [H,W,3] of any size."""
        assert self.style is not None
        assert self.manifest.style is not None
        height, width = self.manifest.style.size
        resized = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BOX))
        (noise,) = self.style.run(["noise"], {"photo": resized[None]}, CancelToken().options)
        return np.asarray(noise[0], np.float32)

    def answers(
        self, direction: DirectionName, found: dict[str, Bytes], scaled: Scaled | None
    ) -> tuple[Bytes, Bytes | None]:
        """Return the main output and the confidence, at the upload's size where they were `scaled`."""
        specs = sorted(self.manifest.directions[direction].outputs, key=lambda output: output.kind == "confidence")
        outputs = [found[spec.name] for spec in specs]
        if scaled is not None:
            outputs = [from_model(output, scaled, resize=self.manifest.resize) for output in outputs]
        return outputs[0], outputs[1] if len(outputs) > 1 else None


def load_model(
    folder: Path, *, device: Device, threads: int, batch: int = 1, deterministic: bool = False
) -> ExportedModel:
    """Read a folder, open its sessions and run each graph once; above 1, also on `batch` pictures at once.

    Raises ModelError where the folder does not hold what its manifest promises, DeviceError where a required device is
    not there.
    """
    manifest = read_manifest(folder)
    sessions = {
        name: open_session(direction, device=device, threads=threads, deterministic=deterministic)
        for name, direction in manifest.directions.items()
    }
    style = manifest.style and open_session(manifest.style, device=device, threads=threads, deterministic=deterministic)
    small = (device == "cpu" or why_no_cuda() is not None) and has_vnni()  # as `open_session` chooses
    int8 = small and any(direction.int8 for direction in manifest.directions.values())
    model = ExportedModel(manifest, sessions, style, int8)
    try:
        _warm_up(model)
        if batch > 1 and not deterministic:
            model.batches = _can_batch(model, batch)
    except ModelError:
        raise
    except Exception as error:  # whatever ONNX Runtime raises, the model cannot be used
        message = f"{manifest.name} failed its warm-up run: {first_line(error)}."
        raise ModelError(message, hint="Export it again.") from error
    return model


def draw_noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return standard normal noise that depends on the seed alone."""
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)


def _own_size(manifest: Manifest) -> tuple[int, int]:
    return manifest.resize.height or _WARM_UP_SIZE[0], manifest.resize.width or _WARM_UP_SIZE[1]


def _warm_up(model: ExportedModel) -> None:
    """Run each graph on an empty picture. Raises ModelError where an output is not what the manifest promises."""
    height, width = _own_size(model.manifest)
    if model.manifest.style is not None:
        model.read_style(np.zeros((height, width, 3), np.uint8))
    for direction, spec in model.manifest.directions.items():
        empty = np.zeros((height, width, 3) if spec.input.layout == "NHWC" else (height, width), np.uint8)
        scaled = model.prepare(empty)
        found = model.run_batch(direction, scaled.pixels[None], seeds=[0])
        for output in spec.outputs:
            answer, size = found[output.name][0], scaled.pixels.shape[:2]
            promised = (*size, 3) if output.layout == "NHWC" else size
            if answer.dtype != np.uint8 or answer.shape != promised:
                found_as, promised_as = _spelled(answer.dtype, answer.shape), _spelled("uint8", promised)
                message = f"{spec.file} answers {output.name} as {found_as}, its manifest promises {promised_as}."
                raise ModelError(message, hint="Export it again.")


def _can_batch(model: ExportedModel, most: int) -> bool:
    """Test whether the answer to a picture is the same alone and in a batch: to the byte, on CUDA within one level."""
    height, width = _own_size(model.manifest)
    most = min(most, BATCH_PIXELS // (height * width))
    if most < 2:
        return False
    try:
        same = all(_same_in_batch(model, direction, (most, height, width)) for direction in model.manifest.directions)
    except _RUN_ERRORS as error:
        logger.warning("%s runs every picture alone: it fails on %d at once: %s.", model.name, most, first_line(error))
        return False
    if not same:
        logger.warning("%s runs every picture alone: answers depend on the rest of the batch.", model.name)
    return same


def _same_in_batch(model: ExportedModel, direction: DirectionName, shape: tuple[int, int, int]) -> bool:
    spec, random, most = model.manifest.directions[direction], np.random.Generator(np.random.PCG64(0)), shape[0]
    if spec.input.layout == "NHWC":
        drawn = random.integers(0, 256, (*shape, 3), np.uint8)
    else:
        drawn = random.choice(np.array([row.id for row in model.manifest.label.classes], np.uint8), shape)
    pixels = np.stack([model.prepare(one).pixels for one in drawn])
    together = model.run_batch(direction, pixels, seeds=range(most))
    for index in (0, most - 1):
        alone = model.run_batch(direction, pixels[index : index + 1], seeds=[index])
        for output in spec.outputs:
            tolerance = 0 if model.provider == CPU or output.kind == "label" else 1
            if np.abs(together[output.name][index].astype(np.int16) - alone[output.name][0]).max() > tolerance:
                return False
    return True


def _spelled(dtype: object, shape: tuple[int, ...]) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"
