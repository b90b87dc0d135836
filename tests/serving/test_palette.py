"""Label maps: ids and colours, told apart, refused by name, and written as one file."""

import io

import numpy as np
import pytest
from PIL import Image

from serving.errors import Refusal
from serving.imaging import Limits
from serving.manifest import ClassRow, Domain
from serving.palette import colours_of, encode_label, legend, overlay, read_label, shares
from serving.sketches import SKETCHES, sketch
from tests.serving.factory import CLASSES
from tests.serving.pictures import file_of, noise, pixels_of, ramp, stripes

LIMITS = Limits(max_bytes=2**20, max_pixels=200_000)
DOMAIN = Domain("classes", tuple(ClassRow(row["id"], row["name"], tuple(row["color"]), row["ignore"]) for row in CLASSES))


def read(upload: bytes, *, snap: bool = False):
    return read_label(upload, LIMITS, domain=DOMAIN, snap=snap)


def refused(upload: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(upload)
    return caught.value


def test_grey_pictures_are_read_as_ids():
    found = read(file_of(stripes()))
    assert found.spelling == "ids"
    assert np.array_equal(found.ids, stripes())


def test_16_bit_ids_are_read_as_they_are():
    assert np.array_equal(read(file_of(Image.fromarray(stripes().astype(np.uint16)))).ids, stripes())


def test_ids_saved_as_grey_rgb_are_read_as_ids():
    found = read(file_of(np.repeat(stripes()[..., None], 3, axis=2)))
    assert found.spelling == "ids"
    assert np.array_equal(found.ids, stripes())


def test_class_colours_are_read_as_colours():
    found = read(file_of(colours_of(stripes(), DOMAIN)))
    assert found.spelling == "colours"
    assert np.array_equal(found.ids, stripes())


def test_our_own_palette_png_comes_back_as_it_left():
    assert np.array_equal(read(encode_label(stripes(), DOMAIN)).ids, stripes())


def test_a_palette_in_another_order_is_read_by_its_colours():
    picture = Image.fromarray(2 - np.minimum(stripes(), 2))
    picture.putpalette([value for row in reversed(CLASSES[:3]) for value in row["color"]])
    assert np.array_equal(read(file_of(picture)).ids, np.minimum(stripes(), 2))


def test_a_palette_of_foreign_colours_is_read_by_its_indices():
    picture = Image.fromarray(stripes())
    picture.putpalette([9, 9, 9, 50, 60, 70, 1, 2, 3, 200, 100, 0])
    found = read(file_of(picture))
    assert found.spelling == "ids"
    assert np.array_equal(found.ids, stripes())


def test_the_void_id_and_255_are_both_accepted():
    ids = stripes()
    ids[0, :5] = 255
    assert np.array_equal(read(file_of(ids)).ids, ids)


def test_an_id_outside_the_table_is_refused_with_its_pixel_count_and_where_to_look():
    ids = stripes()
    ids[3, :7] = 77
    refusal = refused(file_of(ids))
    assert (refusal.status, refusal.code) == (400, "unknown_class_id")
    assert "77 (7 pixels, first at x=0 y=3)" in refusal.message
    assert "Its ids are 0-3, 255." in refusal.message


def test_colours_of_no_class_are_refused_with_where_to_look_and_their_nearest_class():
    rgb = colours_of(stripes(), DOMAIN).copy()
    rgb[2, 5:9] = (252, 250, 61)
    refusal = refused(file_of(rgb))
    assert (refusal.status, refusal.code) == (400, "unknown_colours")
    assert "(252, 250, 61) on 4 pixels, first at x=5 y=2, nearest to bright" in refusal.message
    assert "snap=true" in refusal.hint


def test_colours_of_no_class_are_snapped_when_asked():
    smeared = file_of(colours_of(stripes(), DOMAIN), "JPEG", quality=80)
    assert refused(smeared).code == "unknown_colours"
    found = read(smeared, snap=True)
    assert found.spelling == "snapped colours"
    assert (found.ids == stripes()).mean() > 0.9


def test_snapping_agrees_with_the_slow_way():
    photo = noise(20, 30)
    colours = np.array([row.color for row in DOMAIN.classes], int)
    expected = np.array([[int(((colours - pixel.astype(int)) ** 2).sum(axis=1).argmin()) for pixel in row] for row in photo])
    assert np.array_equal(read(file_of(photo), snap=True).ids, expected)


@pytest.mark.parametrize("index", range(SKETCHES))
def test_a_photo_in_place_of_a_label_map_is_called_a_photo_in_colour_and_in_grey(index):
    photo, _ = sketch(index, DOMAIN)
    grainy = np.clip(photo + np.random.default_rng(0).normal(0, 4, photo.shape), 0, 255).astype(np.uint8)
    for picture in (Image.fromarray(grainy), Image.fromarray(grainy).convert("L"), Image.fromarray(grainy).convert("L").convert("RGB")):
        refusal = refused(file_of(picture, "JPEG"))
        assert (refusal.status, refusal.code) == (400, "not_a_label_map")
        assert "looks like a photo" in refusal.message
        assert "/segment" in refusal.hint


@pytest.mark.parametrize("quality", [30, 95])
def test_a_label_map_that_jpeg_smeared_or_that_has_other_classes_colours_is_not_called_a_photo(quality):
    ids = sketch(0, DOMAIN)[1]
    small = Image.fromarray(colours_of(ids, DOMAIN)).resize((96, 64), Image.Resampling.BICUBIC)
    assert refused(file_of(small, "JPEG", quality=quality)).code == "unknown_colours"
    others = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    assert refused(file_of(Image.fromarray(others[ids]), "JPEG", quality=quality)).code == "unknown_colours"
    assert refused(file_of(ramp())).code == "unknown_class_id"


def test_one_file_holds_ids_and_colours():
    file = encode_label(stripes(), DOMAIN)
    picture = Image.open(io.BytesIO(file))
    assert picture.mode == "P"
    assert np.array_equal(pixels_of(file), stripes())
    assert np.array_equal(np.asarray(picture.convert("RGB")), colours_of(stripes(), DOMAIN))


def test_the_overlay_leaves_void_alone_and_mixes_the_rest():
    photo = noise(*stripes().shape)
    half = overlay(photo, stripes(), domain=DOMAIN, opacity=0.5)
    void = stripes() == 3
    assert np.array_equal(half[void], photo[void])
    expected = (photo[~void].astype(int) + colours_of(stripes(), DOMAIN)[~void]) / 2
    assert np.abs(half[~void] - expected).max() <= 1
    assert np.array_equal(overlay(photo, stripes(), domain=DOMAIN, opacity=0), photo)


def test_shares_are_largest_first_and_add_up():
    ids = np.array([[0, 0, 0, 1], [0, 2, 2, 1]], np.uint8)
    confidence = np.array([[255, 255, 255, 0], [255, 51, 51, 0]], np.uint8)
    found = shares(ids, confidence, domain=DOMAIN)
    assert [part.row.name for part in found] == ["dark", "middle", "bright"]
    assert sum(part.share for part in found) == pytest.approx(1)
    assert [part.confidence for part in found] == pytest.approx([1, 0, 0.2])


def test_the_legend_shows_every_colour():
    colours = {tuple(pixel) for pixel in pixels_of(legend(DOMAIN)).reshape(-1, 3)}
    assert {row.color for row in DOMAIN.classes} <= {tuple(int(value) for value in colour) for colour in colours}
