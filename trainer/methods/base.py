"""What a method is: parameter groups, a step that yields their losses, and the directions it translates."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from trainer.batch import Batch, Domain, LabelMap, Phase, Photo, Scores, random
from trainer.data.selection.selection import Selection
from trainer.distributed import rank
from trainer.errors import UserError
from trainer.networks.perceptual import PerceptualLoss

Direction = Literal["to_label", "to_photo"]
Samples = Literal["pairs", "unpaired photos", "unpaired label maps"]


class ParameterGroup(NamedTuple):
    """Modules that are optimised together, and how Adam moves them."""

    modules: tuple[nn.Module, ...]
    lr: float
    betas: tuple[float, float]
    schedule: Callable[[int, int], float]
    """(step, steps) -> factor on the learning rate."""
    ema: float | None
    """Decay of the EMA of the weights, which is evaluated and exported; None: no average is kept."""
    factors: tuple[float, ...] | None = None
    """One factor on the learning rate for each of `modules`; None: all alike."""

    def parameters(self) -> list[nn.Parameter]:
        """All parameters of the group."""
        return [parameter for module in self.modules for parameter in module.parameters()]

    def parts(self) -> list[dict[str, Any]]:
        """The parameter groups of torch's optimiser: one, or one for each module where their learning rates differ."""
        if self.factors is None:
            return [{"params": self.parameters()}]
        return [
            {"params": list(module.parameters()), "factor": factor}
            for module, factor in zip(self.modules, self.factors, strict=True)
        ]


class Update(NamedTuple):
    """Losses, weighted and logged as they are, and the parameter group, or groups, that minimise their sum."""

    groups: str | tuple[str, ...]
    losses: dict[str, Tensor]


class Method(nn.Module):
    """A paper. A subclass names its parameter groups, yields its updates in the paper's order, and translates.

    A step never yields inside a `with`, and builds no graph before a `yield` that is used after it, except through
    tensors whose path holds no parameter that just moved. All randomness is a function of (seed, step, rank), but
    dropout's, which is torch's own; a checkpoint holds its state.
    """

    config_class: ClassVar[type]
    directions: frozenset[Direction]
    reads: frozenset[Samples] = frozenset({"pairs"})
    """Which samples the step reads; the others are not loaded."""
    sides: frozenset[str] = frozenset()
    """The further sides of each pair that the step reads in `Pairs.sides`, of those that the dataset declares."""
    chosen_by: ClassVar[tuple[str, ...]] = ("mean_iou", "picture_accuracy")
    """The best checkpoint has the highest of these figures on `val`: of the first that there is. Empty: the last."""
    multiple_of: int = 1
    """What a picture's height and width must be multiples of."""
    smallest: int = 1
    """The least height and width that the networks can be trained at."""
    paths: ClassVar[tuple[str, ...]] = ()
    """The config's fields that name files or folders; a run records them as absolute paths."""
    channels_last: bool = False
    """Whether networks and pictures are in channels-last memory in training."""
    tiling: Literal["allowed", "forbidden"] = "forbidden"
    noise_shape: tuple[int, ...] | None = None
    style_size: tuple[int, int] | None = None
    """Height and width at which `style_of` reads photos; None: the method has none."""
    takes_previous: bool = False
    """Whether a photo is made of a label and the photo before it, by `next_photo`."""
    spares_a_half: bool = False
    """Whether a method that reads both halves of the Batch can train with either of them empty (Run.balanced)."""
    rare_classes: Phase = "never"
    """When in the training pairs are drawn by the classes that they hold, each class alike, and not evenly."""

    def __init__(self, config: Any, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__()
        check_config(config)
        self.config = config
        self.label_domain = label_domain
        self.size = size
        self.seed = seed
        self.perceptual: PerceptualLoss | None = None
        if getattr(config, "perceptual", 0):
            self.perceptual = PerceptualLoss(Path(config.vgg) if config.vgg else None)

    def class_count(self) -> int:
        """The number of classes. Raises ValueError where the label side is pictures."""
        if self.label_domain.classes is None:
            name = type(self).__name__.lower()
            raise ValueError(f"{name} needs a class table on the label side; this dataset has pictures there")
        return self.label_domain.classes.count

    def load_pretrained(self) -> None:
        """Load the pretrained weights that the config names into a fresh run. Raises UserError."""
        if self.perceptual is not None:
            self.perceptual.load()

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """The parameter groups by name."""
        raise NotImplementedError

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        """Yield the updates of step i, in order. Each is optimised before the next is asked for."""
        raise NotImplementedError

    def missing(self, selection: Selection) -> Samples | None:
        """The samples that the method needs but the selection lacks; None if it has all."""
        given = selection.samples()
        return next((kind for kind in given if kind in self.reads and not given[kind]), None)

    def check_steps(self, steps: int) -> None:
        """Raises UserError where a run of this many steps would not do what the config says."""

    def estimate_statistics(self, batches: Iterable[Batch]) -> tuple[nn.Module, ...]:
        """Estimate batch statistics for the weights that the networks hold now (EMA), from training batches.

        Returns the networks whose buffers hold the statistics; none where no network has any.
        """
        return ()

    def draws(self, i: int, stream: str, length: int) -> list[np.random.Generator]:
        """One generator per sample of this process: a function of (seed, step, stream, rank, index)."""
        return [random(self.seed, i, stream, rank() * length + index) for index in range(length)]

    def noise(self, label: Tensor, i: int, stream: str) -> Tensor:
        """z ~ N(0,1), Float[B,*noise_shape]: a function of (seed, step, stream, rank, index)."""
        assert self.noise_shape is not None
        draws = self.draws(i, f"noise {stream}", len(label))
        noise = np.stack([draw.standard_normal(self.noise_shape, dtype=np.float32) for draw in draws])
        return torch.from_numpy(noise).to(label.device)

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        """Label map (or picture) -> photo. Offered where `directions` says so."""
        raise NotImplementedError(f"{type(self).__name__} does not translate labels to photos")

    def next_photo(self, label: LabelMap | Photo, previous: Photo) -> Photo:
        """Label map (or picture) and the photo of the frame before -> photo. Offered where `takes_previous`."""
        raise NotImplementedError(f"{type(self).__name__} makes each photo by itself")

    def style_of(self, photo: Photo) -> Tensor:
        """Photo Float[B,3,*style_size] -> the noise Float[B,*noise_shape] that gives photos its look."""
        raise NotImplementedError(f"{type(self).__name__} does not read the style of a photo")

    def to_label(self, photo: Photo) -> LabelMap | Photo:
        """Photo -> class indices, or a picture where labels are pictures. Offered where `directions` says so."""
        scores = self.label_scores(photo)
        if scores is None:
            raise NotImplementedError(f"{type(self).__name__} does not translate photos to labels")
        return scores.argmax(1)

    def label_scores(self, photo: Photo) -> Scores | None:
        """Photo -> Float[B,C,H,W]; None where the label side is decoded from colours or is a picture."""
        return None


def check_config(config: Any) -> None:
    """Raise UserError where a number among a method's choices is out of range."""
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        sound, wanted = {
            **dict.fromkeys(("width", "noise", "scales", "pictures"), (value >= 1, "give 1 or more")),
            "levels": (2 <= value <= 10, "give a number from 2 to 10"),
            "r1_every": (value >= 1, "give 1 or more; --config.r1 0 leaves the penalty out"),
            **dict.fromkeys(("lr", "lr_discriminator"), (0 < value < math.inf, "give a number above 0, as in 2e-4")),
            "ema": (0 <= value < 1, "give a number from 0 to below 1, as in 0.999"),
            "confidence": (0 <= value <= 1, "give a probability"),
        }.get(name, (0 <= value < math.inf, "give 0 or more"))
        if not sound:
            raise UserError(f"--config.{name.replace('_', '-')} {value}: {wanted}")


def constant(step: int, steps: int) -> float:
    """The same learning rate throughout."""
    return 1.0


def constant_then_linear(step: int, steps: int) -> float:
    """Constant over the first half of the steps, then linear to zero (CycleGAN, appendix 7.1; Shukla et al.).

    The step after the last would have exactly 0; the released code's older formula wastes its last epoch there.
    """
    return min(1.0, 2.0 * (1.0 - step / steps))


def polynomial(step: int, steps: int) -> float:
    """(1 - step / steps)^.9, the "poly" schedule of segmentation (Chen et al. 2017, DeepLab, Eq. 4)."""
    return float((1.0 - step / steps) ** 0.9)


class PicturePool(nn.Module):
    """A buffer of earlier fakes that feeds the discriminator (Shrivastava et al., as in CycleGAN, section 4).

    While not full: store the incoming picture and return it. When full: with p = 1/2 return a random stored picture and
    put the incoming one in its place, else return the incoming one. Draws are a function of (seed, step, stream, rank,
    index). Capacity 0 passes everything through.
    """

    pictures: Tensor

    def __init__(self, capacity: int, *, seed: int, stream: str) -> None:
        super().__init__()
        self.capacity = capacity
        self.seed = seed
        self.stream = stream
        self.stored = 0
        self.register_buffer("pictures", torch.zeros(0))

    def forward(self, fakes: Tensor, step: int) -> Tensor:
        """Float[B,C,H,W] -> Float[B,C,H,W], detached, in fp32."""
        fakes = fakes.detach().float()
        if self.capacity == 0 or len(fakes) == 0:
            return fakes
        if len(self.pictures) == 0:
            self.pictures = fakes.new_zeros((self.capacity, *fakes.shape[1:]))
        answer = []
        for index, fake in enumerate(fakes):
            if self.stored < self.capacity:
                self.pictures[self.stored] = fake
                self.stored += 1
                answer.append(fake)
                continue
            draw = random(self.seed, step, self.stream, rank() * len(fakes) + index)
            if draw.random() < 0.5:
                chosen = int(draw.integers(self.capacity))
                answer.append(self.pictures[chosen].clone())
                self.pictures[chosen] = fake
            else:
                answer.append(fake)
        return torch.stack(answer)

    def get_extra_state(self) -> dict[str, int]:
        return {"stored": self.stored}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.stored = state["stored"]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        # the buffer takes its shape from the first fakes, so a fresh pool must take it from the checkpoint
        saved = state_dict.get(prefix + "pictures")
        if saved is not None:
            self.pictures = torch.zeros_like(saved, device=self.pictures.device)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
