"""What a method is: players that take turns, a step that yields their losses, and the directions it can translate."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from trainer.batch import Batch, Domain, LabelMap, Photo, Scores, Stretch, random


class Player(NamedTuple):
    """One side of the game: the modules it moves and how its optimiser (Adam) moves them."""

    modules: tuple[nn.Module, ...]
    lr: float
    betas: tuple[float, float]
    schedule: Callable[[int, int], float]
    """(step, steps) -> factor on the learning rate."""
    ema: float | None
    """Decay of the running average of the weights that is evaluated and exported; None: no average is kept."""
    factors: tuple[float, ...] | None = None
    """One factor on the learning rate for each of `modules`; None: all alike."""


class Update(NamedTuple):
    """One move: who moves, and what it minimises (the sum of the losses, already weighted, logged as they are)."""

    player: str
    losses: dict[str, Tensor]


class Method(nn.Module):
    """A paper. A subclass names its players, yields its updates in the order in which the paper plays them, and translates.

    A step never yields inside a `with`, and builds no graph before a `yield` that is used after it, except through tensors whose
    path holds no parameter of the player that just moved. All randomness is a function of (seed, step).
    """

    config_class: ClassVar[type]
    directions: frozenset[Literal["to_label", "to_photo"]]
    chosen_by: ClassVar[tuple[str, ...]] = ("mean_iou", "picture_accuracy", "photo_psnr")
    """The figures on `val` that the best checkpoint has the highest of: the first that there is. Empty: the last weights are the best."""
    multiple_of: int = 1
    """What a picture's height and width must be multiples of."""
    smallest: int = 1
    """The least height and width that the networks can be trained at."""
    tiling: Literal["allowed", "forbidden"] = "forbidden"
    noise_shape: tuple[int, ...] | None = None
    spares_a_half: bool = False
    """Whether a method that reads both halves of the Batch can take its step with either of them empty (Run.balanced)."""
    rare_classes: Stretch = "never"
    """When in the training pairs are drawn by the classes that they hold, each class alike, and not evenly."""

    def __init__(self, config: Any, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__()
        self.config = config
        self.photo_domain = photo_domain
        self.label_domain = label_domain
        self.size = size
        self.seed = seed

    def begin(self) -> None:
        """Load what a fresh run starts from and the config names; not called where a checkpoint is loaded. Raises UserError."""

    def players(self) -> dict[str, Player]:
        """The players by name."""
        raise NotImplementedError

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        """Yield the updates of step i, in order. Each is optimised before the next is asked for."""
        raise NotImplementedError

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        """Which halves of the Batch the step reads."""
        raise NotImplementedError

    def check_steps(self, steps: int) -> None:
        """Raises UserError where a run of this many steps would not do what the config says."""

    def refresh(self, batches: Iterable[Batch]) -> tuple[nn.Module, ...]:
        """Estimate anew what training estimates as it goes (batch statistics), for the weights that now stand in their place (EMA).

        batches: some that the run was trained on. Returns the networks whose buffers hold the estimates; none where there are none.
        """
        return ()

    def network(self, direction: Literal["to_label", "to_photo"]) -> nn.Module | None:
        """The generator behind a direction; None where there is none."""
        raise NotImplementedError

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        """Label map (or picture) -> photo. Offered where `directions` says so."""
        raise NotImplementedError(f"{type(self).__name__} does not translate labels to photos")

    def to_label(self, photo: Photo) -> LabelMap | Photo:
        """Photo -> class indices where the label side has classes, else a picture. Offered where `directions` says so."""
        raise NotImplementedError(f"{type(self).__name__} does not translate photos to labels")

    def label_scores(self, photo: Photo) -> Scores | None:
        """Photo -> Float[B,C,H,W]; None where the label side is decoded from colours or is a picture."""
        return None

    def painted_label(self, photo: Photo) -> Photo | None:
        """Photo -> the RGB picture that `to_label` reads by the nearest class colour; None where the label side is not spelt so."""
        return None


def constant(step: int, steps: int) -> float:
    """The same learning rate throughout."""
    return 1.0


def constant_then_linear(step: int, steps: int) -> float:
    """Constant over the first half of the steps, then linear to zero (Shukla et al., section 4; CycleGAN, appendix 7.1).

    The step after the last would have exactly 0; the released code's older formula wastes its last epoch there.
    """
    return min(1.0, 2.0 * (1.0 - step / steps))


class PicturePool(nn.Module):
    """A buffer of earlier fakes that feeds the discriminator (Shrivastava et al., as in CycleGAN, section 4).

    While not full: store the incoming picture and return it. When full: with p = 1/2 return a random stored picture and put the
    incoming one in its place, else return the incoming one. Draws are a function of (seed, step, stream, index). Capacity 0 passes
    everything through.
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
            draw = random(self.seed, step, self.stream, index)
            if draw.random() < 0.5:
                slot = int(draw.integers(self.capacity))
                answer.append(self.pictures[slot].clone())
                self.pictures[slot] = fake
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
