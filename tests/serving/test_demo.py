"""The page without a browser: what it does beside showing."""

import asyncio
import tempfile
import threading

from serving import demo
from serving.operations import Operations
from serving.settings import Settings
from serving.shelf import fill
from tests.serving.pictures import file_of, ramp, stripes


def test_answers_are_encoded_off_the_loop_that_answers_everybody_else(models, tmp_path, monkeypatch):
    def noting(encode):
        def noted(*given, **options):
            threads.append(threading.current_thread())
            return encode(*given, **options)

        return noted

    threads = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("encode_segmentation", "encode_photos", "encode_label", "encode_photo"):
        monkeypatch.setattr(demo, name, noting(getattr(demo, name)))
    settings = Settings(models=models, device="cpu", threads=1)
    page = demo._Page(Operations(fill(settings), settings))
    (tmp_path / "photo.png").write_bytes(file_of(ramp()))
    (tmp_path / "label.png").write_bytes(file_of(stripes()))

    async def both():
        await page._segment(str(tmp_path / "photo.png"), "tiny")
        await page._synthesize(str(tmp_path / "label.png"), "tiny", 1, False)

    asyncio.run(both())
    assert len(threads) == 4
    assert threading.main_thread() not in threads
