"""Large pictures in tiles: the same answers as in one piece, where the model sees no further than the overlap."""

import asyncio
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from serving.errors import Refusal
from serving.imaging.resize import padded
from serving.imaging.tiling import Grid, Mosaic, lay
from serving.inference import pipeline
from serving.inference.archive import Picture
from serving.inference.parameters import SegmentParameters, SynthesizeParameters
from tests.serving.backends import answer_of, answer_to, backend_of
from tests.serving.factory import RADIUS, write_blurring_model, write_model
from tests.serving.pictures import file_of, noise, pixels_of, stripes

SIDE = 48


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    """Models that see 5 pixels far, at their own size and shrunk; and one whose manifest forbids tiles."""
    folder = tmp_path_factory.mktemp("tiled")
    write_blurring_model(folder / "blurring", side=SIDE)
    shrunk = {"rule": "exact", "height": SIDE, "width": SIDE, "filter": "bicubic"}
    write_blurring_model(folder / "shrinking", side=SIDE, resize=shrunk)
    write_model(folder / "whole")
    return backend_of(folder)


def joined(picture, run, *, tile, multiple_of, overlap):
    """What `run` returns for the tiles of a picture, joined."""
    grid = Grid(*(lay(side, tile=tile, multiple_of=multiple_of, overlap=overlap) for side in picture.shape[:2]))
    ready, mosaic = padded(picture, multiple_of=multiple_of, void=0), Mosaic(grid)
    for row, columns in grid.batches():
        mosaic.add(row, columns, run(grid.cut(ready, row, columns), grid, row, columns))
    return mosaic.answers


def test_ids_and_confidence_are_those_of_one_piece_where_the_overlap_covers_what_a_pixel_sees(backend):
    model = backend.models.models["blurring"]

    def run(tiles, *_):
        return model.run_batch("to_label", tiles, seeds=[0] * len(tiles))

    for size in ((200, 131), (49, 300), (48, 97), (20, 150)):
        ids, confidence = answer_of(model, "to_label", noise(*size))
        for overlap in (2 * RADIUS, 16):
            found = joined(noise(*size), run, tile=SIDE, multiple_of=1, overlap=overlap)
            assert (found["label"] == ids).all()
            assert (found["confidence"] == confidence).all()
    confidence = answer_of(model, "to_label", noise(200, 131))[1]
    found = joined(noise(200, 131), run, tile=SIDE, multiple_of=1, overlap=2)
    assert 0.01 < (found["confidence"] != confidence).mean() < 0.5, "a smaller overlap gives other answers at the seams"


@pytest.mark.parametrize("size", [(40, 40), (41, 200), (170, 90)], ids=str)
def test_a_blended_photo_is_that_of_one_piece_where_the_model_sees_no_further_than_a_quarter_of_the_overlap(size):
    picture = noise(*size)

    def spoilt(pixels):
        """The identity on tiles of 40, wrong at the outermost pixels of a tile that are not those of the picture."""

        def run(tiles, grid, row, columns):
            tiles, y = tiles.copy(), grid.rows.starts[row]
            for tile, x in zip(tiles, (grid.columns.starts[column] for column in columns), strict=True):
                tile[: pixels if y else 0] = 0
                tile[:, : pixels if x else 0] = 0
                tile[40 - pixels if y + 40 < size[0] else 40 :] = 0
                tile[:, 40 - pixels if x + 40 < size[1] else 40 :] = 0
            return {"photo": tiles}

        return joined(picture, run, tile=40, multiple_of=4, overlap=20)["photo"]

    assert (spoilt(5) == picture).all()
    assert size == (40, 40) or (spoilt(12) != picture).any()


def test_two_tiles_that_disagree_meet_without_a_step():
    levels = np.array([100, 200], np.uint8)[:, None, None, None] * np.ones((1, 40, 40, 3), np.uint8)
    found = joined(
        noise(40, 70),
        lambda tiles, grid, row, columns: {"photo": levels[list(columns)]},
        tile=40,
        multiple_of=1,
        overlap=None,
    )
    line = found["photo"][20, :, 0].astype(int)
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


def test_the_manifest_decides_whether_auto_means_tiles(backend):
    large, small = (3000, 2000), (1500, 2000)
    blurring, shrinking, whole = (backend.models.models[name] for name in ("blurring", "shrinking", "whole"))
    assert blurring.plan(large, "auto") is not None
    assert blurring.plan(small, "auto") is None
    assert blurring.plan(small, "always") is not None
    assert blurring.plan((48, 48), "always") is None
    assert blurring.plan(large, "never") is None
    assert shrinking.plan(large, "auto") is None
    assert str(shrinking.plan((48, 120), "always")) == "3x1"
    assert whole.plan(large, "auto") is None
    with pytest.raises(Refusal, match="cannot be run in tiles"):
        pipeline.translator(backend.models, SegmentParameters(model="whole", tiles="always"))


def test_an_answer_in_tiles_is_the_answer_in_one_piece_and_says_so(backend):
    def answers(file, options):
        both = (options.model_copy(update={"tiles": tiles}) for tiles in ("never", "always"))
        return [asyncio.run(answer_to(backend, file, one)) for one in both]

    photo = file_of(noise(200, 131))
    for output in ("ids", "confidence", "overlay", "json"):
        whole, tiled = answers(photo, SegmentParameters(model="blurring", output=output))
        assert whole.body == tiled.body
        assert (whole.headers["X-Tiling"], tiled.headers["X-Tiling"]) == ("none", "4x6")
    label = file_of((np.arange(200 * 131).reshape(200, 131) // 700 % 4).astype(np.uint8))
    whole, tiled = answers(label, SynthesizeParameters(model="blurring", seed=7, format="png"))
    assert tiled.headers["X-Tiling"] == "4x6"
    assert (pixels_of(whole.body) == pixels_of(tiled.body)).all(), "all tiles have one noise"


def test_tiles_of_a_shrunk_model_are_at_the_pictures_own_size(backend):
    whole, tiled, own = (
        asyncio.run(
            answer_to(
                backend, file_of(noise(100, 100)), SegmentParameters(model=model, output="confidence", tiles=tiles)
            )
        )
        for model, tiles in (("shrinking", "auto"), ("shrinking", "always"), ("blurring", "never"))
    )
    assert tiled.body == own.body != whole.body


def test_a_picture_too_large_for_one_piece_is_refused_where_it_would_be_run_in_one(backend):
    execution = pipeline.Execution(replace(backend.limits(), max_whole=1000))
    photo = Picture("image", lambda: file_of(noise(40, 40)))
    pipeline.translator(backend.models, SegmentParameters(model="shrinking"))(photo, execution)
    with pytest.raises(Refusal, match="run in one piece") as refused:
        pipeline.translator(backend.models, SegmentParameters(model="whole"))(photo, execution)
    assert refused.value.status == 413


def test_the_memory_does_not_grow_with_the_tiles():
    """Of 1.5 megapixels: the picture, its answer, and one row of tiles as floats; nothing larger."""
    height, width = 1500, 1000
    picture = np.zeros((height, width, 3), np.uint8)
    tracemalloc.start()
    joined(picture, lambda tiles, *_: {"photo": tiles, "label": tiles[..., 0]}, tile=128, multiple_of=4, overlap=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    answers, strip = height * width * 4, 128 * width * 3 * 4
    assert peak < answers + 3 * strip


def test_the_photos_of_several_seeds_are_held_one_at_a_time(tmp_path):
    write_model(tmp_path / "tiny", resize={"rule": "exact", "height": 32, "width": 48, "filter": "bicubic"})
    backend = backend_of(tmp_path)
    picture = Picture("map", lambda: file_of(stripes(1500, 2000)))
    translate = pipeline.translator(backend.models, SynthesizeParameters(count=8, format="jpeg"))
    tracemalloc.start()
    assert len(translate(picture, pipeline.Execution(backend.limits()))) == 8
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    backend.scheduler.close()
    assert peak < 5 * 1500 * 2000 * 3
