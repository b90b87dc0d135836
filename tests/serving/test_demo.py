"""The page without a browser: what it does beside showing."""

import asyncio
import shutil
import tempfile
import threading

import gradio as gr

from serving import demo, looks
from serving.operations import Operations
from serving.settings import Settings
from serving.shelf import Shelf, fill, restock
from serving.sketches import SKETCHES
from tests.serving.factory import write_model
from tests.serving.pictures import file_of, ramp, stripes


def test_a_tab_appears_with_the_first_model_of_its_direction_and_goes_with_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = Settings(models=tmp_path / "models", device="cpu", threads=1)
    write_model(settings.models / "labels-only", directions=("to_label",))
    operations = Operations(fill(settings), settings)
    page = demo._Page(operations)
    built = {direction: page._offer(direction) for direction in ("to_label", "to_photo")}
    fields = ["tab", "model", "card", "examples", "again"]
    assert built["to_photo"].default is None
    assert page._renewed("to_photo", built["to_photo"], *fields) == gr.skip()
    shutil.rmtree(settings.models / "labels-only")
    write_model(settings.models / "photos-only", directions=("to_photo",))
    operations.shelf = restock(operations.shelf, settings).shelf
    found = page._renewed("to_photo", built["to_photo"], *fields)
    assert (found["tab"].visible, found["model"].value, found["again"].interactive) == (True, "photos-only", True)
    assert len(found["examples"]) == SKETCHES
    gone = page._renewed("to_label", built["to_label"], *fields[:4])
    assert (gone["tab"].visible, gone["model"].value, gone["card"], gone["examples"]) == (False, None, "", [])
    nothing, tabs = page._something()
    assert (nothing.visible, tabs.visible, tabs.selected) == (False, True, "to_photo")
    operations.shelf = Shelf({}, {}, {})
    nothing, tabs = page._something()
    assert (nothing.visible, tabs.visible) == (True, False)
    page.forget()


def test_answers_are_encoded_off_the_loop_that_answers_everybody_else(models, tmp_path, monkeypatch):
    def noting(encode):
        def noted(*given, **options):
            threads.append(threading.current_thread())
            return encode(*given, **options)

        return noted

    threads = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    encoders = ((demo, "encode_segmentation"), (demo, "encode_photos"), (looks, "encode_label"), (looks, "encode_photo"))
    for module, name in encoders:
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
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
