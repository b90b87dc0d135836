"""How far generated photos are from real ones as sets: FID, KID, precision and recall, from features to numbers by torch-fidelity."""

import hashlib
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor

from trainer.errors import UserError
from trainer.metrics.evaluate import Seen
from trainer.metrics.runtime import preload_cuda
from trainer.metrics.segmentation import Figures

if TYPE_CHECKING:
    from trainer.data.features import FeatureSource

SETS = ("fid", "kid", "precision", "recall")
"""The figures, as they begin."""
INCEPTION = "inception"
"""The name of torch-fidelity's Inception, which goes without saying in a figure's name."""
NEIGHBOURS = 3
"""k of precision and recall (Kynkäänniemi et al. 2019)."""
KID_SUBSET, KID_SUBSETS, KID_SEED = 1000, 100, 2020
"""Larger sets are compared in random subsets, as torch-fidelity does by default; smaller ones whole, at once."""
TOGETHER = 16
"""Photos whose features are computed in one call."""


@dataclass(frozen=True)
class Extractor:
    """What turns photos into features."""

    name: str
    of_pictures: Callable[[np.ndarray], np.ndarray]
    """uint8[N,H,W,3] -> Float32[N,D]."""
    sha256: str | None = None
    """Of the file of weights; None where torch-fidelity fetched it, which checks it by its name."""

    def named(self, figure: str) -> str:
        """The figure's name, the extractor's in brackets where it is not the Inception of the published figures."""
        return figure if self.name == INCEPTION else f"{figure}[{self.name}]"


def open_extractor(given: str, *, device: str | torch.device = "cpu") -> Extractor:
    """What `--features` names: "inception" (fetched once), its weights as a .pth file, or an ONNX extractor (trainer/data/features.py)."""
    if given == INCEPTION:
        return Extractor(INCEPTION, _inception(None, device))
    path = Path(given)
    if not path.is_file():
        raise UserError(
            f"--features {given}: there is no such file; give {INCEPTION}, a file of its weights (.pth) or an extractor (.onnx)"
        )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix in (".pth", ".pt"):
        return Extractor(INCEPTION, _inception(path, device), sha256)
    if path.suffix != ".onnx":
        raise UserError(f"--features {given}: neither weights of Inception (.pth) nor an extractor (.onnx)")
    source = _onnx_extractor(path, torch.device(device))
    return Extractor(source.name, source.of_pictures, sha256)


class PhotoSets:
    """The features of generated and of real photos, gathered as the photos come; the photos themselves are not kept."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self._waiting: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._features: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])

    def see(self, seen: Seen) -> None:
        """One generated photo and the real one of its label map."""
        for waiting, photo in zip(self._waiting, (seen.generated, seen.real), strict=True):
            waiting.append(photo)
        if len(self._waiting[0]) == TOGETHER:
            self._extract()

    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Float64[N,D] each: of the generated photos, of the real ones."""
        self._extract()
        generated, real = (np.concatenate(parts).astype(np.float64) for parts in self._features)
        return generated, real

    def figures(self) -> Figures:
        """fid, kid, precision and recall, each under its full name."""
        return {self.extractor.named(name): value for name, value in compared(*self.features()).items()}

    def described(self) -> dict[str, object]:
        """What the figures rest on, for the record."""
        generated, real = self.features()
        size = min(len(generated), len(real), KID_SUBSET)
        return {
            "extractor": self.extractor.name,
            "sha256": self.extractor.sha256,
            "generated": len(generated),
            "real": len(real),
            "dimensions": generated.shape[1],
            "neighbours": NEIGHBOURS,
            "kid_subset_size": size,
            "kid_subsets": _subsets(len(generated), len(real), size),
            "comparable_with_published": self.extractor.name == INCEPTION,
        }

    def cautions(self) -> list[str]:
        """Why not to trust the figures too far, in sentences."""
        generated, real = self.features()
        few, dimensions = min(len(generated), len(real)), generated.shape[1]
        told = []
        if few < dimensions:
            told.append(
                f"{self.extractor.named('fid')} is estimated from {len(generated)} generated and {len(real)} real photos in {dimensions} "
                "dimensions: with so few it comes out far too high, and the higher the fewer they are; prefer "
                f"{self.extractor.named('kid')}, which is unbiased, and compare equal numbers of photos only"
            )
        if self.extractor.name != INCEPTION:
            told.append(f"figures made with {self.extractor.name} are not comparable with published ones, which are made with Inception")
        return told

    def _extract(self) -> None:
        for waiting, features in zip(self._waiting, self._features, strict=True):
            if waiting:
                features.append(self.extractor.of_pictures(np.stack(waiting)))
                waiting.clear()


def compared(generated: np.ndarray, real: np.ndarray) -> dict[str, float | None]:
    """fid, kid, precision and recall of two sets of features Float64[N,D]; None where the sets are too small for a figure."""
    few = min(len(generated), len(real))
    precision, recall = precision_and_recall(generated, real) if few > NEIGHBOURS else (None, None)
    return {
        "fid": fid(generated, real) if few > 1 else None,
        "kid": kid(generated, real) if few > 1 else None,
        "precision": precision,
        "recall": recall,
    }


def fid(generated: np.ndarray, real: np.ndarray) -> float:
    """|m_g - m_r|^2 + Tr(C_g + C_r - 2 (C_g C_r)^1/2) (Heusel et al. 2017), in float64 with unbiased covariances."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    generated, real = _in_their_span(generated, real)
    return fid_statistics_to_metric(fid_features_to_statistics(_tensor(generated)), fid_features_to_statistics(_tensor(real)), False)[
        KEY_METRIC_FID
    ]


def kid(generated: np.ndarray, real: np.ndarray) -> float:
    """The squared maximum mean discrepancy under the kernel (x.y / D + 1)^3, unbiased (Bińkowski et al. 2018).

    Sets of up to 1000 are compared whole; larger ones by the mean over 100 random subsets of 1000. It may fall below zero.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    size = min(len(generated), len(real), KID_SUBSET)
    figures = kid_features_to_metric(
        _tensor(generated),
        _tensor(real),
        kid_subset_size=size,
        kid_subsets=_subsets(len(generated), len(real), size),
        rng_seed=KID_SEED,
        verbose=False,
    )
    return figures[KEY_METRIC_KID_MEAN]


def precision_and_recall(generated: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """The share of generated photos within the real ones' manifold, and of real ones within the generated ones'.

    A manifold is the union of the balls around its points that reach to their 3rd neighbour (Kynkäänniemi et al. 2019, Eq. 1 and 2).
    Distances are taken in float64 around the common mean, where the expansion |x|^2 - 2 x.y + |y|^2 loses least.
    """
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    middle = np.concatenate([generated, real]).mean(axis=0)
    figures = prc_features_to_metric(_tensor(generated - middle), _tensor(real - middle), prc_neighborhood=NEIGHBOURS, verbose=False)
    return figures[KEY_METRIC_PRECISION], figures[KEY_METRIC_RECALL]


def _subsets(generated: int, real: int, size: int) -> int:
    """A subset as large as both sets is always the same one."""
    return 1 if size == generated == real else KID_SUBSETS


def _in_their_span(generated: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in coordinates of the subspace they span, where they are fewer than the dimensions: FID is the same there, and quick."""
    both = np.concatenate([generated, real])
    if len(both) >= both.shape[1]:
        return generated, real
    basis, _ = np.linalg.qr(both.T)
    return generated @ basis, real @ basis


def _tensor(features: np.ndarray) -> Tensor:
    return torch.from_numpy(features.astype(np.float64))


def _onnx_extractor(path: Path, device: torch.device) -> "FeatureSource":
    """The extractor on the device; on the CPU, with a line on stderr, where onnxruntime cannot use CUDA."""
    from trainer.data.features import open_features  # brings onnxruntime, which training does without

    source = open_features(path)  # on the CPU first: whatever is wrong with the file itself is said here
    if device.type != "cuda":
        return source
    preload_cuda()
    try:
        return open_features(path, device=device)
    except UserError as refusal:
        print(f"--features {path} runs on the CPU: {refusal}", file=sys.stderr)
        return source


def _inception(weights: Path | None, device: str | torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """torch-fidelity's Inception v3 (TensorFlow's weights and resizing): uint8[N,H,W,3] -> Float32[N,2048], the last pooling."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    try:
        if weights is not None:
            torch.load(weights, map_location="cpu", weights_only=True)  # torch-fidelity unpickles whatever it is given
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=None if weights is None else str(weights), verbose=False
        )
    except (URLError, TimeoutError) as error:
        raise UserError(
            f"--features {INCEPTION}: the weights could not be fetched ({error}); fetch {URL_INCEPTION_V3} where there is a connection and "
            "give the file: --features FILE.pth, or give an ONNX extractor"
        ) from error
    except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
        where = weights or "the file that was fetched"
        raise UserError(f"--features {where} does not hold torch-fidelity's Inception v3 ({str(error).splitlines()[0]})") from error
    network = network.to(device)

    def of_pictures(pictures: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()).to(device))[0].float().cpu().numpy()

    return of_pictures
