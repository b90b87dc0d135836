"""The page in a real Chromium: upload, press, see the result."""

import base64
import shutil
import urllib.request

import httpx
import numpy as np
import pytest

from serving.palette import colours_of
from tests.browser.conftest import ADMIN
from tests.serving.factory import CLASSES, write_model
from tests.serving.pictures import file_of, noise, pixels_of, ramp, stripes
from tests.serving.test_palette import DOMAIN
from tests.serving.test_translator import brightness_ids

pytestmark = pytest.mark.browser


def upload(page, field, file, name="street.png"):
    page.locator(f"{field} input[type=file]").set_input_files({"name": name, "mimeType": "image/png", "buffer": file})
    page.wait_for_selector(f"{field} img")


def shown(page, selector):
    """The file behind a picture on the page."""
    source = page.wait_for_selector(f"{selector} img").get_attribute("src")
    if source.startswith("data:"):
        return base64.b64decode(source.split(",", 1)[1])
    with urllib.request.urlopen(source) as response:
        return response.read()


def other_tab(page):
    page.get_by_role("tab", name="Label map to photo").click()
    page.wait_for_selector("#synthesize", state="visible")


def test_an_uploaded_photo_shows_its_label_map_its_overlay_and_its_legend(page):
    upload(page, "#photo", file_of(ramp()))
    page.click("#segment")
    assert np.array_equal(pixels_of(shown(page, "#label")), brightness_ids(ramp()))
    legend = page.wait_for_selector("#legend table").inner_text()
    assert [name in legend for name in ("dark", "middle", "bright", "void")] == [True, True, True, False]
    assert f"{100 * (brightness_ids(ramp()) == 0).mean():.1f} %" in legend
    assert page.locator("#overlay img").count() == 2
    swatches = page.eval_on_selector_all("#legend .swatch", "found => found.map(one => getComputedStyle(one).backgroundColor)")
    assert set(swatches) == {"rgb({}, {}, {})".format(*row["color"]) for row in CLASSES[:3]}


def test_the_slider_sets_the_opacity_of_the_colours(page):
    upload(page, "#photo", file_of(ramp()))
    page.click("#segment")
    page.wait_for_selector("#overlay img")
    page.locator("#opacity input[type=number]").fill("80")
    page.wait_for_function("document.querySelectorAll('#overlay img')[1].style.opacity === '0.8'")


def test_the_label_map_can_be_downloaded(page):
    upload(page, "#photo", file_of(noise()))
    page.click("#segment")
    page.wait_for_selector("#legend table")
    with page.expect_download() as coming:
        page.click("#download-label")
    downloaded = coming.value.path()
    assert np.array_equal(pixels_of(downloaded.read_bytes()), brightness_ids(noise()))


def test_an_example_that_is_clicked_is_translated(page):
    page.locator("#photo-examples button img").first.click()
    assert page.wait_for_selector("#legend table").inner_text()
    assert pixels_of(shown(page, "#label")).shape == (288, 432)


def test_a_label_map_becomes_a_photo_and_another_seed_another(page):
    other_tab(page)
    upload(page, "#label-input", file_of(stripes()), "label.png")
    page.fill("#seed input", "7")
    page.click("#synthesize")
    first = pixels_of(shown(page, "#made-photo"))
    assert first.shape == (30, 42, 3)
    page.wait_for_function("document.querySelector('#said').innerText.includes('Read as ids. Seed 7.')")
    page.click("#another-seed")
    page.wait_for_function("!document.querySelector('#said').innerText.includes('Seed 7.')")
    assert not np.array_equal(pixels_of(shown(page, "#made-photo")), first)


def test_the_photo_can_be_downloaded_and_is_the_one_that_is_shown(page):
    other_tab(page)
    upload(page, "#label-input", file_of(stripes()), "label.png")
    page.fill("#seed input", "7")
    page.click("#synthesize")
    page.wait_for_function("document.querySelector('#said').innerText.includes('Seed 7.')")
    with page.expect_download() as coming:
        page.click("#download-photo")
    assert coming.value.suggested_filename == "photo-seed-7.png"
    downloaded = coming.value.path().read_bytes()
    assert downloaded.startswith(b"\x89PNG")
    assert pixels_of(downloaded).shape == (30, 42, 3)
    assert np.array_equal(pixels_of(downloaded), pixels_of(shown(page, "#made-photo")))


def test_a_label_map_example_that_is_clicked_becomes_a_photo(page):
    other_tab(page)
    page.locator("#label-examples button img").nth(2).click()
    assert pixels_of(shown(page, "#made-photo")).shape == (288, 432, 3)


@pytest.mark.parametrize(
    ("file", "words"),
    [(file_of(noise())[:2000], "is broken or cut short"), (b"\x89PNG nonsense", "is not an image that can be read")],
    ids=["cut short", "no image"],
)
def test_an_unreadable_file_shows_the_sentence_of_the_api(page, file, words):
    page.locator("#photo input[type=file]").set_input_files({"name": "street.png", "mimeType": "image/png", "buffer": file})
    page.wait_for_selector("#photo img", state="attached")
    page.click("#segment")
    toast = page.wait_for_selector("[data-testid=toast-body]")
    assert words in toast.inner_text()


def test_colours_of_no_class_are_named_on_the_page(page):
    other_tab(page)
    stray = colours_of(stripes(), DOMAIN).copy()
    stray[0] = 1, 2, 3
    upload(page, "#label-input", file_of(stray))
    page.click("#synthesize")
    said = page.wait_for_selector("[data-testid=toast-body]").inner_text()
    assert "colours that belong to no class" in said
    assert "or tick “Take the nearest class for colours that belong to none”" in said
    assert page.get_by_label("Take the nearest class for colours that belong to none").is_visible()
    assert page.get_by_role("link", name="Classes and colours").filter(visible=True).get_attribute("href") == "/v1/models/tiny/legend"


def test_a_seed_outside_its_range_is_refused_in_the_pages_words(page):
    other_tab(page)
    upload(page, "#label-input", file_of(stripes()))
    page.fill("#seed input", "-5")
    page.click("#synthesize")
    said = page.wait_for_selector("[data-testid=toast-body]").inner_text()
    assert "Seed -5 lies outside 0 to 4294967295. Leave the seed empty for a random one." in said


def test_pressing_without_a_photo_says_what_to_do_and_not_error(page):
    page.click("#segment")
    said = page.wait_for_selector("[data-testid=toast-body]").inner_text()
    assert "Nothing to translate yet\nChoose a photo first: " in said
    assert "Error" not in said


def test_the_other_model_can_be_chosen(page):
    page.click("#model-to_label input")
    page.get_by_role("option", name="other").click()
    upload(page, "#photo", file_of(ramp()))
    page.click("#segment")
    assert pixels_of(shown(page, "#label")).shape == (45, 61)


def reloaded(page_server):
    httpx.post(f"{page_server.url}/v1/admin/reload", headers=ADMIN, timeout=60).raise_for_status()


@pytest.fixture
def fresh(page, page_server, folder):
    """A model that came after the page was built, and after a visitor had opened it."""
    write_model(folder / "fresh", description="Came later.", directions=("to_label",))
    reloaded(page_server)
    yield folder / "fresh"
    shutil.rmtree(folder / "fresh", ignore_errors=True)
    reloaded(page_server)


def choose(page, name):
    page.click("#model-to_label input")
    page.get_by_role("option", name=name).click()


def test_a_model_that_came_with_a_reload_can_be_chosen_by_who_opens_the_page_after_it(page, fresh):
    page.reload()
    page.wait_for_selector("#segment")
    choose(page, "fresh")
    page.wait_for_function("document.querySelector('#card-to_label').innerText.includes('Came later.')")
    upload(page, "#photo", file_of(ramp()))
    page.click("#segment")
    assert np.array_equal(pixels_of(shown(page, "#label")), brightness_ids(ramp()))


def test_a_model_that_was_removed_while_the_page_was_open_is_said_to_be_gone(page, page_server, fresh):
    page.reload()
    page.wait_for_selector("#segment")
    shutil.rmtree(fresh)
    reloaded(page_server)
    choose(page, "fresh")
    toast = page.wait_for_selector("[data-testid=toast-body]")
    assert "There is no model called 'fresh'. Models here: other, tiny." in toast.inner_text()
