"""Distances between sets of generated and real photos: FID, KID, precision and recall, computed by torch-fidelity."""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch

from trainer.data.selection.features import open_features
from trainer.errors import UserError
from trainer.metrics.segmentation import Figures

INCEPTION = "inception"
"""The name of torch-fidelity's Inception v3, which published figures use."""
NEIGHBOURS = 3
"""k of precision and recall (Kynkäänniemi et al. 2019)."""
KID_SUBSET, KID_SUBSETS, KID_SEED = 1000, 100, 2020
"""torch-fidelity's defaults; sets of up to KID_SUBSET photos are compared as a whole."""
BATCH = 16


@dataclass(frozen=True)
class Extractor:
    """A network that turns photos into features."""

    name: str
    of_pictures: Callable[[np.ndarray], np.ndarray]
    """uint8[N,H,W,3] -> Float32[N,D]."""
    sha256: str | None = None
    """Of the weights file; None for weights that torch-fidelity downloads."""

    def named(self, figure: str) -> str:
        """Return a figure's full name: with the extractor in brackets unless it is Inception."""
        return figure if self.name == INCEPTION else f"{figure}[{self.name}]"


def open_extractor(given: str, *, device: str | torch.device = "cpu") -> Extractor:
    """Open "inception" (downloaded once), a file of its weights (.pth), or an ONNX feature extractor."""
    path = Path(given)
    if given == INCEPTION:
        return Extractor(INCEPTION, _inception(None, device))
    if not path.is_file() or path.suffix not in (".pth", ".pt", ".onnx"):
        problem = "not a .pth or .onnx file" if path.is_file() else "no such file"
        raise UserError(f"--features {given}: {problem}; give {INCEPTION}, its weights (.pth) or an extractor (.onnx)")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix != ".onnx":
        return Extractor(INCEPTION, _inception(path, device), sha256)
    source = open_features(path, device=device)
    return Extractor(source.name, source.of_pictures, sha256)


class DistributionMetric:
    """FID, KID, precision and recall of generated photos. Keeps features, not photos."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self._waiting: list[np.ndarray] = []
        self._features: list[np.ndarray] = []

    def add(self, generated: np.ndarray, real: np.ndarray, label: np.ndarray) -> None:
        """Take a generated photo and the real one of its label map, uint8[h,w,3]."""
        self._waiting += [generated, real]
        if len(self._waiting) == 2 * BATCH:
            self._extract()

    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the features Float64[N,D] of the generated and of the real photos."""
        self._extract()
        both = np.concatenate(self._features).astype(np.float64)
        return both[0::2], both[1::2]

    def figures(self) -> Figures:
        """Return fid, kid, precision and recall under their full names."""
        return {self.extractor.named(name): value for name, value in compare_sets(*self.features()).items()}

    def described(self) -> dict[str, object]:
        """Return what the figures depend on, for the record, with cautions."""
        count, dimensions = self.features()[0].shape
        name, cautions = self.extractor.named, []
        if count < dimensions:
            cautions.append(
                f"{name('fid')} is biased upwards with {count} photos in {dimensions} dimensions: use {name('kid')}, "
                "and compare equal numbers of photos only"
            )
        if self.extractor.name != INCEPTION:
            cautions.append(f"figures of {self.extractor.name} are not comparable with published ones (Inception)")
        return {
            "extractor": self.extractor.name,
            "sha256": self.extractor.sha256,
            "photos": count,
            "dimensions": dimensions,
            "cautions": cautions,
        }

    def _extract(self) -> None:
        if self._waiting:
            self._features.append(self.extractor.of_pictures(np.stack(self._waiting)))
            self._waiting.clear()


def compare_sets(generated: np.ndarray, real: np.ndarray) -> dict[str, float | None]:
    """Return fid, kid, precision and recall of features Float64[N,D]; None where there are too few photos.

    FID (Heusel et al. 2017): |m_g - m_r|^2 + Tr(C_g + C_r - 2 (C_g C_r)^1/2), with unbiased covariances. KID (Bińkowski
    et al. 2018): the unbiased squared maximum mean discrepancy under the kernel (x.y / D + 1)^3; sets of up to 1000 are
    compared as a whole, larger ones by the mean over 100 random subsets of 1000. It may be negative. Precision and
    recall (Kynkäänniemi et al. 2019, Eq. 1 and 2): the share of generated photos within the real manifold, and of real
    photos within the generated one; a manifold is the union of the balls around its points that reach to the third
    neighbour.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    figures: dict[str, float | None] = dict.fromkeys(("fid", "kid", "precision", "recall"))
    few, both = min(len(generated), len(real)), np.concatenate([generated, real])
    if few > 1:
        sets = [torch.from_numpy(features) for features in (generated, real)]
        figures["kid"] = kid_features_to_metric(
            *sets,
            kid_subset_size=min(few, KID_SUBSET),
            kid_subsets=1 if len(both) == 2 * few <= 2 * KID_SUBSET else KID_SUBSETS,
            rng_seed=KID_SEED,
            verbose=False,
        )[KEY_METRIC_KID_MEAN]
        if len(both) < both.shape[1]:  # FID has the same value in the subspace of the photos, much faster
            basis = torch.from_numpy(np.linalg.qr(both.T)[0])
            sets = [features @ basis for features in sets]
        statistics = [fid_features_to_statistics(features) for features in sets]
        figures["fid"] = fid_statistics_to_metric(*statistics, False)[KEY_METRIC_FID]
    if few > NEIGHBOURS:
        # Centred, because distances come from the expansion |x|^2 - 2 x.y + |y|^2.
        sets = [torch.from_numpy(features - both.mean(axis=0)) for features in (generated, real)]
        found = prc_features_to_metric(*sets, prc_neighborhood=NEIGHBOURS, verbose=False)
        figures |= {"precision": found[KEY_METRIC_PRECISION], "recall": found[KEY_METRIC_RECALL]}
    return figures


def _inception(weights: Path | None, device: str | torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """torch-fidelity's Inception v3: uint8[N,H,W,3] -> Float32[N,2048], the last pooling."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    try:
        if weights is not None:
            torch.load(weights, map_location="cpu", weights_only=True)  # torch-fidelity would unpickle anything
        path = None if weights is None else str(weights)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], path, verbose=False)
    except (URLError, TimeoutError) as error:
        raise UserError(
            f"--features {INCEPTION}: the download failed ({error}); download {URL_INCEPTION_V3} elsewhere and give "
            "the file: --features FILE.pth, or give an ONNX extractor"
        ) from error
    except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"--features {weights or INCEPTION} does not hold torch-fidelity's Inception v3 "
            f"({str(error).splitlines()[0]})"
        ) from error
    network = network.to(device)

    def of_pictures(pictures: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()).to(device))[0].float().cpu().numpy()

    return of_pictures
