"""A ZIP from a stranger: what is broken, disguised or too large in it."""

import io
import json
import struct
import tracemalloc
import zipfile
from random import Random

import pytest

from serving.answers import Answer
from serving.batch import Entry, Picture, PixelBudget, clean_name, packed, unpacked
from serving.errors import Refusal
from serving.settings import Settings
from tests.serving.pictures import file_of, ramp

SETTINGS = Settings(models=None, max_pictures=4, max_bytes=2**16, max_unpacked_bytes=2**18)


def zip_of(files, compression=zipfile.ZIP_DEFLATED):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return packed.getvalue()


def opened(upload):
    return unpacked([Picture("photos.zip", lambda: upload, head=upload[:4])], SETTINGS)


def refused(work):
    with pytest.raises(Refusal) as caught:
        work()
    return caught.value


def test_a_picture_that_goes_on_as_a_zip_is_a_picture():
    polyglot = file_of(ramp()) + zip_of({"a.png": file_of(ramp())})
    pictures, archive = opened(polyglot)
    assert not archive
    assert [picture.read() for picture in pictures] == [polyglot]


def test_a_zip_in_a_zip_is_not_opened():
    pictures, _ = opened(zip_of({"inner.zip": zip_of({"a.png": file_of(ramp())})}))
    assert [picture.name for picture in pictures] == ["inner.zip"]


@pytest.mark.parametrize("cut", [10, 60, -30, -1])
def test_a_zip_that_is_cut_short_is_refused(cut):
    assert refused(lambda: opened(zip_of({"a.png": file_of(ramp())})[:cut])).code == "broken_zip"


def test_an_empty_zip_is_refused():
    assert refused(lambda: opened(zip_of({}))).code == "no_image"


def test_bytes_that_were_changed_are_noticed():
    upload = bytearray(zip_of({"a.png": file_of(ramp())}, zipfile.ZIP_STORED))
    upload[80] ^= 1
    pictures, _ = opened(bytes(upload))
    assert refused(pictures[0].read).code == "broken_zip"


def test_a_size_that_is_told_too_small_gives_no_more_than_was_told():
    upload = bytearray(zip_of({"a.bmp": b"\0" * 200_000}))
    directory = upload.rindex(b"PK\x01\x02")
    upload[directory + 24 : directory + 28] = struct.pack("<I", 100)
    pictures, _ = opened(bytes(upload))
    assert refused(pictures[0].read).code == "broken_zip"


def test_a_file_over_the_limit_in_bytes_is_refused_before_it_is_unpacked():
    pictures, _ = opened(zip_of({"a.bmp": b"\0" * (2**16 + 1)}))
    assert refused(pictures[0].read).status == 413


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_may_ask_for_gigabytes_are_refused(method):
    pictures, _ = opened(zip_of({"a.png": file_of(ramp())}, method))
    assert refused(pictures[0].read).code == "unusual_zip"


def test_an_encrypted_file_is_refused():
    upload = bytearray(zip_of({"a.png": file_of(ramp())}))
    upload[upload.rindex(b"PK\x01\x02") + 8] |= 1
    pictures, _ = opened(bytes(upload))
    assert refused(pictures[0].read).code == "unusual_zip"


def test_a_directory_of_a_hundred_thousand_entries_is_refused_unread(monkeypatch):
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    many = entry * 100_000
    upload = b"PK\x03\x04" + many + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(many), 4, 0)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *given: pytest.fail("it was read"))
    assert refused(lambda: opened(upload)).code == "too_many_pictures"


def test_a_file_that_unpacks_to_more_than_its_entry_says_is_not_unpacked_to_its_end():
    whole = bytearray(zip_of({"a.png": bytes(2**25)}))
    for at in (22, whole.rindex(b"PK\x01\x02") + 24):  # where the entry and the directory say how large it is
        struct.pack_into("<I", whole, at, 100)
    (picture,), _ = opened(bytes(whole))
    tracemalloc.start()
    try:
        assert refused(picture.read).code == "broken_zip"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_pixels_of_a_request_are_counted_for_each_answer():
    budget = PixelBudget(100, answers=4)
    budget.spend(20)
    assert refused(lambda: budget.spend(6)).code == "too_many_pixels_in_all"
    budget.spend(5)
    assert refused(lambda: PixelBudget(100, answers=4).spend(26)).code == "too_many_pixels_in_all"
    PixelBudget(100).spend(101)  # a lone picture has the limit of pictures


def test_a_list_of_seeds_that_no_header_holds_is_left_to_the_entries():
    def listed(pictures):
        answer = Answer(b"", "image/jpeg", {"X-Model": "tiny", "X-Seed": "4294967295", "X-Label-Spelling": "ids", "X-Tiling": "none"})
        return packed([Entry("a", (answer,), None)] * pictures, "json")

    assert listed(2).headers["X-Seed"] == "4294967295,4294967295"
    assert "X-Seed" not in listed(1000).headers
    assert json.loads(listed(1000).body)["answers"][999]["seed"] == 4294967295


def test_the_form_for_files_over_four_gigabytes_is_refused():
    plain = zip_of({"a.png": file_of(ramp())})
    end = plain.rindex(b"PK\x05\x06")
    upload = plain[:end] + b"PK\x06\x07" + bytes(16) + plain[end:]
    assert refused(lambda: opened(upload)).code == "zip64"


def test_five_thousand_mutated_zips_end_in_files_or_in_a_refusal():
    whole, random, seen = zip_of({f"é{number}.png": b"abc" * 100 for number in range(4)}), Random(0), set()
    for _ in range(5000):
        upload = bytearray(whole)
        for _ in range(random.randint(1, 5)):
            at = random.randrange(len(upload))
            upload[at : at + random.randint(0, 4)] = random.randbytes(random.randint(0, 4))
        try:
            seen |= {len(picture.read()) for picture in opened(bytes(b"PK\x03\x04" + upload[4:]))[0]}
        except Refusal as refusal:
            seen.add(refusal.code)
    assert {300, "broken_zip"} <= seen


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("../../a.png", "a.png"), ("/a.png", "a.png"), ("c:\\b\\a.png", "c:/b/a.png"), (".\x00./a", "a"), ("", "picture"), ("a/./b", "a/b")],
)
def test_names_lead_nowhere(sent, kept):
    assert clean_name(sent) == kept
