"""The mean teacher: who teaches, what counts of what it says, and what each switch takes away."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainer.factories import SIZE, tiny_batch, tiny_method, tiny_run
from trainer.average import Teacher
from trainer.batch import IGNORE, Batch, Pairs
from trainer.errors import UserError
from trainer.loop import FiniteWatch, advance, prepare
from trainer.methods.mean_teacher import RAMP
from trainer.rundir import begin_with_given_weights

STILL: dict[str, Any] = {"rescale": 0.0, "repaint": 0.0, "paste": False, "dice": 0.0}


def one_step(method: Any, batch: Batch, step: int = 0) -> dict[str, float]:
    trainee = prepare(method, fused=False)
    trainee.step = step
    losses = advance(trainee, batch, tiny_run("mean_teacher", steps=10 * RAMP), bf16=False, watch=FiniteWatch(torch.device("cpu")))
    return {name: loss.item() for name, loss in losses.items()}


def test_the_teacher_is_the_average_that_is_written_down() -> None:
    network = nn.Conv2d(2, 3, 3)
    teacher = Teacher(network, decay=0.5)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    for t in range(12):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn_like(parameter)
        teacher.follow(network, t)
        decay = min(0.5, (1 + t) / (10 + t))
        expected = {name: decay * value + (1 - decay) * network.state_dict()[name] for name, value in expected.items()}
    for name, value in teacher.network.state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_no_optimiser_can_move_the_teacher() -> None:
    method = tiny_method("mean_teacher")
    assert not list(method.teacher.parameters())
    assert not any(name.startswith("teacher") for name, _ in method.named_parameters())
    photo = torch.rand(1, 3, *SIZE, requires_grad=True)
    assert not method.teacher(photo).requires_grad


def test_the_teacher_follows_after_the_student_has_moved() -> None:
    method = tiny_method("mean_teacher")
    before = copy.deepcopy(method.teacher.state_dict())
    one_step(method, tiny_batch())
    after = method.segmenter.state_dict()
    for name, value in method.teacher.network.state_dict().items():
        torch.testing.assert_close(value, 0.1 * before[f"network.{name}"] + 0.9 * after[name])  # d = (1 + 0) / (10 + 0) in the first step


def test_what_the_teacher_is_not_sure_of_weighs_nothing() -> None:
    """Against the cross-entropy on the sure pixels, computed pixel by pixel."""
    sure = 0.5
    method, batch = tiny_method("mean_teacher", **STILL | {"confidence": sure}), tiny_batch(length=2)
    with torch.no_grad():
        for each in (method.segmenter.model[-1], method.teacher.network.model[-1]):
            each.weight *= 4  # probabilities on both sides of the threshold
        probability = torch.softmax(method.teacher(batch.unpaired.photo), 1).double()
        scores = torch.log_softmax(method.segmenter(batch.unpaired.photo).double(), 1)
    certainty, label = probability.max(1)
    mask = certainty >= sure
    assert 0.05 < mask.float().mean() < 0.95
    by_hand = -scores.gather(1, label.unsqueeze(1)).squeeze(1)[mask].mean()
    assert one_step(method, batch, step=RAMP)["segmenter/unpaired"] == pytest.approx(by_hand.item(), rel=1e-4)


def test_a_teacher_that_is_sure_of_nothing_teaches_nothing() -> None:
    method = tiny_method("mean_teacher", **STILL | {"confidence": 1.0})
    loss = next(method.step(tiny_batch(), 0)).losses["unpaired"]
    assert loss == 0
    for gradient in torch.autograd.grad(loss, list(method.segmenter.parameters())):
        assert not gradient.any()


def test_pasted_pixels_bring_the_true_label_whatever_the_teacher_says() -> None:
    method, batch = tiny_method("mean_teacher", **STILL | {"paste": True, "confidence": 1.0}), tiny_batch(length=2)
    method._count(batch.paired.label)
    mixed = method._labelled_by_the_teacher(batch.unpaired.photo, batch.paired, 0)
    taken = mixed.label != IGNORE
    assert taken.any()
    assert torch.equal(mixed.label[taken], batch.paired.label[taken])
    everywhere = taken.unsqueeze(1)
    assert torch.equal(mixed.photo, torch.where(everywhere, batch.paired.photo, batch.unpaired.photo))


def test_rare_classes_are_preferred_by_their_share_of_the_pairs() -> None:
    method = tiny_method("mean_teacher", rare_first=0.5)
    label = torch.full((1, 10, 10), IGNORE)
    label[0, :6] = 0
    label[0, 6:8] = 1
    method._count(label)
    preference = method._preference()
    assert (preference[1] / preference[0]).item() == pytest.approx((60 / 20) ** 0.5, rel=1e-5)
    assert preference[2] == preference.max()  # not seen yet


def test_the_unpaired_photos_come_in_after_the_warm_up() -> None:
    method = tiny_method("mean_teacher", warm_up=4, unpaired=2.0)
    assert [method._weight(step) for step in (0, 3, 4, 4 + RAMP // 2 - 1, 3 + RAMP, 10 * RAMP)] == [0, 0, 2 / RAMP, 1.0, 2.0, 2.0]
    assert "segmenter/unpaired" not in one_step(method, tiny_batch(), step=3)
    assert "segmenter/unpaired" in one_step(method, tiny_batch(), step=4)


def test_with_everything_off_it_is_plain_cross_entropy() -> None:
    method, plain = tiny_method("mean_teacher", **STILL | {"unpaired": 0.0}), tiny_method("supervised")
    plain.label_generator.load_state_dict(method.segmenter.state_dict())
    batch = tiny_batch()
    assert one_step(method, batch)["segmenter/cross_entropy"] == pytest.approx(one_step(plain, batch)["generator/cross_entropy"])
    assert method.needs() == {"pairs"}
    assert method.teacher is None


@pytest.mark.parametrize("empty", ["paired", "unpaired"])
def test_a_step_goes_on_where_one_half_is_empty(empty: str) -> None:
    full = tiny_batch()
    nothing = Pairs(full.paired.photo[:0], full.paired.label[:0])
    batch = Batch(nothing, full.unpaired) if empty == "paired" else Batch(full.paired, nothing)
    losses = one_step(tiny_method("mean_teacher"), batch)
    assert all(value == value for value in losses.values())
    assert ("segmenter/cross_entropy" in losses) == (empty == "unpaired")
    assert empty == "unpaired" or not one_step(tiny_method("mean_teacher", warm_up=1), batch)


def test_the_weights_are_read_once_and_the_teacher_begins_with_them(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    torch.manual_seed(5)
    torch.save(mobilenet_v2(weights=None).state_dict(), tmp_path / "mobilenet.pth")
    method = tiny_method("mean_teacher", encoder="mobilenet_v2", encoder_weights=str(tmp_path / "mobilenet.pth"))
    drawn = method.segmenter.encoder.features[0].weight.detach().clone()
    begin_with_given_weights(method, tiny_run("mean_teacher", config=method.config))
    assert not torch.equal(method.segmenter.encoder.features[0].weight, drawn)
    photo = tiny_batch().paired.photo
    with torch.no_grad():
        assert torch.equal(method.teacher(photo), method.segmenter(photo))

    again = tiny_method("mean_teacher", encoder="mobilenet_v2", encoder_weights=str(tmp_path / "gone.pth"))
    again.load_state_dict(method.state_dict())
    with torch.no_grad():
        assert torch.equal(again.label_scores(photo), method.label_scores(photo))
    with pytest.raises(UserError, match=r"gone\.pth"):
        begin_with_given_weights(again, tiny_run("mean_teacher", config=again.config))


def test_the_encoder_moves_more_slowly_by_its_factor() -> None:
    method = tiny_method("mean_teacher", encoder="mobilenet_v2", encoder_lr=0.01, unpaired=0.0)
    before = copy.deepcopy(method.segmenter.state_dict())
    one_step(method, tiny_batch())
    # Adam's first step moves each weight whose gradient is far above its epsilon by the learning rate
    moves = {name: (value - before[name]).abs().max().item() for name, value in method.segmenter.named_parameters()}
    assert moves["decoder.head.2.weight"] == pytest.approx(method.config.lr, rel=0.01)
    assert moves["encoder.features.17.body.2.weight"] == pytest.approx(0.01 * method.config.lr, rel=0.05)


@pytest.mark.parametrize(("changes", "named"), [({"confidence": 1.5}, "1.5"), ({"teacher": 1.0}, "1.0")])
def test_choices_out_of_range_are_refused(changes: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        tiny_method("mean_teacher", **changes)
