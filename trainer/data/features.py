"""From photos to the features that pairs are chosen by: a pretrained extractor, streamed over a dataset."""

import hashlib
import http.client
import math
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image
from torch import nn

from trainer.data.catalogue import Dataset, Sample
from trainer.data.decode import BrokenFile
from trainer.data.featurecache import FeatureCache, KnownFeatures, key_of
from trainer.errors import UserError
from trainer.progress import Progress
from trainer.weights import read_state_dict

SIDE = 224
"""Height and width that every extractor is given."""
BATCH = 8
"""Photos in a call; a shorter rest is filled up, so that a photo's features never depend on how many came with it."""
CONTRACT = "one input `image` Float[B,3,224,224] in [-1,1] and one output `features` Float[B,D]"
"""What an ONNX extractor must have."""

Extract = Callable[[np.ndarray], np.ndarray]
"""uint8[B,224,224,3] RGB -> Float32[B,D]."""


class FeatureSource:
    """A pretrained network as photo -> Float32[D]. The whole photo is resized to 224x224 by Pillow's bicubic, aspect ratio ignored."""

    def __init__(self, extract: Extract, *, name: str, sha256: str) -> None:
        self.name = name
        """The network and the first 8 digits of its file's sha256: part of every figure made with it."""
        self.sha256 = sha256
        self._extract = extract
        self.dimensions = self._run(np.zeros((1, SIDE, SIDE, 3), np.uint8)).shape[1]
        """D, the length of a photo's features."""

    def of_pictures(self, pictures: np.ndarray) -> np.ndarray:
        """uint8[N,H,W,3] -> Float32[N,D]."""
        rows = np.empty((len(pictures), self.dimensions), np.float32)
        for start in range(0, len(pictures), BATCH):
            prepared = np.stack([_prepared(picture) for picture in pictures[start : start + BATCH]])
            rows[start : start + BATCH] = self._run(prepared)
        return rows

    def features(self, dataset: Dataset, samples: Sequence[Sample], *, cache: Path | None, progress: bool) -> np.ndarray:
        """Float32[N,D] in the samples' order. Raises UserError with the photos that cannot be read, once all others are in the cache."""
        rows, broken = self.readable(dataset, samples, cache=cache, progress=progress)
        if broken:
            first = "; ".join(list(broken.values())[:5]) + (f"; and {len(broken) - 5} more" if len(broken) > 5 else "")
            remedy = "replace them, or go on without them with --skip-broken"
            raise UserError(f"{len(broken)} of the {len(samples)} photos of {dataset.place} cannot be read: {first}: {remedy}")
        return rows

    def readable(
        self, dataset: Dataset, samples: Sequence[Sample], *, cache: Path | None, progress: bool
    ) -> tuple[np.ndarray, dict[Sample, str]]:
        """Float32[N,D] of the readable samples, in their order, and why each of the others is not.

        `cache` is the folder where features are kept, each written as soon as it is known; None keeps none. Beside the result the
        memory does not grow with N.
        """
        rows = np.empty((len(samples), self.dimensions), np.float32)
        known = np.zeros(len(samples), dtype=bool)
        broken: dict[Sample, str] = {}
        store = None if cache is None else FeatureCache(cache, name=self.name, extractor=self.sha256, dimensions=self.dimensions)
        with (
            store.opened() if store else nullcontext(),
            Progress(len(samples), what="features", unit="photo", shown=progress) as bar,
        ):
            keys = [key_of(dataset, sample) for sample in samples] if store else []
            if store:
                known = store.load(keys, rows)
                bar.known(int(known.sum()))
            for places, photos in _batches(_decoded(dataset, samples, np.flatnonzero(~known), broken, bar)):
                rows[places] = self._run(np.stack(photos))
                known[places] = True
                if store:
                    store.put([keys[place] for place in places], rows[places])
                bar.update(len(places))
        return (rows[known] if broken else rows), broken

    def _run(self, photos: np.ndarray) -> np.ndarray:
        """uint8[B,224,224,3], B at most BATCH -> Float32[B,D], checked."""
        filled = np.concatenate([photos, np.zeros((BATCH - len(photos), SIDE, SIDE, 3), np.uint8)])
        rows = self._extract(filled)
        if rows.ndim != 2 or rows.shape[0] != BATCH or rows.dtype != np.float32:
            raise UserError(f"{self.name} answers {BATCH} photos with {rows.dtype}{list(rows.shape)}, but features are Float[{BATCH},D]")
        if not np.isfinite(rows[: len(photos)]).all():
            raise UserError(f"{self.name} answers a photo with values that are not finite: it is no usable feature extractor")
        return rows[: len(photos)]


def known_features(path: Path | None) -> KnownFeatures:
    """What `open_features` of the same path has kept in a cache, without opening it. Raises UserError where there is no such file."""
    if path is None:
        return KnownFeatures(name=f"resnet50-{_digits_of_torchvision_s()[:8]}", sha256=_digits_of_torchvision_s())
    kind, sha256 = _identified(path)
    return KnownFeatures(name=f"{path.stem if kind == '.onnx' else 'resnet50'}-{sha256[:8]}", sha256=sha256)


def open_features(path: Path | None, *, device: torch.device | str = "cpu") -> FeatureSource:
    """The extractor of a file, or torchvision's ResNet-50 where `path` is None (downloaded once, by torchvision itself).

    A .onnx file needs one input `image` Float[B,3,224,224] in [-1,1] and one output `features` Float[B,D]; a .pth or .pt file is a state
    dict of torchvision's resnet50, whose 2048 values before the last layer are the features, as in the hybrid paper. Raises UserError
    with what was found and what is expected.
    """
    if path is None:
        state, sha256 = _downloaded()
        return FeatureSource(_resnet50(state, device, source="torchvision's ResNet-50"), name=f"resnet50-{sha256[:8]}", sha256=sha256)
    kind, sha256 = _identified(path)
    if kind == ".onnx":
        return FeatureSource(_onnx(path, torch.device(device)), name=f"{path.stem}-{sha256[:8]}", sha256=sha256)
    return FeatureSource(
        _resnet50(
            read_state_dict(path, source=f"--features {path}", wanted="a state dict of torchvision's resnet50"),
            device,
            source=f"--features {path}",
        ),
        name=f"resnet50-{sha256[:8]}",
        sha256=sha256,
    )


def _identified(path: Path) -> tuple[str, str]:
    """The ending and the sha256 of an extractor's file."""
    if not path.is_file():
        raise UserError(
            f"--features {path}: there is no such file; give a state dict of torchvision's resnet50 (.pth) or a .onnx extractor"
        )
    kind = path.suffix.lower()
    if kind not in (".onnx", ".pth", ".pt"):
        raise UserError(
            f"--features {path} ends in {kind or 'nothing'}: give a .onnx extractor, or a state dict of torchvision's resnet50 (.pth)"
        )
    return kind, hashlib.sha256(path.read_bytes()).hexdigest()


def _prepared(photo: np.ndarray) -> np.ndarray:
    """uint8[H,W,3] -> uint8[224,224,3]."""
    return np.asarray(Image.fromarray(photo).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _decoded(
    dataset: Dataset, samples: Sequence[Sample], places: np.ndarray, broken: dict[Sample, str], bar: Progress
) -> Iterator[tuple[int, np.ndarray]]:
    """The prepared photo of each place, in order, decoded by as many threads as torch has; never more than a few batches ahead."""

    def prepare(place: int) -> np.ndarray:
        return _prepared(dataset.read_photo(samples[place]))

    with ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="decode") as threads:
        waiting: deque[tuple[int, Future[np.ndarray]]] = deque()
        try:
            for place in [*map(int, places), None]:
                if place is not None:
                    waiting.append((place, threads.submit(prepare, place)))
                while waiting and (place is None or len(waiting) > 4 * BATCH):
                    ready, future = waiting.popleft()
                    try:
                        yield ready, future.result()
                    except BrokenFile as error:
                        broken[samples[ready]] = error.reason
                        bar.update()
        finally:
            threads.shutdown(cancel_futures=True)


def _batches(photos: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    places: list[int] = []
    batch: list[np.ndarray] = []
    for place, photo in photos:
        places.append(place)
        batch.append(photo)
        if len(batch) == BATCH:
            yield places, batch
            places, batch = [], []
    if batch:
        yield places, batch


def _downloaded() -> tuple[dict[str, torch.Tensor], str]:
    """The weights of the papers' time (IMAGENET1K_V1), and the start of their sha256, which torchvision checks and writes into the name."""
    from torchvision.models import ResNet50_Weights  # takes seconds to import, and much memory

    weights = ResNet50_Weights.IMAGENET1K_V1
    try:
        state = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, pickle.UnpicklingError) as error:
        raise UserError(
            f"torchvision could not fetch its ResNet-50 weights ({error}): fetch {weights.url} where there is a network and name "
            "the file with --features PATH, or name an .onnx extractor there; `--rule random` needs no features"
        ) from error
    return dict(state), _digits_of_torchvision_s()


def _digits_of_torchvision_s() -> str:
    """The start of the sha256 of torchvision's ResNet-50, from its file's name."""
    from torchvision.models import ResNet50_Weights

    return Path(ResNet50_Weights.IMAGENET1K_V1.url).stem.partition("-")[2]


def _resnet50(state: dict[str, torch.Tensor], device: torch.device | str, *, source: str) -> Extract:
    """ResNet-50 without its last layer; the state dict must be that of torchvision's resnet50, with or without the last layer."""
    from torchvision.models import resnet50

    with torch.device("meta"):  # no second set of weights beside those that are given
        network = resnet50()
        network.fc = nn.Identity()  # type: ignore[assignment]
    given = {name: value for name, value in state.items() if not name.startswith("fc.")}
    expected = network.state_dict()
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    wrong = [
        *(f"{name} is missing" for name in expected if name in needed - given.keys()),
        *(f"{name} is no part of it" for name in given if name not in expected),
        *(
            f"{name} has shape {list(given[name].shape)} instead of {list(expected[name].shape)}"
            for name in expected
            if name in given and given[name].shape != expected[name].shape
        ),
    ]
    if wrong:
        raise UserError(
            f"{source} is not the state dict of torchvision's resnet50: {wrong[0]}"
            + (f", and {len(wrong) - 1} more differ" if wrong[1:] else "")
        )
    counters = {name: torch.zeros((), dtype=torch.long) for name in expected if name not in given}
    network.load_state_dict(given | counters, assign=True)
    network.eval().to(device)
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)

    def extract(photos: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            image = torch.from_numpy(photos).to(device).movedim(-1, 1).float().div(255)
            return network((image - mean) / deviation).float().cpu().numpy()

    return extract


def _onnx(path: Path, device: torch.device) -> Extract:
    """An ONNX file as an extractor. Raises UserError where it is none, or where its input or output differ from the contract."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    providers: list[object] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no common class but this one
        raise UserError(
            f"--features {path} cannot be read as an ONNX model ({str(error).splitlines()[0]}): give an extractor with {CONTRACT}, "
            "or a state dict of torchvision's resnet50 (.pth)"
        ) from error
    if device.type == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise UserError(
            f"--device {device}: onnxruntime cannot use CUDA here; say --device cpu, or pip install '.[cuda]' in a clone of the project"
        )
    inputs, outputs = ([(each.name, each.type, each.shape) for each in side] for side in (session.get_inputs(), session.get_outputs()))
    sound = (
        len(inputs) == len(outputs) == 1
        and inputs[0][:2] == ("image", "tensor(float)")
        and outputs[0][:2] == ("features", "tensor(float)")
        and len(inputs[0][2]) == 4
        and all(not isinstance(side, int) or side == wanted for side, wanted in zip(inputs[0][2], (math.inf, 3, SIDE, SIDE), strict=True))
        and len(outputs[0][2]) == 2
    )
    if not sound:
        found = " and ".join(
            ", ".join(f"{word} {name} {kind}{list(shape)}" for name, kind, shape in side) or f"no {word}"
            for word, side in (("input", inputs), ("output", outputs))
        )
        raise UserError(f"--features {path} has {found}; a feature extractor has {CONTRACT}, with B free")

    def extract(photos: np.ndarray) -> np.ndarray:
        image = np.ascontiguousarray(photos.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(127.5) - np.float32(1)
        try:
            return session.run(["features"], {"image": image})[0]
        except Exception as error:
            raise UserError(
                f"--features {path} fails on {len(photos)} photos ({str(error).splitlines()[0]}); it needs {CONTRACT}, with B free"
            ) from error

    return extract
