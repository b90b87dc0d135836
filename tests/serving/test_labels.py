"""Label maps: what refusals say, snapping, and how label maps are shown."""

import io
import time
import tracemalloc
from itertools import chain

import numpy as np
import pytest
from PIL import Image

from serving.imaging.decode import ImageError, encode_label
from serving.imaging.domain import ClassRow, Domain
from serving.imaging.labels import nearest_ids, read_label
from serving.inference.outputs import overlay, shares
from tests.odd_files import DOMAIN
from tests.serving.pictures import file_of, noise, pixels_of, stripes


def refused(content: bytes, domain: Domain = DOMAIN) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_label(content, domain)
    assert caught.value.status == 400
    return caught.value


def test_an_unknown_id_is_named_with_its_pixels_and_its_place():
    ids = stripes()
    ids[3, :7] = 77
    for file in (file_of(ids), file_of(np.repeat(ids[..., None], 3, axis=2))):
        refusal = refused(file)
        assert refusal.code == "unknown_class_id"
        assert "77 (7 pixels, first at x=0 y=3)" in refusal.message
        assert "Its ids are 0-3, 255." in refusal.message


def test_255_is_void_only_where_the_class_table_has_an_ignored_class():
    masks = file_of(np.where(stripes() > 1, 255, 0).astype(np.uint8))
    background, target = ClassRow(0, "background", (0, 0, 0), False), ClassRow(1, "target", (255, 255, 255), False)
    refusal = refused(masks, Domain("classes", (background, target)))
    assert f"255 ({(stripes() > 1).sum()} pixels" in refusal.message
    assert "255,void,224,224,192,1" in refusal.hint
    table = Domain("classes", (background, target, ClassRow(7, "void", (1, 1, 1), True)))
    assert set(np.unique(read_label(masks, table).ids)) == {0, 255}


def test_unknown_colours_are_counted_and_named_with_place_and_nearest_class():
    rgb = DOMAIN.palette[stripes()].copy()
    rgb[2, 5:9] = (252, 250, 61)
    rgb[20, :3] = (1, 2, 3)
    refusal = refused(file_of(rgb))
    assert refusal.code == "unknown_colours"
    assert "in 7 of 1260 pixels" in refusal.message
    assert "(252, 250, 61) on 4 pixels, first at x=5 y=2, nearest to bright" in refusal.message
    assert "snap" in refusal.hint


@pytest.mark.parametrize("red", [250, 251], ids=["of class colours", "of nearly class colours"])
def test_an_indexed_image_in_another_order_is_refused_with_both_readings(red):
    picture = Image.fromarray(2 - np.minimum(stripes(), 2))
    picture.putpalette([red, *[value for row in DOMAIN.classes[2::-1] for value in row.color][1:]])
    refusal = refused(file_of(picture))
    assert refusal.code == "ambiguous_label_map"
    assert f"index 0 is dark by its id, but bright by its palette colour ({red}, 250, 60)" in refusal.message


@pytest.mark.parametrize(("order", "off"), [([0, 1, 2, 3, 5, 4], 0), ([5, 4, 3, 2, 1, 0], 1)])
def test_an_indexed_image_whose_colours_are_nearly_those_of_the_classes_is_refused_in_another_order(order, off):
    rows = tuple(ClassRow(id, f"class {id}", (40 * id, 10, 200), False) for id in range(6))
    colours = [[red, green, blue - off] for red, green, blue in (rows[id].color for id in order)]
    picture = Image.fromarray(np.arange(6, dtype=np.uint8).repeat(5).reshape(6, 5))
    picture.putpalette([1, 2, 3, *chain.from_iterable(colours[1:])])  # the first is no class colour
    assert "can be read in two ways: index" in refused(file_of(picture), Domain("classes", rows)).message


def test_an_indexed_image_of_ids_may_have_any_palette_with_one_class_colour_by_chance():
    picture = Image.fromarray(np.minimum(stripes(), 2))
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])  # black is void's colour
    assert np.array_equal(read_label(file_of(picture), DOMAIN).ids, np.minimum(stripes(), 2))


def test_a_colour_that_two_classes_share_is_no_class_colour():
    domain = Domain("classes", (*DOMAIN.classes, ClassRow(4, "twin", DOMAIN.classes[0].color, False)))
    assert "nearest to dark and twin" in refused(file_of(DOMAIN.palette[stripes()]), domain).message


def test_smeared_and_antialiased_colours_are_snapped_when_asked():
    colours = Image.fromarray(DOMAIN.palette[stripes()])
    blurred = colours.resize((420, 300), Image.Resampling.BICUBIC)
    expected = np.asarray(Image.fromarray(stripes()).resize((420, 300), Image.Resampling.NEAREST))
    for file in (file_of(blurred), file_of(blurred, "JPEG", quality=80), file_of(blurred.quantize(60))):
        found = read_label(file, DOMAIN, snap=True)
        assert found.spelling == "snapped colours"
        assert (found.ids == expected).mean() > 0.9


def test_snapping_leaves_ids_and_class_colours_as_they_are():
    grey = np.repeat(stripes()[..., None], 3, axis=2)
    for pixels in (stripes(), grey, DOMAIN.palette[stripes()]):
        assert np.array_equal(read_label(file_of(pixels), DOMAIN, snap=True).ids, stripes())


def test_the_nearest_colour_agrees_with_a_search_over_all_classes():
    table = np.random.default_rng(1).integers(0, 256, (150, 3))
    domain = Domain("classes", tuple(ClassRow(i, f"{i}", tuple(row), i == 0) for i, row in enumerate(table.tolist())))
    photo = noise(20, 30)
    distances = np.sqrt(((photo[:, :, None].astype(int) - table) ** 2).sum(axis=3))
    assert np.array_equal(nearest_ids(photo, domain), distances.argmin(axis=2))
    near = np.where(distances.min(axis=2) <= 30, distances.argmin(axis=2), 0)
    assert np.array_equal(nearest_ids(photo, domain, max_distance=30), near)


@pytest.mark.slow
def test_snapping_25_megapixels_of_noise_takes_seconds_and_bounded_memory():
    file = file_of(np.random.default_rng(0).integers(0, 256, (5000, 5000, 3), dtype=np.uint8), "JPEG", quality=30)
    began = time.process_time()
    read_label(file, DOMAIN, snap=True)
    assert time.process_time() - began < 2
    tracemalloc.start()
    read_label(file, DOMAIN, snap=True)
    assert tracemalloc.get_traced_memory()[1] < 300 * 2**20  # besides the decoded picture, which Pillow holds
    tracemalloc.stop()


def test_one_file_holds_ids_and_colours():
    file = encode_label(stripes(), DOMAIN)
    assert np.array_equal(pixels_of(file), stripes())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file)).convert("RGB")), DOMAIN.palette[stripes()])


def test_the_overlay_leaves_void_alone_and_mixes_the_rest():
    photo = noise(*stripes().shape)
    half = overlay(photo, stripes(), domain=DOMAIN, opacity=0.5)
    void = stripes() == 3
    assert np.array_equal(half[void], photo[void])
    expected = (photo[~void].astype(int) + DOMAIN.palette[stripes()][~void]) / 2
    assert np.abs(half[~void] - expected).max() <= 1
    assert np.array_equal(overlay(photo, stripes(), domain=DOMAIN, opacity=0), photo)


def test_shares_are_largest_first_and_add_up():
    ids = np.array([[0, 0, 0, 1], [0, 2, 2, 1]], np.uint8)
    confidence = np.array([[255, 255, 255, 0], [255, 51, 51, 0]], np.uint8)
    found = shares(ids, confidence, domain=DOMAIN)
    assert [part.name for part in found] == ["dark", "middle", "bright"]
    assert sum(part.share for part in found) == pytest.approx(1)
    assert [part.mean_confidence for part in found] == pytest.approx([1, 0, 0.2])
