"""One exported folder as a callable on arrays: onnxruntime sessions, warm, on the device that was asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _raised

from serving.errors import ModelError, Refusal
from serving.imaging import Bytes
from serving.manifest import Direction, DirectionName, Manifest, TensorSpec, read_manifest
from serving.scale import Scaled, from_model, to_model
from serving.session import CPU, first_line, open_session
from serving.settings import Device
from serving.tiles import BATCH_PIXELS

logger = logging.getLogger("fewpair.serving")
_WARM_SIZE = (128, 192)
# What a run raises; onnxruntime gives its exceptions no base of their own, and passes on a C++ exception as a RuntimeError.
RUN_FAILURES: tuple[type[Exception], ...] = (
    MemoryError,
    RuntimeError,
    *(kind for kind in vars(_raised).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)


_REFUSED_OR_FAILED: tuple[type[Exception], ...] = (Refusal, *RUN_FAILURES)
_UNFIT: type[Exception] = _raised.InvalidArgument  # reflection padding, for one, wants more pixels than it adds


class ExportedModel:
    """A model folder that answers: `to_label` and `to_photo` on arrays, and their three steps for a server that times them."""

    def __init__(self, manifest: Manifest, sessions: Mapping[DirectionName, onnxruntime.InferenceSession]) -> None:
        self.manifest = manifest
        self.batches = False  # whether pictures may share a run, because none of them shows in the others' answers
        self._sessions = sessions

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def provider(self) -> str:
        """Where the model really runs, as its session says."""
        return str(next(iter(self._sessions.values())).get_providers()[0])

    def offers(self, direction: DirectionName) -> bool:
        return direction in self.manifest.directions

    @property
    def has_confidence(self) -> bool:
        """Whether it says how sure it is of each pixel; not where label maps are decoded from colours."""
        return self.offers("to_label") and any(output.kind == "confidence" for output in self.manifest.directions["to_label"].outputs)

    def to_label(self, photo: Bytes) -> tuple[Bytes, Bytes | None]:
        """uint8[H,W,3] to ids uint8[H,W] (or a picture uint8[H,W,3]) and confidence uint8[H,W] where the model has it."""
        scaled = self.prepare(photo)
        found = self.run("to_label", scaled)
        ids = from_model(found[_main_output(self.manifest.directions["to_label"])], scaled, resize=self.manifest.resize)
        return ids, self.confidence(found, scaled)

    def to_photo(self, label: Bytes, *, seed: int) -> Bytes:
        """ids uint8[H,W] (or a picture uint8[H,W,3]) to a photo uint8[H,W,3]; equal seeds give equal photos."""
        scaled = self.prepare(label)
        found = self.run("to_photo", scaled, seed=seed)
        return self.restore("to_photo", found, scaled)

    def prepare(self, pixels: Bytes) -> Scaled:
        """Bring an upload to the model's scale."""
        return to_model(pixels, resize=self.manifest.resize, multiple_of=self.manifest.multiple_of, void=self.manifest.label.void)

    def run(self, direction: DirectionName, scaled: Scaled, *, seed: int = 0) -> dict[str, Bytes]:
        """One run of the graph at the model's scale: output name -> [H,W] or [H,W,3]."""
        return {name: value[0] for name, value in self.run_batch(direction, scaled.pixels[None], seeds=[seed]).items()}

    def run_batch(self, direction: DirectionName, pixels: Bytes, *, seeds: Sequence[int], brake: Brake | None = None) -> dict[str, Bytes]:
        """One run over [N,H,W] or [N,H,W,3], each with the noise of its seed: output name -> [N,H,W] or [N,H,W,3]."""
        spec = self.manifest.directions[direction]
        feed: dict[str, NDArray[Any]] = {spec.input.name: pixels}
        if spec.noise is not None:
            drawn = {seed: draw_noise(seed, spec.noise.shape) for seed in seeds}
            feed[spec.noise.name] = np.stack([drawn[seed] for seed in seeds])
        return self.infer(direction, feed, brake=brake)

    def infer(self, direction: DirectionName, feed: Mapping[str, NDArray[Any]], *, brake: Brake | None = None) -> dict[str, Bytes]:
        """One run of the graph on its own inputs, noise included: output name -> [N,H,W] or [N,H,W,3].

        Refusal (400) where the graph does not run on pictures of this size; a RuntimeError where the brake is pulled meanwhile.
        """
        spec = self.manifest.directions[direction]
        names = [output.name for output in spec.outputs]
        try:
            found = self._sessions[direction].run(names, dict(feed), None if brake is None else brake.options)
        except _UNFIT as error:
            sides = " x ".join(map(str, feed[spec.input.name].shape[1:3]))
            raise Refusal(
                400,
                "unfit_size",
                f"the graph of {self.name} does not run on {sides} pixels: {first_line(error)}.",
                hint="Send larger pictures; GET /v1/models tells the size the model runs at.",
            ) from error
        return {name: np.asarray(value) for name, value in zip(names, found, strict=True)}

    def restore(self, direction: DirectionName, found: dict[str, Bytes], scaled: Scaled) -> Bytes:
        """The main output of a run at the upload's size."""
        return from_model(found[_main_output(self.manifest.directions[direction])], scaled, resize=self.manifest.resize)

    def confidence(self, found: dict[str, Bytes], scaled: Scaled) -> Bytes | None:
        """The confidence of a run at the upload's size; None where the model has none."""
        name = next((output.name for output in self.manifest.directions["to_label"].outputs if output.kind == "confidence"), None)
        return None if name is None else from_model(found[name], scaled, resize=self.manifest.resize)

    def answers(self, direction: DirectionName, found: dict[str, Bytes], scaled: Scaled | None) -> tuple[Bytes, Bytes | None]:
        """The main output and the confidence at the upload's size, brought back to it where they were `scaled`."""
        spec = self.manifest.directions[direction]
        outputs = [found[output.name] for output in sorted(spec.outputs, key=lambda output: output.kind == "confidence")]
        if scaled is not None:
            outputs = [from_model(output, scaled, resize=self.manifest.resize) for output in outputs]
        return outputs[0], outputs[1] if len(outputs) > 1 else None

    def warm_up(self) -> None:
        """Answer one empty request in each direction, so that the first caller does not wait for kernels to be chosen.

        ModelError where an answer is not what the manifest promises.
        """
        height, width = self._own_size()
        for direction, spec in self.manifest.directions.items():
            empty = np.zeros((height, width, 3) if spec.input.layout == "NHWC" else (height, width), np.uint8)
            scaled = self.prepare(empty)
            found = self.run(direction, scaled)
            for output in spec.outputs:
                _check_answer(found[output.name], spec.file, output=output, size=scaled.pixels.shape[:2])
            self.restore(direction, found, scaled)

    def try_batches(self, most: int) -> None:
        """Allow shared runs where a drawn picture's answer does not depend on its neighbours: to the byte, on CUDA within one level."""
        height, width = self._own_size()
        most = min(most, BATCH_PIXELS // (height * width))
        if most < 2:  # at this size no two ever share a run
            return
        try:
            self.batches = self._strays(most) <= (0 if self.provider == CPU else 1)
            why = "its answers change with the pictures beside it"
        except _REFUSED_OR_FAILED as error:
            why = f"it fails on {most} at once: {first_line(error)}"
        if not self.batches:
            logger.warning("%s runs every picture alone: %s.", self.name, why)

    def _own_size(self) -> tuple[int, int]:
        return self.manifest.resize.height or _WARM_SIZE[0], self.manifest.resize.width or _WARM_SIZE[1]

    def _strays(self, most: int) -> int:
        """By how many levels answers to drawn pictures differ at most, in company and alone."""
        height, width = self._own_size()
        drawn = np.random.Generator(np.random.PCG64(0))
        strays = 0
        for direction, spec in self.manifest.directions.items():
            if spec.input.layout == "NHWC":
                pixels = np.stack([self.prepare(drawn.integers(0, 256, (height, width, 3), np.uint8)).pixels for _ in range(most)])
            else:
                ids = np.array([*(one.id for one in self.manifest.label.classes)], np.uint8)
                pixels = np.stack([self.prepare(drawn.choice(ids, (height, width))).pixels for _ in range(most)])
            alone = {index: self.run_batch(direction, pixels[index : index + 1], seeds=[index]) for index in {0, 1, most - 1}}
            for size in {2, most}:
                together = self.run_batch(direction, pixels[:size], seeds=range(size))
                for index in alone.keys() & set(range(size)):
                    strays = max(strays, *(_stray(together[one.name][index], alone[index][one.name][0], one) for one in spec.outputs))
        return strays


class Brake:
    """Breaks off a run that nobody waits for any more, between two nodes of its graph."""

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()

    def pull(self) -> None:
        self.options.terminate = True


def load_model(folder: Path, *, device: Device, threads: int, batch: int = 1, deterministic: bool = False) -> ExportedModel:
    """Read a folder, start its sessions, check them against the manifest; ModelError or DeviceError says what is wrong.

    With a `batch` over 1 the model is tried on as many pictures at once. `deterministic` sums in one order on CUDA too.
    """
    manifest = read_manifest(folder)
    sessions = {
        name: open_session(direction, device=device, threads=threads, deterministic=deterministic)
        for name, direction in manifest.directions.items()
    }
    model = ExportedModel(manifest, sessions)
    try:
        model.warm_up()
        if batch > 1 and not deterministic:
            model.try_batches(batch)
    except ModelError:
        raise
    except Exception as error:  # whatever onnxruntime raises, the model is of no use
        raise ModelError(f"{manifest.name} failed its warm-up run: {first_line(error)}.", hint="Export it again.") from error
    return model


def draw_noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal noise that depends on the seed alone, not on batch, worker or device."""
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)


def _stray(one: Bytes, other: Bytes, output: TensorSpec) -> int:
    """How far two answers are from one another, in levels; ids that differ have none between them."""
    furthest = int(np.abs(one.astype(np.int16) - other).max())
    return 255 if furthest and output.kind == "label" else furthest


def _check_answer(answer: NDArray[Any], file: Path, *, output: TensorSpec, size: tuple[int, ...]) -> None:
    promised = (*size, 3) if output.layout == "NHWC" else size
    if answer.dtype != np.uint8 or answer.shape != promised:
        raise ModelError(
            f"{file} answers {output.name} as {_spelled(answer.dtype, answer.shape)}, its manifest promises {_spelled('uint8', promised)}.",
            hint="Export it again.",
        )


def _spelled(dtype: object, shape: tuple[int, ...]) -> str:
    return f"{dtype}[{','.join(str(side) for side in shape)}]"


def _main_output(direction: Direction) -> str:
    return next(output.name for output in direction.outputs if output.kind != "confidence")
