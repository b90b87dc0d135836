"""How far photos that one label map gives lie apart by their noise alone, beside how far real photos lie apart."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from trainer.batch import random
from trainer.data.catalogue import Dataset, Sample
from trainer.data.decode import BrokenFile
from trainer.data.loader import photo_to_uint8, prepare_photo
from trainer.errors import UserError
from trainer.methods.base import Method
from trainer.metrics.evaluate import Material, Size, labelled, predict_photo
from trainer.metrics.reconstruction import l1_levels
from trainer.metrics.segmentation import Figures
from trainer.networks.perceptual import PerceptualLoss
from trainer.progress import told

TORCHVISION = "torchvision"
"""What `--perceptual` calls the VGG-19 that torchvision fetches."""
LABELS = 20
"""Label maps, at most, that photos are made from."""
ON_REAL = "_on_real"
"""What the name of a figure of real photos holds."""
SMALLEST = 16
"""Pixels, a side, that VGG-19 needs."""


class Perceptual:
    """The distance of two photos in the features of a VGG-19.

    LPIPS (Zhang et al. 2018, Eq. 1) without its learnt weights: each compared layer's features, scaled to length 1 over the channels at
    each position; the squared difference summed over channels and averaged over positions; all layers counted alike. LPIPS itself
    weighs the channels by what people found alike, on other networks: the figures do not compare with its own.
    """

    def __init__(self, loss: PerceptualLoss, *, name: str, sha256: str | None, device: str | torch.device) -> None:
        self.name = name
        self.sha256 = sha256
        """Of the file of weights; None where torchvision fetched it, which checks it by its name."""
        self._loss = loss
        self._device = device

    def named(self, figure: str) -> str:
        """The figure's name with that of the weights in brackets: figures of different weights do not compare."""
        return f"{figure}[{self.name}]"

    def between(self, photos: Sequence[np.ndarray]) -> float:
        """The mean distance over all pairs of photos uint8[H,W,3] of one size."""
        with torch.inference_mode(), torch.autocast(torch.device(self._device).type, enabled=False):
            directions = [self._directions(photo) for photo in photos]
            distances = [
                torch.stack([(a - b).square().sum(dim=1).mean() for a, b in zip(one, other, strict=True)]).mean()
                for one, other in combinations(directions, 2)
            ]
        return float(torch.stack(distances).double().mean())

    def _directions(self, photo: np.ndarray) -> list[Tensor]:
        """Each compared layer's Float[1,C,h,w], of length 1 over the channels (0 where no channel answers)."""
        pixels = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].to(self._device).float() / 127.5 - 1
        return [normalize(features, dim=1, eps=1e-10) for features in self._loss.features(pixels)]


def open_perceptual(given: str, *, device: str | torch.device = "cpu") -> Perceptual:
    """What `--perceptual` names: "torchvision" (fetched once), or a file of VGG-19's weights (trainer/networks/perceptual.py)."""
    path = None if given == TORCHVISION else Path(given)
    if path is not None and not path.is_file():
        raise UserError(f"--perceptual {given}: there is no such file; give {TORCHVISION}, or a file of VGG-19's weights (.pth)")
    loss = PerceptualLoss(path)
    try:
        loss.load(device)
    except UserError as error:
        why = f"torchvision's VGG-19 cannot be fetched ({error.__cause__}); give a file of its weights" if path is None else error
        raise UserError(f"--perceptual {given}: {why}") from error
    if path is None:
        return Perceptual(loss, name=TORCHVISION, sha256=None, device=device)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Perceptual(loss, name=f"{path.stem}-{sha256[:8]}", sha256=sha256, device=device)


@dataclass(frozen=True)
class Spread:
    """What was found."""

    figures: Figures
    described: dict[str, dict[str, object]]
    """What the figures rest on, for the record: `diversity` and, with a VGG-19, `perceptual_diversity`."""


class Diversity:
    """Makes `seeds` photos from each of some label maps, and takes the mean distance between the photos of one label map.

    Distances are the mean absolute difference in levels and, where there is a `perceptual`, its own. Beside each stands the same mean
    among real photos of the split, in groups as large and as many, drawn the same for every run.
    Raises UserError where there are too few seeds to compare.
    """

    def __init__(self, *, seeds: int, perceptual: Perceptual | None = None) -> None:
        if seeds < 2:
            raise UserError(f"--seeds {seeds}: a distance needs two photos; give 2 or more, or 0 to leave the diversity out")
        self.seeds = seeds
        self.perceptual = perceptual

    def refuse(self, size: Size) -> None:
        """Raises UserError where photos of this size cannot be compared."""
        if self.perceptual is not None and min(size) < SMALLEST:
            raise UserError(
                f"--perceptual {self.perceptual.name}: VGG-19 needs photos of {SMALLEST}x{SMALLEST} or more, but this run's are "
                f"{size[0]}x{size[1]}: leave it out"
            )

    def measure(
        self,
        method: Method,
        dataset: Dataset,
        *,
        split: str,
        size: Size,
        device: str | torch.device = "cpu",
        limit: int | None = None,
        progress: bool = False,
        skip_broken: bool = False,
    ) -> Spread:
        """Of a method that takes noise, on at most 20 label maps spread evenly over the split (over the `limit` samples of it).

        `diversity_l1_levels` is in levels of 0..255; a figure `..._on_real` is None where the split has not two photos to compare.
        """
        material = Material(
            dataset, labelled(dataset, split, limit=LABELS if limit is None else min(limit, LABELS)), skip_broken=skip_broken
        )
        made: list[dict[str, float]] = []
        for place, _, _, label in told(material, what=f"diversity, {split}", unit="sample", shown=progress):
            photos = [
                predict_photo(method, label, size=size, device=device, draw=place, stream=f"diversity-{seed}") for seed in range(self.seeds)
            ]
            made.append(self._distances(photos))
        material.counts()  # refuses where every one of them was broken
        groups = real_groups(dataset, labelled(dataset, split), groups=len(made), photos=self.seeds, size=size, skip_broken=skip_broken)
        real = [self._distances(group) for group in groups]
        figures: Figures = {}
        for name in made[0]:
            figures[name] = float(np.mean([one[name] for one in made]))
            figures[_on_real(name)] = float(np.mean([one[name] for one in real])) if real else None
        return Spread(figures, self._described(label_maps=len(made), real_groups=len(real)))

    def _distances(self, photos: Sequence[np.ndarray]) -> dict[str, float]:
        found = {"diversity_l1_levels": float(np.mean([l1_levels(one, other) for one, other in combinations(photos, 2)]))}
        if self.perceptual is not None:
            found[self.perceptual.named("diversity_perceptual")] = self.perceptual.between(photos)
        return found

    def _described(self, *, label_maps: int, real_groups: int) -> dict[str, dict[str, object]]:
        counts = {"seeds": self.seeds, "label_maps": label_maps, "real_groups": real_groups}
        described: dict[str, dict[str, object]] = {"diversity": {**counts, "cautions": []}}
        if self.perceptual is not None:
            caution = (
                f"{self.perceptual.named('diversity_perceptual')} is LPIPS without its learnt weights, in the features of "
                f"{self.perceptual.name}: it does not compare with LPIPS figures"
            )
            weights = {"weights": self.perceptual.name, "sha256": self.perceptual.sha256, "comparable_with_published": False}
            described["perceptual_diversity"] = {**counts, **weights, "cautions": [caution]}
        return described


def real_groups(
    dataset: Dataset, samples: Sequence[Sample], *, groups: int, photos: int, size: Size, skip_broken: bool
) -> Iterator[list[np.ndarray]]:
    """`groups` groups of `photos` different real photos uint8[h,w,3] at the network's resolution, of all samples before any comes again.

    A split of fewer photos gives groups of all of them; one of a single photo gives none.
    """
    photos = min(photos, len(samples))
    given = 0
    for turn in count():
        group: list[np.ndarray] = []
        before = given
        for place in random(0, turn, "real photos").permutation(len(samples)):
            if photos < 2 or given == groups:
                return
            try:
                group.append(photo_to_uint8(prepare_photo(dataset.read_photo(samples[place]), size)))
            except BrokenFile:
                if not skip_broken:
                    raise
                continue
            if len(group) == photos:
                yield group
                group, given = [], given + 1
        if given == before:  # so many are broken that no group comes together: make do with those there are
            photos = len(group)


def _on_real(name: str) -> str:
    figure, bracket, weights = name.partition("[")
    return f"{figure}{ON_REAL}{bracket}{weights}"
