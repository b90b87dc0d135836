"""Large pictures in tiles: the same answers as in one piece, where the model sees no further than the overlap."""

import asyncio
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from serving.asked import SegmentOptions, SynthesizeOptions
from serving.batch import Picture
from serving.errors import Refusal
from serving.manifest import TensorSpec
from serving.operations import Operations
from serving.settings import Settings
from serving.shelf import fill
from serving.tiles import Grid, Mosaic, cut, lay, plan
from serving.translator import load_model
from tests.serving.factory import RADIUS, write_blurring_model, write_model
from tests.serving.pictures import file_of, noise, pixels_of

SIDE = 48
IDS = TensorSpec("label", "label", "NHW")
PHOTO = TensorSpec("photo", "photo", "NHWC")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models that see 5 pixels far, at their own size and shrunk; and one whose manifest forbids tiles."""
    folder = tmp_path_factory.mktemp("tiled")
    write_blurring_model(folder / "blurring", side=SIDE)
    shrunk = {"rule": "exact", "height": SIDE, "width": SIDE, "filter": "bicubic"}
    write_blurring_model(folder / "shrinking", side=SIDE, resize=shrunk)
    write_model(folder / "whole")
    return folder


@pytest.fixture(scope="module")
def operations(folder):
    return Operations(fill(Settings(models=folder, device="cpu", threads=1)), Settings(models=folder))


def in_tiles(model, photo, *, overlap):
    """A run of `to_label` in tiles of SIDE, without the server around it."""
    axes = [lay(side, tile=SIDE, multiple_of=model.manifest.multiple_of, overlap=overlap) for side in photo.shape[:2]]
    grid = Grid(*axes)
    mosaic = Mosaic(grid, model.manifest.directions["to_label"].outputs)
    for row, columns in grid.batches():
        mosaic.add(row, columns, model.run_batch("to_label", cut(photo, grid, row, columns, void=255), seeds=[0] * len(columns)))
    return mosaic.answers()


@pytest.mark.parametrize("size", [(200, 131), (49, 300), (48, 97), (20, 150)], ids=str)
@pytest.mark.parametrize("overlap", [2 * RADIUS, 16])
def test_ids_and_confidence_are_those_of_a_run_in_one_piece_where_the_overlap_covers_what_a_pixel_sees(folder, size, overlap):
    model = load_model(folder / "blurring", device="cpu", threads=1)
    photo = noise(*size)
    found = in_tiles(model, photo, overlap=overlap)
    ids, confidence = model.to_label(photo)
    assert (found["label"] == ids).all()
    assert (found["confidence"] == confidence).all()


def test_where_the_overlap_is_smaller_the_seams_are_wrong(folder):
    model = load_model(folder / "blurring", device="cpu", threads=1)
    photo = noise(200, 131)
    different = in_tiles(model, photo, overlap=2)["confidence"] != model.to_label(photo)[1]
    assert 0.01 < different.mean() < 0.5


def blended(picture, *, overlap, spoilt):
    """The identity in tiles of 40, each `spoilt` at its outermost pixels, where they are not the picture's."""
    grid = Grid(*(lay(side, tile=40, multiple_of=4, overlap=overlap) for side in picture.shape[:2]))
    mosaic = Mosaic(grid, [PHOTO])
    for row, columns in grid.batches():
        tiles = cut(picture, grid, row, columns, void=0).copy()
        for tile, column in zip(tiles, columns, strict=True):
            y, x = grid.rows.starts[row], grid.columns.starts[column]
            tile[: spoilt if y else 0] = 0
            tile[:, : spoilt if x else 0] = 0
            tile[40 - spoilt if y + 40 < picture.shape[0] else 40 :] = 0
            tile[:, 40 - spoilt if x + 40 < picture.shape[1] else 40 :] = 0
        mosaic.add(row, columns, {"photo": tiles})
    return mosaic.answers()["photo"]


@pytest.mark.parametrize("size", [(40, 40), (41, 200), (170, 90)], ids=str)
def test_a_blended_photo_is_that_of_one_piece_where_the_model_sees_no_further_than_a_quarter_of_the_overlap(size):
    picture = noise(*size)
    assert (blended(picture, overlap=20, spoilt=5) == picture).all()
    assert size == (40, 40) or (blended(picture, overlap=20, spoilt=12) != picture).any()


def test_two_tiles_that_disagree_meet_without_a_step():
    grid = Grid(lay(40, tile=40, multiple_of=1), lay(70, tile=40, multiple_of=1))
    mosaic = Mosaic(grid, [PHOTO])
    levels = np.array([100, 200], np.uint8)[:, None, None, None] * np.ones((1, 40, 40, 3), np.uint8)
    for row, columns in grid.batches():
        mosaic.add(row, columns, {"photo": levels[list(columns)]})
    line = mosaic.answers()["photo"][20, :, 0].astype(int)
    assert (line[:30].max(), line[-30:].min()) == (100, 200)
    assert 0 <= np.diff(line).min() <= np.diff(line).max() <= 25


def test_the_windows_add_up_to_one_whatever_the_sides():
    generator = np.random.default_rng(0)
    for _ in range(100):
        multiple, length = int(generator.choice([1, 4, 16])), int(generator.integers(1, 400))
        axis = lay(length, tile=int(generator.integers(2 * multiple + 2, 80)), multiple_of=multiple)
        covered = np.zeros(axis.starts[-1] + axis.tile)
        for index, start in enumerate(axis.starts):
            assert start % multiple == 0
            covered[start : start + axis.tile] += axis.window(index)
        assert np.allclose(covered, 1)
        assert len(covered) == length + (-length) % multiple


def test_the_manifest_decides_whether_tiles_are_taken_unasked(folder):
    large, small = (3000, 2000), (1500, 2000)
    blurring, shrinking, whole = (
        load_model(folder / name, device="cpu", threads=1).manifest for name in ("blurring", "shrinking", "whole")
    )
    assert plan(blurring, large, "auto") is not None
    assert plan(blurring, small, "auto") is None
    assert plan(blurring, small, "always") is not None
    assert plan(blurring, (48, 48), "always") is None
    assert plan(blurring, large, "never") is None
    assert plan(shrinking, large, "auto") is None
    assert str(plan(shrinking, (48, 120), "always")) == "3x1"
    assert plan(whole, large, "auto") is None
    with pytest.raises(Refusal, match="cannot be run in tiles"):
        plan(whole, small, "always")


def answer_of(operations, picture, options):
    act = operations.segment if isinstance(options, SegmentOptions) else operations.synthesize
    return asyncio.run(act([Picture("image", lambda: picture)], options))


def test_an_answer_in_tiles_is_the_answer_in_one_piece_and_says_so(operations):
    photo = file_of(noise(200, 131))
    for output in ("ids", "confidence", "overlay", "json"):
        asked = SegmentOptions(model="blurring", output=output)
        whole, tiled = (answer_of(operations, photo, asked.model_copy(update={"tiles": tiles})) for tiles in ("never", "always"))
        assert whole.body == tiled.body
        assert (whole.headers["X-Tiling"], tiled.headers["X-Tiling"]) == ("none", "4x6")


def test_a_label_map_in_tiles_has_one_noise(operations):
    label = file_of((np.arange(200 * 131).reshape(200, 131) // 700 % 4).astype(np.uint8))
    asked = SynthesizeOptions(model="blurring", seed=7, format="png")
    whole, tiled = (answer_of(operations, label, asked.model_copy(update={"tiles": tiles})) for tiles in ("never", "always"))
    assert tiled.headers["X-Tiling"] == "4x6"
    assert (pixels_of(whole.body) == pixels_of(tiled.body)).all()


def test_tiles_of_a_shrunk_model_are_at_the_pictures_own_size(operations):
    photo = file_of(noise(100, 100))
    whole, tiled, own = (
        answer_of(operations, photo, SegmentOptions(model=model, output="confidence", tiles=tiles))
        for model, tiles in (("shrinking", "auto"), ("shrinking", "always"), ("blurring", "never"))
    )
    assert tiled.body == own.body != whole.body


def test_a_picture_too_large_for_one_piece_is_refused_where_it_would_be_run_in_one(operations):
    limits = replace(operations.limits, max_whole=1000)
    for options, large in ((SegmentOptions(model="whole"), True), (SegmentOptions(model="shrinking"), False)):
        translated = operations.segmenter(options)(Picture("image", lambda: file_of(noise(40, 40))), limits)
        if large:
            with pytest.raises(Refusal, match="run in one piece") as refused:
                asyncio.run(translated)
            assert refused.value.status == 413
        else:
            asyncio.run(translated)


def test_the_memory_does_not_grow_with_the_tiles():
    """Of 3 megapixels: the picture, its answer, and one row of tiles as floats; nothing that is the picture's size in floats."""
    height, width = 3000, 1000
    grid = Grid(lay(height, tile=128, multiple_of=4), lay(width, tile=128, multiple_of=4))
    picture = np.zeros((height, width, 3), np.uint8)
    tracemalloc.start()
    mosaic = Mosaic(grid, [PHOTO, IDS])
    for row, columns in grid.batches():
        tiles = cut(picture, grid, row, columns, void=0)
        mosaic.add(row, columns, {"photo": tiles, "label": tiles[..., 0]})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    answers, strip = height * width * 4, 128 * width * 3 * 4
    assert peak < answers + 3 * strip
