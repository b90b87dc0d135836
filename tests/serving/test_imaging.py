"""Image files: broken, too large, or written by the server itself. Odd but valid files: `tests.odd_files`."""

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageFile

from serving.errors import Refusal
from serving.imaging.decode import BrokenImage, ImageError, Limits, encode_photo, image_size, read_photo
from tests.odd_files import stored_as, turned
from tests.serving.pictures import file_of, noise, pixels_of, ramp

LIMITS = Limits(max_bytes=2**20, max_pixels=10_000)


def refused(content: bytes, limits: Limits = LIMITS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_photo(content, limits)
    return caught.value


def test_each_format_is_read_and_lossless_ones_exactly():
    for format in ("PNG", "BMP", "TIFF", "GIF"):
        assert np.array_equal(read_photo(file_of(ramp(), format), LIMITS), ramp())
    for format in ("JPEG", "WEBP", "AVIF"):
        found = read_photo(file_of(ramp(), format, quality=95), LIMITS)
        assert np.abs(found.astype(int) - ramp()).mean() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_avif_is_read_upright(orientation):
    photo = ramp()
    photo[:20] //= 2
    content = file_of(stored_as(photo, orientation), "AVIF", quality=95, exif=turned(orientation))
    assert image_size(content) == photo.shape[:2]
    assert np.abs(read_photo(content, LIMITS).astype(int) - photo).mean() <= 4


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_upload"),
        (b"not an image", "not_an_image"),
        (b"\x89PNG\r\n\x1a\n", "not_an_image"),
        (b"\xff\xd8\xff", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        (b"%PDF-1.7", "not_an_image"),
        (b"GIF89a", "not_an_image"),
        *((file_of(noise(), format)[:1500], "broken_image") for format in ("PNG", "JPEG", "BMP")),
        (file_of(noise(), "AVIF").replace(b"pitm", b"none"), "not_an_image"),
    ],
    ids=["empty", "text", "png", "jpeg", "svg", "pdf", "gif", "cut png", "cut jpeg", "cut bmp", "damaged avif"],
)
def test_a_file_that_cannot_be_decoded_is_broken(content, code):
    refusal = refused(content)
    assert isinstance(refusal, BrokenImage)
    assert (refusal.status, refusal.code) == (400, code)


def test_a_file_that_is_not_there_is_broken(tmp_path):
    for read in (read_photo, image_size):
        with pytest.raises(BrokenImage):
            read(tmp_path / "gone.png")


def test_limits_in_bytes_and_pixels_are_refused_with_413_and_both_numbers():
    refusal = refused(b"0" * 2000, Limits(max_bytes=1024, max_pixels=100))
    assert (refusal.status, refusal.code) == (413, "too_many_bytes")
    refusal = refused(file_of(ramp(200, 300)))
    assert (refusal.status, refusal.code) == (413, "too_many_pixels")
    assert "300x200 pixels are over the limit of 0.01 megapixels" in refusal.message


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">II", zlib.crc32(header), 0) + b"IDAT"
    assert refused(bomb).status == 413


def test_a_photo_over_the_budget_of_its_request_is_not_decoded(monkeypatch):
    def spend(pixels):
        raise Refusal(413, f"{pixels}", "over the budget.")

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda picture: pytest.fail("it was decoded"))
    with pytest.raises(Refusal, match="over the budget") as caught:
        read_photo(file_of(ramp()), replace(LIMITS, spend=spend))
    assert caught.value.code == f"{45 * 61}"


def test_photos_are_encoded_without_loss_or_as_jpeg_within_a_level():
    for format in ("webp", "png"):
        assert np.array_equal(pixels_of(encode_photo(noise(), format)), noise())
    assert np.abs(pixels_of(encode_photo(ramp(), "jpeg")).astype(int) - ramp()).mean() < 1
