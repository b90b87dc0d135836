"""The mean teacher: who teaches, which of its labels count, and what each switch takes away."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.factories import encoder_file, tiny_batch, tiny_method, tiny_size
from trainer import losses
from trainer.batch import IGNORE, Batch
from trainer.errors import UserError
from trainer.methods.segmentation import RAMP
from trainer.training.loop import train_step
from trainer.training.state import TrainState

PLAIN: dict[str, Any] = {"rescale": 0.0, "jitter": 0.0, "jitter_unpaired": 0.0, "class_mix": False, "dice": 0.0}
SIZE = tiny_size("mean_teacher")
BATCH = tiny_batch(length=2, size=SIZE)


def one_step(method: Any, batch: Batch, step: int = 0) -> dict[str, float]:
    state = TrainState.create(method)
    state.step = step
    terms = train_step(state, batch, steps=10 * RAMP)
    return {name: loss.item() for name, loss in terms.items()}


def test_the_teacher_follows_after_the_student_has_moved() -> None:
    method = tiny_method("mean_teacher", ema=0.998)
    before = copy.deepcopy(method.teacher.state_dict())
    one_step(method, BATCH)
    for name, value in method.segmenter.named_parameters():
        torch.testing.assert_close(
            method.teacher.state_dict()[f"network.{name}"], 0.1 * before[f"network.{name}"] + 0.9 * value
        )  # d = (1 + 0) / (10 + 0) in the first step


def test_pixels_below_the_confidence_weigh_nothing() -> None:
    """Against the cross-entropy on the confident pixels, computed pixel by pixel."""
    method = tiny_method("mean_teacher", **PLAIN)
    with torch.no_grad():
        for network in (method.segmenter, method.teacher.network):
            network.decoder.head[-1].weight *= 20  # probabilities on both sides of the threshold
        certainty, label = torch.softmax(method.teacher(BATCH.unpaired.photo), 1).double().max(1)
        scores = torch.log_softmax(method.segmenter(BATCH.unpaired.photo).double(), 1)
    threshold = certainty.median().item()
    by_hand = -scores.gather(1, label.unsqueeze(1)).squeeze(1)[certainty >= threshold].mean()

    other = tiny_method("mean_teacher", **PLAIN, confidence=threshold)
    other.load_state_dict(method.state_dict())
    unpaired = one_step(other, BATCH, step=RAMP)["segmenter/unpaired"] / other.config.unpaired
    assert unpaired == pytest.approx(by_hand.item(), rel=1e-4)


def test_class_mix_brings_the_true_label_whatever_the_teacher_says() -> None:
    method = tiny_method("mean_teacher", **PLAIN | {"class_mix": True, "confidence": 1.0})
    method._count(BATCH.paired.label)
    mixed = method._labelled_by_the_teacher(BATCH.unpaired.photo, BATCH.paired, 0)
    taken = mixed.label != IGNORE
    assert taken.any()
    assert torch.equal(mixed.label[taken], BATCH.paired.label[taken])
    assert torch.equal(mixed.photo, torch.where(taken.unsqueeze(1), BATCH.paired.photo, BATCH.unpaired.photo))


def test_the_unpaired_photos_are_read_after_the_warm_up() -> None:
    method = tiny_method("mean_teacher", warm_up=4)
    assert "segmenter/unpaired" not in one_step(method, BATCH, step=3)
    assert "segmenter/unpaired" in one_step(method, BATCH, step=4)


def test_steps_that_end_in_the_warm_up_are_refused() -> None:
    method = tiny_method("mean_teacher", warm_up=4)
    with pytest.raises(UserError, match=r"--steps 4: .*; give --steps 5 or more, --config\.warm-up 3 or less"):
        method.check_steps(4)
    method.check_steps(5)
    tiny_method("mean_teacher", warm_up=4, unpaired=0.0).check_steps(4)


def test_with_everything_off_it_is_plain_cross_entropy() -> None:
    method = tiny_method("mean_teacher", **PLAIN, unpaired=0.0)
    expected = losses.cross_entropy(method.label_scores(BATCH.paired.photo), BATCH.paired.label)
    assert one_step(method, BATCH) == {"segmenter/cross_entropy": pytest.approx(expected.item())}
    assert method.reads == {"pairs"}
    assert method.teacher is None


def test_pretrained_weights_are_read_when_a_run_begins_and_the_teacher_starts_with_them() -> None:
    method = tiny_method("mean_teacher", seed=1)
    drawn = copy.deepcopy(method.segmenter.encoder.state_dict())
    method.load_pretrained()
    given = torch.load(encoder_file(), weights_only=True)
    assert not torch.equal(drawn["network.conv_stem.weight"], given["conv_stem.weight"])
    assert torch.equal(method.segmenter.encoder.network.conv_stem.weight, given["conv_stem.weight"])
    with torch.no_grad():
        assert torch.equal(method.teacher(BATCH.paired.photo), method.segmenter(BATCH.paired.photo))


def test_the_weights_file_is_not_needed_after_the_start(tmp_path: Path) -> None:
    method = tiny_method("mean_teacher")
    again = tiny_method("mean_teacher", seed=2, encoder_weights=str(tmp_path / "gone.pth"))
    again.load_state_dict(method.state_dict())
    with torch.no_grad():
        assert torch.equal(again.label_scores(BATCH.paired.photo), method.label_scores(BATCH.paired.photo))
    with pytest.raises(UserError, match=r"gone\.pth"):
        again.load_pretrained()


def test_the_encoder_moves_more_slowly_by_its_factor() -> None:
    method = tiny_method("mean_teacher", encoder_lr=0.01, unpaired=0.0)
    before = copy.deepcopy(method.segmenter.state_dict())
    one_step(method, BATCH)
    # Adam's first step moves each weight whose gradient is far above its epsilon by the learning rate
    moves = {name: (value - before[name]).abs().max().item() for name, value in method.segmenter.named_parameters()}
    assert moves["decoder.head.1.weight"] == pytest.approx(method.config.lr, rel=0.01)
    assert moves["encoder.network.conv_stem.weight"] == pytest.approx(0.01 * method.config.lr, rel=0.05)
