"""Writes an evaluation down in a run's folder: the figures with everything that makes them honest, and pictures of the samples."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from trainer.data.catalogue import Dataset, Sample
from trainer.errors import UserError
from trainer.methods.base import Method
from trainer.metrics.distribution import Extractor, PhotoSets
from trainer.metrics.diversity import Diversity
from trainer.metrics.evaluate import Report, Size, classes_of, evaluate_to_label, evaluate_to_photo, floors
from trainer.metrics.former import PARTS, Succession, cautions_of, read_former, set_aside, succeeded
from trainer.metrics.judge import Judge, Verdict
from trainer.metrics.provenance import Provenance
from trainer.metrics.segmentation import Figures
from trainer.metrics.sheets import label_sheet, photo_sheet, three


@dataclass(frozen=True)
class Evaluation:
    """What was found, and where it was written."""

    figures: Figures
    floors: dict[str, Figures]
    path: Path
    pictures: tuple[Path, ...]
    skipped: tuple[str, ...] = ()
    """Why each broken sample was left out, with its path."""
    cautions: tuple[str, ...] = ()
    """Why not to trust some figures too far."""
    notes: tuple[str, ...] = ()
    """What became of the evaluation that lay there before."""


def evaluate_and_record(
    method: Method,
    dataset: Dataset,
    *,
    folder: Path,
    provenance: Provenance,
    train_samples: Sequence[Sample],
    device: str | torch.device = "cpu",
    progress: bool = False,
    skip_broken: bool = False,
    judge: Judge | None = None,
    features: Extractor | None = None,
    diversity: Diversity | None = None,
) -> Evaluation:
    """Judge every direction the method offers and write `<split>-<checkpoint>-<weights>.json` and its pictures into `folder`.

    `train_samples` are the training pairs: the floors are counted over their labels (none, as for cyclegan: no floors).
    With `skip_broken` samples that cannot be read are left out, counted and named. Of generated photos a `judge` adds the figures
    `judge_...` and, for the real photos, `judge_on_real_...`; `features` adds fid, kid, precision and recall; `diversity` adds
    `diversity_...` where the method takes noise.

    One file holds what is known of one checkpoint on one split. What is not asked for now and was measured before on the same photos
    stays in it; a former file whose judge, extractor or seeds gave way to others goes to `folder`/former.
    """
    _refuse_what_does_not_fit(method, dataset, judge=judge, features=features, diversity=diversity, size=provenance.size)
    folder.mkdir(parents=True, exist_ok=True)
    work = _Work(method, dataset, folder, provenance, device, progress=progress, skip_broken=skip_broken)
    if "to_label" in method.directions:
        work.judge_labels(train_samples)
    if "to_photo" in method.directions:
        work.judge_photos(judge, features)
    if method.noise_shape is not None and diversity is not None:
        work.measure_diversity(diversity)
    return work.written()


class _Work:
    """One evaluation as it comes together."""

    def __init__(
        self,
        method: Method,
        dataset: Dataset,
        folder: Path,
        provenance: Provenance,
        device: str | torch.device,
        *,
        progress: bool,
        skip_broken: bool,
    ) -> None:
        self.method, self.dataset, self.folder, self.provenance, self.device = method, dataset, folder, provenance, device
        self.progress, self.skip_broken = progress, skip_broken
        self.figures: Figures = {}
        self.floors: dict[str, Figures] = {}
        self.parts: dict[str, dict[str, Any] | None] = dict.fromkeys(PARTS)
        self.rankings: dict[str, dict[str, object]] = {}
        self.pages: list[Path] = []
        self.skipped: dict[str, None] = {}

    def judge_labels(self, train_samples: Sequence[Sample]) -> None:
        """Photo -> label, beside the floors."""
        split, size, limit = self.provenance.split, self.provenance.size, self.provenance.limit
        report = evaluate_to_label(
            self.method,
            self.dataset,
            split=split,
            size=size,
            device=self.device,
            limit=limit,
            progress=self.progress,
            skip_broken=self.skip_broken,
            paper_decoding=True,
        )
        if self.dataset.label_domain.kind == "classes" and train_samples:
            self.floors = floors(
                self.dataset, train_samples=train_samples, split=split, size=size, limit=limit, skip_broken=self.skip_broken
            )
        page = label_sheet(self.method, self.dataset, report, provenance=self.provenance, device=self.device)
        self._note("to_label", report, page, f"{self.provenance.stem}.png")

    def judge_photos(self, judge: Judge | None, features: Extractor | None) -> None:
        """Label -> photo, before the witnesses."""
        verdict = None if judge is None else Verdict(judge, classes_of(self.dataset.label_domain))
        sets = None if features is None else PhotoSets(features)
        report = evaluate_to_photo(
            self.method,
            self.dataset,
            split=self.provenance.split,
            size=self.provenance.size,
            device=self.device,
            limit=self.provenance.limit,
            progress=self.progress,
            skip_broken=self.skip_broken,
            witnesses=[witness for witness in (verdict, sets) if witness is not None],
        )
        page = photo_sheet(self.method, self.dataset, report, provenance=self.provenance, device=self.device)
        self._note("to_photo", report, page, f"{self.provenance.stem}-photos.png")
        if verdict is not None:
            self.figures.update(verdict.figures())
            self.parts["photo_judge"] = {"name": verdict.judge.name, "sha256": verdict.judge.sha256}
        if sets is not None:
            self.figures.update(sets.figures())
            self.parts["distribution"] = {**sets.described(), "cautions": sets.cautions()}

    def measure_diversity(self, diversity: Diversity) -> None:
        """How far photos of one label map lie apart."""
        spread = diversity.measure(
            self.method,
            self.dataset,
            split=self.provenance.split,
            size=self.provenance.size,
            device=self.device,
            limit=self.provenance.limit,
            progress=self.progress,
            skip_broken=self.skip_broken,
        )
        self.figures.update(spread.figures)
        self.parts.update(spread.described)

    def written(self) -> Evaluation:
        """Write the figures down, with what the evaluation before leaves to this one."""
        path = self.folder / f"{self.provenance.stem}.json"
        document = {
            "format": 1,
            **asdict(self.provenance),
            "judge": "labels of the dataset" if self.dataset.label_domain.kind == "classes" else "pictures of the dataset",
            "figures": self.figures,
            **self.parts,
            "floors": self.floors,
            "samples": self.rankings,
            "skipped": list(self.skipped),
        }
        former = read_former(path)
        succession = Succession(document, aside=False) if former is None else succeeded(document, former)
        notes = list(succession.notes)
        if succession.aside:
            notes.append(f"the evaluation before was made by other means or of other photos: it lies in {set_aside(path)} now")
        whole = succession.document | {"cautions": cautions_of(succession.document)}
        _replace(path, json.dumps(whole, indent=2, allow_nan=False) + "\n")
        return Evaluation(
            whole["figures"], self.floors, path, tuple(self.pages), tuple(self.skipped), tuple(whole["cautions"]), tuple(notes)
        )

    def _note(self, direction: str, report: Report, page: Image.Image, name: str) -> None:
        self.figures.update(report.figures)
        self.skipped |= dict.fromkeys(report.skipped)
        self.rankings[direction] = _extremes(report)
        page.save(self.folder / name, optimize=True)
        self.pages.append(self.folder / name)


def _refuse_what_does_not_fit(
    method: Method, dataset: Dataset, *, judge: Judge | None, features: Extractor | None, diversity: Diversity | None, size: Size
) -> None:
    """Before any work: what only generated photos, or only photos that noise made, can be judged by."""
    if "to_photo" not in method.directions:
        for option, given in (("judge", judge), ("features", features)):
            if given is not None:
                raise UserError(f"--{option} {given.name} looks at generated photos, but this method makes label maps only: leave it out")
    if judge is not None and dataset.label_domain.kind != "classes":
        raise UserError(f"--judge {judge.name} finds classes in photos, but the labels of {dataset.name} are pictures: leave it out")
    perceptual = None if diversity is None else diversity.perceptual
    if method.noise_shape is None and perceptual is not None:
        raise UserError(
            f"--perceptual {perceptual.name} compares photos that one label map gives by different noise, but this method takes no noise: "
            "leave it out"
        )
    if diversity is not None:
        diversity.refuse(size)


def _extremes(report: Report) -> dict[str, object]:
    return {word: {"name": one.name, "score": one.score if math.isfinite(one.score) else None} for word, one in three(report)}


def _replace(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
