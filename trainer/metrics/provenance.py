"""What a figure is a figure of: the data, the run and the checkpoint that an evaluation judged."""

from dataclasses import dataclass

from trainer.metrics.evaluate import Size


@dataclass(frozen=True)
class Provenance:
    """What a figure is a figure of."""

    dataset: str
    split: str
    size: Size
    method: str
    recipe: str | None
    pairs: int
    unpaired: int
    steps: int
    step: int
    """The step the checkpoint was saved at; `steps` is what the run was planned for."""
    seed: int
    checkpoint: str
    weights: str
    limit: int | None = None

    @property
    def stem(self) -> str:
        """The name of the files of this evaluation."""
        return "-".join([self.split, self.checkpoint, self.weights, *([f"{self.limit}-samples"] if self.limit is not None else [])])

    @property
    def material(self) -> str:
        """The data in words: camvid val, 128x192."""
        height, width = self.size
        return f"{self.dataset} {self.split}, {height}x{width}"

    @property
    def training(self) -> str:
        """The checkpoint in words: what it learnt from, how far it came, and which weights of it are meant."""
        return (
            f"{self.pairs} pairs + {self.unpaired} unpaired, step {self.step} of {self.steps}, seed {self.seed}, "
            f"{self.checkpoint} checkpoint, {self.weights} weights"
        )
