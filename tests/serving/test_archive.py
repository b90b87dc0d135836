"""ZIPs from clients: broken, disguised, too large, and with names in several encodings."""

import struct
import tracemalloc
import zipfile
import zlib
from random import Random

import pytest

from serving.errors import Refusal
from serving.imaging.decode import PixelBudget
from serving.inference.archive import Picture, unpacked
from serving.inference.outputs import clean_name
from serving.settings import Settings
from tests.serving.pictures import file_of, ramp, zip_of

SETTINGS = Settings(max_pictures=4, max_bytes=2**16)


def opened(upload):
    return unpacked([Picture("photos.zip", lambda: upload, head=upload[:4])], SETTINGS)


def refused(work):
    with pytest.raises(Refusal) as caught:
        work()
    return caught.value


def zip_with_names(names, flag):
    """A ZIP by hand, whose names are bytes."""
    entries, directory = b"", b""
    for name in names:
        numbers = (20, flag, 0, 0, 33, zlib.crc32(b"x"), 1, 1, len(name), 0)
        directory += struct.pack("<4sH5H3L2H3H2L", b"PK\1\2", 20, *numbers, 0, 0, 0, 0, len(entries)) + name
        entries += struct.pack("<4s5H3L2H", b"PK\3\4", *numbers) + name + b"x"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(names), len(names), len(directory), len(entries), 0)
    return entries + directory + end


@pytest.mark.parametrize(
    ("names", "encoding", "flag"),
    [
        (["道路.jpg", "a.jpg", "grün.jpg"], "utf-8", 0x800),
        (["道路.jpg", "a.jpg", "사고이미지.jpg"], "utf-8", 0),
        (["grün.jpg", "Straße.jpg", "español.jpg", "a.jpg"], "cp437", 0),
        (["사고이미지1.jpg", "똠방각하.jpg", "a.jpg"], "cp949", 0),
        (["plain.jpg"], "ascii", 0),
    ],
    ids=["UTF-8", "macOS", "CP437", "CP949", "ASCII"],
)
def test_names_come_back_as_they_were_in_the_encodings_that_can_be_told_apart(names, encoding, flag):
    pictures = opened(zip_with_names([name.encode(encoding) for name in names], flag))
    assert [(picture.name, picture.read()) for picture in pictures] == [(name, b"x") for name in names]


def test_system_files_and_folders_are_left_out():
    files = {"x/": b"", "x/a.png": b"", "__MACOSX/x/._a.png": b"", ".DS_Store": b"", "x/Thumbs.db": b""}
    assert [picture.name for picture in opened(zip_of(files))] == ["x/a.png"]


def test_a_picture_followed_by_a_zip_and_a_zip_in_a_zip_are_single_files():
    polyglot = file_of(ramp()) + zip_of({"a.png": file_of(ramp())})
    assert [picture.read() for picture in opened(polyglot)] == [polyglot]
    pictures = opened(zip_of({"inner.zip": zip_of({"a.png": file_of(ramp())})}))
    assert [picture.name for picture in pictures] == ["inner.zip"]


def test_a_zip_that_is_cut_short_or_empty_is_refused():
    for cut in (10, 60, -30, -1):
        assert refused(lambda cut=cut: opened(zip_of({"a.png": file_of(ramp())})[:cut])).code == "broken_zip"
    assert refused(lambda: opened(zip_of({}))).code == "no_image"


def test_bytes_that_were_changed_are_noticed():
    upload = bytearray(zip_of({"a.png": file_of(ramp())}, zipfile.ZIP_STORED))
    upload[80] ^= 1
    pictures = opened(bytes(upload))
    assert refused(pictures[0].read).code == "broken_zip"


def test_a_file_over_the_limit_in_bytes_is_refused_before_it_is_unpacked():
    pictures = opened(zip_of({"a.bmp": b"\0" * (2**16 + 1)}))
    assert refused(pictures[0].read).status == 413


def test_files_that_are_encrypted_or_packed_so_that_they_may_ask_for_gigabytes_are_refused():
    encrypted = bytearray(zip_of({"a.png": file_of(ramp())}))
    encrypted[encrypted.rindex(b"PK\x01\x02") + 8] |= 1
    others = (zip_of({"a.png": file_of(ramp())}, method) for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    for upload in (bytes(encrypted), *others):
        assert refused(opened(upload)[0].read).code == "unusual_zip"


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
    (picture,) = opened(bytes(whole))
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
            seen |= {len(picture.read()) for picture in opened(bytes(b"PK\x03\x04" + upload[4:]))}
        except Refusal as refusal:
            seen.add(refusal.code)
    assert {300, "broken_zip"} <= seen


def test_names_lead_nowhere():
    names = {"../../a.png": "a.png", "/a.png": "a.png", "c:\\b\\a.png": "c:/b/a.png", ".\x00./a": "a", "": "picture"}
    assert {sent: clean_name(sent) for sent in names} == names
