"""What a stranger's file may be: each ends in the right array or in a refusal with a sentence."""

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFile

from serving.errors import Refusal
from serving.imaging import Limits, encode_photo, read_photo
from tests.serving.pictures import file_of, noise, pixels_of, ramp

LIMITS = Limits(max_bytes=2**20, max_pixels=10_000)


def refused(upload: bytes, limits: Limits = LIMITS) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_photo(upload, limits)
    return caught.value


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_formats_come_back_pixel_for_pixel(format):
    photo = ramp()
    assert np.array_equal(read_photo(file_of(photo, format), LIMITS), photo)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_come_back_close(format):
    photo = ramp()
    found = read_photo(file_of(photo, format, quality=95), LIMITS)
    assert np.abs(found.astype(int) - photo).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright_by_its_exif(orientation):
    upright = noise(6, 4)
    turns = {1: 0, 3: 2, 6: 1, 8: 3}
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright
    if orientation in turns:
        stored = np.rot90(upright, turns[orientation])
    else:  # mirrored, and turned
        mirrored = upright[:, ::-1]
        stored = {2: mirrored, 4: upright[::-1], 5: upright.transpose(1, 0, 2), 7: np.rot90(upright, 2).transpose(1, 0, 2)}[orientation]
    found = read_photo(file_of(np.ascontiguousarray(stored), "PNG", exif=exif), LIMITS)
    assert np.array_equal(found, upright)


def test_a_16_bit_grey_photo_keeps_its_upper_byte():
    deep = (np.arange(45 * 61).reshape(45, 61) * 23).astype(np.uint16)
    found = read_photo(file_of(Image.fromarray(deep)), LIMITS)
    assert np.array_equal(found, np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_other_modes_become_rgb_without_alpha(mode):
    picture = Image.fromarray(ramp()).convert(mode)
    found = read_photo(file_of(picture, "TIFF" if mode == "CMYK" else "PNG"), LIMITS)
    assert found.shape == (45, 61, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - np.asarray(picture.convert("RGB"))).max() <= 1


def test_transparent_pixels_keep_their_colour():
    pixels = np.dstack([noise(), np.zeros((45, 61), np.uint8)])
    assert np.array_equal(read_photo(file_of(pixels), LIMITS), noise())


@pytest.mark.parametrize(
    "upload",
    [b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"GIF89a"],
    ids=["text", "png magic", "jpeg magic", "svg", "pdf", "gif magic"],
)
def test_what_is_not_an_image_is_refused_with_400(upload):
    refusal = refused(upload)
    assert (refusal.status, refusal.code) == (400, "not_an_image")
    assert "PNG, JPEG" in refusal.hint


def test_an_empty_upload_is_refused_with_400():
    assert refused(b"").code == "empty_upload"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_file_cut_short_is_refused_with_400(format):
    whole = file_of(noise(), format)
    refusal = refused(whole[: len(whole) * 2 // 3])
    assert refusal.status == 400
    assert refusal.code in ("broken_image", "not_an_image")


def test_an_upload_over_the_limit_in_bytes_is_refused_with_413():
    refusal = refused(b"0" * 2000, Limits(max_bytes=1024, max_pixels=100))
    assert (refusal.status, refusal.code) == (413, "too_many_bytes")


def test_an_upload_over_the_limit_in_pixels_is_refused_with_413_and_both_numbers():
    refusal = refused(file_of(ramp(200, 300)))
    assert (refusal.status, refusal.code) == (413, "too_many_pixels")
    assert "300x200" in refusal.message
    assert "0.01 megapixels" in refusal.message


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT"
    assert refused(bomb).status == 413


def test_an_animation_is_refused_with_400():
    frames = [Image.fromarray(ramp()), Image.fromarray(noise())]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert refused(file.getvalue()).code == "animated"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_that_cannot_be_read_says_nothing():
    photo = ramp()
    assert np.array_equal(read_photo(file_of(photo, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff"), LIMITS), photo)


@pytest.mark.parametrize("format", ["webp", "png"])
def test_photos_leave_losslessly_when_asked(format):
    assert np.array_equal(pixels_of(encode_photo(noise(), format)), noise())


def test_photos_leave_as_jpeg_within_a_few_levels():
    photo = ramp()
    assert np.abs(pixels_of(encode_photo(photo, "jpeg")).astype(int) - photo).mean() < 1


def test_a_picture_over_the_budget_of_its_request_is_not_decoded(monkeypatch):
    def spend(pixels):
        raise Refusal(413, f"{pixels}", "over the budget.")

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda picture: pytest.fail("it was decoded"))
    assert refused(file_of(ramp()), replace(LIMITS, spend=spend)).code == f"{45 * 61}"
