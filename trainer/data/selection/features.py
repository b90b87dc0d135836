"""Features of photos from a pretrained network, for pair selection and for metrics, with a cache on disk."""

import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from trainer.data.dataset import Dataset, Sample, resized
from trainer.errors import UserError
from trainer.networks.encoders import DEFAULT, Encoder, load_encoder
from trainer.onnx_session import open_session
from trainer.progress import progress_bar

SIDE = 224
"""Height and width of the input of every extractor."""
BATCH = 8
"""Photos in a forward pass; a shorter batch is padded, so that features never depend on the batch mates."""
RESNET50 = "resnet50.tv_in1k"
"""timm's name of the ResNet-50 that the hybrid paper compares photos with: torchvision's first ImageNet weights."""
CONTRACT = "one input `image` Float[B,3,224,224] in [-1,1] and one output `features` Float[B,D]"

Extract = Callable[[np.ndarray], np.ndarray]
"""uint8[B,224,224,3] RGB -> Float32[B,D]."""


class FeatureExtractor:
    """A pretrained network: photo -> Float32[D]. The photo is resized to 224x224 (bicubic, aspect ratio ignored)."""

    def __init__(self, extract: Extract, *, name: str) -> None:
        self.name = name
        """The network, and the first 8 digits of its file's sha256; part of every figure made with it."""
        self._extract = extract

    def of_pictures(self, pictures: np.ndarray) -> np.ndarray:
        """uint8[N,H,W,3] -> Float32[N,D]."""
        return self._forward(np.stack([resized(picture, (SIDE, SIDE)) for picture in pictures]))

    def of_samples(self, dataset: Dataset, samples: Sequence[Sample], *, cache: Path | None) -> np.ndarray:
        """Float32[N,D] of the samples, in their order.

        `cache` is a folder; its file `<name>.npz` maps the sha256 of a photo's file to its features. It is written at
        the end, also after an interruption.
        """
        path = None if cache is None else cache / f"{self.name}.npz"
        known = _read_cache(path)
        keys = [bytes.fromhex(dataset.digest(sample, "photo")) for sample in samples]
        new = {key: sample for key, sample in zip(keys, samples, strict=True) if key not in known}
        waiting = list(new)
        bar = progress_bar(what="features", unit="photo", shown=True, total=len(waiting))
        try:
            with bar, ThreadPoolExecutor(torch.get_num_threads()) as threads:
                for at in range(0, len(waiting), 8 * BATCH):
                    group = waiting[at : at + 8 * BATCH]
                    photos = threads.map(lambda key: resized(dataset.read_photo(new[key]), (SIDE, SIDE)), group)
                    known |= dict(zip(group, self._forward(np.stack(list(photos))), strict=True))
                    bar.update(len(group))
        finally:
            if path is not None and waiting and waiting[0] in known:
                _write_cache(path, known)
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, 1), np.float32)

    def _forward(self, photos: np.ndarray) -> np.ndarray:
        """uint8[N,224,224,3] -> Float32[N,D], finite."""
        results = []
        for at in range(0, len(photos), BATCH):
            batch = photos[at : at + BATCH]
            rows = self._extract(np.concatenate([batch, np.zeros((BATCH - len(batch), SIDE, SIDE, 3), np.uint8)]))
            results.append(rows[: len(batch)])
        features = np.concatenate(results)
        if features.ndim != 2 or features.dtype != np.float32 or not np.isfinite(features).all():
            raise UserError(
                f"{self.name} returns {features.dtype}{list(features.shape)} for {len(photos)} photos, or values that "
                f"are not finite; a feature extractor has {CONTRACT}"
            )
        return features


def open_features(source: Path | None, *, device: torch.device | str = "cpu") -> FeatureExtractor:
    """The extractor that `--features` names: EfficientNet-Lite0 (None), the hybrid paper's ResNet-50, or a file.

    Its weights are installed with the package, downloaded once, or read: a .pth or .pt file holds that ResNet-50's, a
    .onnx file is a network under CONTRACT. Raises UserError for anything else.
    """
    if source is None or str(source) == "resnet50":
        name = DEFAULT if source is None else RESNET50
        return FeatureExtractor(_pooled(load_encoder(name), device), name=name)
    if not source.is_file() or source.suffix.lower() not in (".onnx", ".pth", ".pt"):
        raise UserError(
            f"--features {source}: give resnet50, a file with weights of torchvision's resnet50 (.pth) or an "
            "extractor (.onnx)"
        )
    digits = hashlib.sha256(source.read_bytes()).hexdigest()[:8]
    if source.suffix.lower() != ".onnx":
        return FeatureExtractor(_pooled(load_encoder(RESNET50, source), device), name=f"resnet50-{digits}")
    extractor = FeatureExtractor(_onnx(source, device), name=f"{source.stem}-{digits}")
    extractor.of_pictures(np.zeros((1, SIDE, SIDE, 3), np.uint8))  # refuses other shapes before any photo is read
    return extractor


def _read_cache(path: Path | None) -> dict[bytes, np.ndarray]:
    """{sha256 of a photo's file: its features}; empty if there is no cache yet."""
    if path is None or not path.is_file():
        return {}
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            return dict(zip(map(bytes, file["sha256"]), file["features"], strict=True))
    except (OSError, ValueError, KeyError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as a cache of features ({error}): remove it") from error


def _write_cache(path: Path, known: dict[bytes, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{path.name}")
    keys = np.frombuffer(b"".join(known), np.uint8).reshape(len(known), 32)
    np.savez(part, sha256=keys, features=np.stack(list(known.values())))
    part.replace(path)


def _pooled(encoder: Encoder, device: torch.device | str) -> Extract:
    """The mean over the pixels of an encoder's last feature map."""
    encoder.to(device)

    def extract(photos: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            photo = torch.from_numpy(photos).to(device).movedim(-1, 1).float().div(127.5).sub(1)
            return encoder(photo)[-1].mean((2, 3)).float().cpu().numpy()

    return extract


def _onnx(path: Path, device: torch.device | str) -> Extract:
    """An ONNX model. Raises UserError if it cannot be read, or if its input or output differ from the contract."""
    try:
        session = open_session(path.read_bytes(), device)
        names = [[each.name for each in side] for side in (session.get_inputs(), session.get_outputs())]
        if names == [["image"], ["features"]]:
            session.run(["features"], {"image": np.zeros((BATCH, 3, SIDE, SIDE), np.float32)})
    except UserError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no other common class
        problem = str(error).splitlines()[0]
        raise UserError(f"--features {path} fails ({problem}); it needs {CONTRACT}, B free") from error
    if names != [["image"], ["features"]]:
        raise UserError(f"--features {path} has inputs {names[0]}, outputs {names[1]}; an extractor has {CONTRACT}")

    def extract(photos: np.ndarray) -> np.ndarray:
        image = np.ascontiguousarray(photos.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(127.5)
        return session.run(["features"], {"image": image - np.float32(1)})[0]

    return extract
