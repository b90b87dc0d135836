"""Runs made to fail are noticed in one line with the remedy; sound ones are not."""

from pathlib import Path
from typing import Any

import pytest

from tests.trainer.factories import tiny_config, trained
from trainer.commands.session import resume
from trainer.training.watch import notices


@pytest.mark.parametrize(
    ("name", "steps", "save_every", "config", "said"),
    [
        (
            "oasis",
            4,
            2,
            {"lr": 1e-9},
            {
                "collapse": "photos of different label maps are almost the same: train longer, or lower --config.lr-d",
                "noise": "photos of one label map are the same whatever the noise: train longer, or lower --config.lr",
            },
        ),
        (
            "pix2pix",
            4,
            2,
            {"direction": "to_photo", "label_as": "classes", "generator": "unet", "levels": 4, "lr": 1e-9},
            {"checkerboard": "photos have a checkerboard that real ones lack: train longer, or lower --config.lr"},
        ),
        (
            "spade",
            26,
            13,
            {"lr": 1e-9, "lr_discriminator": 1e-12},
            {"discriminator": "the discriminator learns nothing, its loss stands at 2: change --config.lr-discrim"},
        ),
        (
            "spade",
            80,
            40,
            {"lr": 1e-9, "lr_discriminator": 1e-2},
            {"discriminator": "the discriminator tells real from generated without error and teaches nothing: lower"},
        ),
    ],
)
def test_a_run_made_to_fail_is_noticed_in_one_line_with_the_remedy(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    steps: int,
    save_every: int,
    config: dict[str, Any],
    said: dict[str, str],
) -> None:
    folder = trained(tmp_path, name, config=tiny_config(name, **config), steps=steps, save_every=save_every)
    logged = {line["notice"]: line["sentence"] for line in folder.logged() if "notice" in line}
    printed = capsys.readouterr().out
    for kind, beginning in said.items():
        assert logged[kind].startswith(beginning)
        assert printed.count(f"{logged[kind]}\n") == 1


@pytest.mark.parametrize(
    ("spreads", "kinds"),
    [((0.016, 0.033), set()), ((0.0036, 0.0105), set()), ((0.033, 0.016), {"collapse"}), ((0, 1e-4), {"collapse"})],
)
def test_photos_that_become_more_different_have_not_collapsed(spreads: tuple[float, float], kinds: set[str]) -> None:
    # the first two: oasis- and usis-compact, steps 13 and 26
    lines = [{"watch/spread": spread, "watch/noise": 3.9} for spread in spreads]
    assert notices(lines, tiny_config("oasis")).keys() == kinds


@pytest.mark.parametrize(
    ("classes", "of_labels", "kinds"), [((1, 1), 10, {"one class"}), ((1, 2), 10, set()), ((1, 1), 1, set())]
)
def test_one_class_at_every_pixel_is_noticed_where_labels_have_several(
    classes: tuple[int, int], of_labels: int, kinds: set[str]
) -> None:
    lines = [{"watch/classes": count, "watch/classes_of_labels": of_labels} for count in classes]
    found = notices(lines, tiny_config("judge"))
    assert found.keys() == kinds
    assert all(said.startswith("every pixel gets the same class: lower --config.lr") for said in found.values())


def test_a_sound_run_is_checked_and_has_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(tmp_path, "judge", steps=30, save_every=10)
    looks = [line for line in folder.logged() if "watch/classes" in line]
    assert [line["step"] for line in looks] == [10, 20, 30]
    assert "warning" not in capsys.readouterr().out
    assert resume(folder, device="cpu").logged() == folder.logged()
