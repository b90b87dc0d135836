"""Everybody Dance Now: two frames at a time, and frames in their order."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from serving.client import Client
from serving.predict import predict
from tests.serving.process import running_server
from tests.trainer.factories import SIZE, count, material_for, tiny_batch, tiny_run
from tests.trainer.test_pix2pixhd import global_generator
from tests.trainer.test_step_equations import judges_by_least_squares, still
from trainer.commands.session import start
from trainer.export.export import export
from trainer.networks.patchgan import MultiScalePatchGAN
from trainer.networks.resnet import LocalEnhancer
from trainer.onnx_session import open_session

BATCH = tiny_batch(length=2)


def test_the_networks_have_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        generator, enhancer = global_generator(6), LocalEnhancer(6, width=32, features=64)
        discriminators = [count(MultiScalePatchGAN(9, width=64, scales=n, spectral=False)) for n in (1, 2, 3)]
    assert count(generator) == 182_452_675
    assert count(generator.model[:-3]) + count(enhancer) == 182_715_939
    assert discriminators == [2_773_953, 5_547_906, 8_321_859]


def test_a_step_minimises_the_equations_of_the_paper() -> None:
    method = still("dance", global_steps=0, frozen_steps=0, feature_matching=3.0)
    pairs = BATCH.paired
    before, now = method.encode(pairs.sides["previous_label"]), method.encode(pairs.label)
    method.enhanced = True
    first = method.next_photo(pairs.sides["previous_label"], torch.zeros_like(pairs.photo))
    second = method.next_photo(pairs.label, first)
    drawn = torch.cat([before, now], 1)
    known = method.discriminator(torch.cat([pairs.sides["previous_photo"], pairs.photo], 1), drawn)
    judged = method.discriminator(torch.cat([first, second], 1), drawn)
    generator, discriminator = method.step(BATCH, 0)
    adversarial = sum((scale[4] - 1).square().mean().item() for scale in judged)
    assert generator.losses["adversarial"].item() == pytest.approx(adversarial)
    judges_by_least_squares(discriminator, known, judged)


def test_the_second_frame_is_made_with_the_first_and_teaches_it() -> None:
    method = still("dance")
    label, previous = BATCH.paired.label, torch.zeros_like(BATCH.paired.photo, requires_grad=True)
    for method.enhanced in (False, True):
        photo = method.next_photo(label, previous)
        (gradient,) = torch.autograd.grad(photo.square().sum(), previous)
        assert gradient.abs().sum() > 0
        assert torch.equal(method.to_photo(label), photo)
        assert not torch.equal(photo, method.next_photo(label, BATCH.paired.photo))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_predict_and_jobs_make_each_frame_with_the_one_before_it(tmp_path: Path) -> None:
    run = tiny_run("dance", data="walker", steps=3, unpaired=0)
    dataset, selection = material_for(run)
    start(tmp_path / "run", run, dataset, selection, device="cpu")
    model = export(tmp_path / "run", tmp_path / "models", name="walk", force=True)
    poses = [np.array(Image.fromarray(dataset.read_label(each)).resize(SIZE[::-1])) for each in selection.pairs[:2]]
    names = ["a/9.png", "a/10.png", "b/1.png"]
    for name, pose in zip(names, (poses[0], poses[1], poses[1]), strict=True):
        (tmp_path / "poses" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pose).save(tmp_path / "poses" / name)
    assert predict([str(model), str(tmp_path / "poses"), "--out", str(tmp_path / "frames"), "--format", "png"]) == 0
    frames = [np.array(Image.open(tmp_path / "frames" / name)) for name in names]

    graph = open_session((model / "to_photo.onnx").read_bytes())

    def expected(pose: np.ndarray, previous: np.ndarray) -> np.ndarray:
        (photo,) = graph.run(["photo"], {"picture": pose[None], "previous": previous[None]})
        return np.asarray(photo[0])

    nothing = np.full_like(poses[0], 128)
    first = expected(poses[0], nothing)
    assert np.array_equal(frames[0], first)
    assert np.array_equal(frames[1], expected(poses[1], first))
    assert np.array_equal(frames[2], expected(poses[1], nothing)), "another folder is another clip"

    with zipfile.ZipFile(tmp_path / "poses.zip", "w") as packed:
        for name in reversed(names):
            packed.write(tmp_path / "poses" / name, name)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as packed:
        packed.write(tmp_path / "poses" / names[1], "a/11.png")
    jobs = {"FEWPAIR_JOBS": str(tmp_path / "jobs")}
    with running_server(model.parent, tmp_path / "home", "--no-ui", **jobs) as server, Client(server.url) as client:
        job = client.jobs.synthesize([tmp_path / "poses.zip", tmp_path / "other.zip"], format="png")
        assert client.jobs.wait(job.id, seconds=60, every=0.1).state == "done"
        client.jobs.fetch(job.id, tmp_path / "frames.zip")
        alone = Image.open(io.BytesIO(client.synthesize(tmp_path / "poses" / names[1], format="png").photo))
    with zipfile.ZipFile(tmp_path / "frames.zip") as made:
        assert all(made.read(name) == (tmp_path / "frames" / name).read_bytes() for name in names)
        assert np.array_equal(np.array(Image.open(made.open("a/11.png"))), frames[2]), "another ZIP is another clip"
    assert np.array_equal(np.array(alone), frames[2]), "a request of its own has no frame before it"
