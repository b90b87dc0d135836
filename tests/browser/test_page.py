"""The page in a real Chromium, with the shipped models: paint and see the photo, give a photo and see its map."""

import io
import json
import re
import subprocess
import time
from collections import Counter

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from tests.browser.conftest import PHONE
from tests.serving.pictures import file_of
from tests.serving.process import ROOT, running_server

pytestmark = pytest.mark.browser
SKY, BUILDING, ROAD, TREE, CAR, VOID = 0, 1, 3, 5, 8, 11
HEIGHT, WIDTH = 192, 256


def current(page, pane="paint"):
    page.wait_for_selector(f"#{pane} [data-state=current]")


def ids_of(page):
    """The map on the canvas, uint8[H,W]."""
    values = page.evaluate("Array.from(document.querySelector('#paint [data-state]').pane.canvas.map.ids)")
    return np.array(values, np.uint8).reshape(HEIGHT, WIDTH)


def pixels(file):
    return np.asarray(Image.open(io.BytesIO(file)))


def shown(page, selector):
    """The file behind a picture on the page."""
    values = page.evaluate(
        "async (selector) => { const file = await fetch(document.querySelector(selector).src);"
        " return Array.from(new Uint8Array(await file.arrayBuffer())) }",
        selector,
    )
    return bytes(values)


def at(page, x, y):
    """Where a point of the map lies in the window."""
    box = page.locator("#paint .sheet .map").bounding_box()
    return box["x"] + x * box["width"] / WIDTH, box["y"] + y * box["height"] / HEIGHT


def drag(page, *points):
    page.mouse.move(*at(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*at(page, *point), steps=3)
    page.mouse.up()
    current(page)


def tool(page, name, paint=None):
    page.click(f"#paint [data-tool={name}]")
    if paint is not None:
        page.click(f"#paint [data-id='{paint}']")


def blank(page, paint=SKY):
    """A canvas of one class: everything that is there is replaced by it."""
    for other in set(np.unique(ids_of(page))) - {paint, VOID}:
        page.select_option("#paint .from", str(other))
        page.select_option("#paint .to", str(paint))
        page.click("#paint [data-do=replace]")
    current(page)


def give(page, selector, file, name="street.png", kind="image/png"):
    page.locator(selector).set_input_files({"name": name, "mimeType": kind, "buffer": file})


def paint_tab(page):
    page.get_by_role("tab", name="Paint → photo").click()


def read_tab(page):
    page.get_by_role("tab", name="Photo → map").click()
    current(page, "read")


def test_the_first_view_is_a_painted_street_with_its_photo_and_says_what_taught_it(page):
    assert page.title() == "fewpair: paint a street, get a photo"
    assert "20 labelled photos" in page.inner_text("#head .card")
    assert len(np.unique(ids_of(page))) > 5
    assert pixels(shown(page, "#paint .answer .photo")).shape == (HEIGHT, WIDTH, 3)
    head = page.content()
    assert head.count('property="og:title"') == 1
    assert "Gradio" not in page.locator('meta[property^="og:"]').first.get_attribute("content")


def test_what_the_mouse_paints_is_exactly_what_the_api_is_given(page):
    paint_tab(page)
    before = ids_of(page)
    tool(page, "brush", CAR)
    with page.expect_request(lambda request: "/synthesize" in request.url) as asked:
        drag(page, (60.5, 100.5), (120.5, 140.5))
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    along = np.clip(((x - 60.5) * 60 + (y - 100.5) * 40) / (60**2 + 40**2), 0, 1)
    apart = np.hypot(x - 60.5 - 60 * along, y - 100.5 - 40 * along)
    after = ids_of(page)
    assert (after[apart < 3] == CAR).all()
    assert np.array_equal(after[apart > 5], before[apart > 5])
    with page.expect_request(lambda request: request.url.endswith("seed=1")) as asked:
        page.click("#paint [data-do=undo]")
    assert np.array_equal(pixels(asked.value.post_data_buffer), before)
    assert np.array_equal(ids_of(page), before)
    current(page)


def test_each_tool_paints_what_its_name_says(page):
    paint_tab(page)
    blank(page)
    tool(page, "line", ROAD)
    drag(page, (10.5, 50.5), (128.5, 20.5), (246.5, 50.5))  # straight, whatever way the mouse took
    line = ids_of(page) == ROAD
    assert line[50, 10:247].all()
    assert not line[:40].any()
    tool(page, "polygon", TREE)
    for corner in ((50, 80), (150, 80), (150, 160), (50, 160)):
        page.mouse.click(*at(page, *corner))
    page.keyboard.press("Enter")
    current(page)
    square = ids_of(page) == TREE
    assert np.array_equal(np.argwhere(square)[[0, -1]], [[80, 50], [159, 149]])
    assert square.sum() == 80 * 100
    tool(page, "fill", BUILDING)
    page.mouse.click(*at(page, 100, 100))
    current(page)
    assert ((ids_of(page) == BUILDING) == square).all()
    tool(page, "pick")
    page.mouse.click(*at(page, 128.5, 50.5))
    assert page.get_attribute("#paint [data-id='3']", "aria-pressed") == "true"
    assert page.get_attribute("#paint [data-tool=brush]", "aria-pressed") == "true"
    tool(page, "erase")
    page.mouse.click(*at(page, 100, 100))
    current(page)
    assert ids_of(page)[100, 100] == VOID
    for _ in range(2):
        page.keyboard.press("Control+z")
    assert ((ids_of(page) == TREE) == square).all()
    page.keyboard.press("Control+y")
    assert ((ids_of(page) == BUILDING) == square).all()
    current(page)


def test_the_keyboard_chooses_classes_tools_and_sizes_and_paints(page):
    paint_tab(page)
    blank(page)
    page.focus("#paint .viewport")
    for key in ("9", "b", "[", "[", "ArrowRight", " "):
        page.keyboard.press(key)
    current(page)
    rows, columns = np.nonzero(ids_of(page) == CAR)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == (HEIGHT / 2, WIDTH / 2 + 2)
    few = len(rows)
    for key in ("]", "]", "]", " "):
        page.keyboard.press(key)
    current(page)
    assert (ids_of(page) == CAR).sum() > 2 * few
    page.keyboard.press("f")
    assert page.get_attribute("#paint [data-tool=fill]", "aria-pressed") == "true"


def test_zoomed_in_the_brush_paints_where_the_pointer_is(page):
    paint_tab(page)
    blank(page)
    for _ in range(3):
        page.click("#paint [data-do=closer]")
    tool(page, "brush", CAR)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/synthesize" in request.url else None)
    page.mouse.click(*at(page, 128.5, 96.5))
    current(page)
    assert len([url for url in asked if "seed=1" in url]) == 1
    assert np.argwhere(ids_of(page) == CAR).mean(axis=0) == pytest.approx([96, 128], abs=0.5)
    tool(page, "move")
    before = at(page, 128, 96)
    page.mouse.move(*before)
    page.mouse.down()
    page.mouse.move(before[0] - 40, before[1] - 30, steps=3)
    page.mouse.up()
    assert at(page, 128, 96) == pytest.approx((before[0] - 40, before[1] - 30), abs=1)
    wide = page.locator("#paint .sheet").bounding_box()["width"]
    page.click("#paint [data-do=farther]")
    assert page.locator("#paint .sheet").bounding_box()["width"] == pytest.approx(wide / 1.5, abs=1)
    page.click("#paint [data-do=whole]")


def test_of_quick_clicks_the_last_one_is_answered(page, page_server):
    paint_tab(page)
    for index in (1, 2, 3):
        page.locator("#paint .scene").nth(index).click()
    page.wait_for_function("document.querySelector('#paint .answer .photo').src")
    current(page)
    scene = pixels(httpx.get(f"{page_server.url}/ui/page/examples/street-4.png").content)
    rows, columns = ((np.arange(size) + 0.5) * 2 for size in (HEIGHT, WIDTH))
    wanted = scene[rows.astype(int)[:, None], columns.astype(int)]
    assert np.array_equal(ids_of(page), wanted)
    ids = file_of(Image.fromarray(wanted))
    answer = httpx.post(
        f"{page_server.url}/v1/synthesize?seed=1", content=ids, headers={"Content-Type": "image/png"}, timeout=60
    )
    assert np.array_equal(pixels(shown(page, "#paint .answer .photo")), pixels(answer.content))
    marked = page.locator("#paint .scene[aria-pressed=true]")
    assert marked.get_by_role("img").get_attribute("src") == "page/examples/street-4.jpg"
    give(page, "#paint .map-file", ids)
    marked.wait_for(state="detached")


def test_a_request_that_came_too_soon_is_repeated_when_the_server_says(page):
    paint_tab(page)
    current(page)
    asked = []
    pattern = re.compile("/v1/synthesize.*seed=1$")  # not the other variations

    def answer(route):
        asked.append(time.monotonic())
        if len(asked) == 1:
            body = {"error": {"code": "too_many_requests", "message": "too many requests.", "hint": ""}}
            route.fulfill(status=429, headers={"Retry-After": "1"}, json=body)
        else:
            route.continue_()

    page.route(pattern, answer)
    with page.expect_response(lambda response: response.url.endswith("seed=1") and response.status == 200):
        page.locator("#paint .scene").nth(1).click()
    current(page)
    assert asked[1] - asked[0] >= 1
    assert page.is_hidden("#paint .problem")
    page.unroute(pattern)


def test_a_photo_is_gone_while_the_one_of_another_map_is_on_its_way_and_after_a_refusal(page):
    paint_tab(page)
    body = {"error": {"code": "busy", "message": "the server is busy.", "hint": "Try again."}}
    page.route("**/v1/synthesize*", lambda route: route.fulfill(status=503, json=body))
    page.locator("#paint .scene").first.click()
    page.wait_for_selector("#paint .problem")
    assert page.inner_text("#paint .problem") == "The server is busy. Try again."
    assert page.get_attribute("#paint .answer .photo", "src") is None
    assert page.is_disabled("#paint .save-photo")
    page.unroute("**/v1/synthesize*")
    page.locator("#paint .scene").first.click()
    current(page)
    assert page.is_hidden("#paint .problem")


def test_other_photos_of_the_map_are_offered_and_one_can_be_kept(page):
    paint_tab(page)
    page.locator("#paint .scene").first.click()
    page.wait_for_selector("#paint .variation")
    first = shown(page, "#paint .answer .photo")
    variations = page.locator("#paint .variation")
    assert variations.count() == 4
    variations.nth(2).click()
    current(page)
    assert "seed=3" in page.url
    assert shown(page, "#paint .answer .photo") != first
    page.wait_for_selector("#paint .variation")
    variations.first.click()
    current(page)
    page.wait_for_selector("#paint .variation")
    page.click("#paint .more-photos")
    page.wait_for_selector("#paint .variation[value='5'][aria-pressed=true]")
    assert "seed=5" in page.url


def test_a_model_of_other_classes_opens_with_its_own_example(open_page):
    with open_page() as page:
        page.select_option(".model", "painter-with-style")
        page.wait_for_selector("#paint .scene img[alt='two halves']")
        page.wait_for_function(
            "document.querySelector('#paint [data-state]').pane.canvas.map.ids.every((id) => [0, 2].includes(id))"
        )
        current(page)
        assert page.is_hidden("#paint .read-back")
        page.get_by_role("tab", name="Photo → map").click()
        page.wait_for_selector("#read .legend small")
        assert page.is_hidden("#read .edit")
        page.get_by_role("tab", name="Paint → photo").click()
        page.select_option(".model", "camvid-painter")
        page.wait_for_function("new Set(document.querySelector('#paint [data-state]').pane.canvas.map.ids).size > 5")
        page.click("#paint .scene img[alt='cars between trees']")
        page.wait_for_selector("#paint [data-do=undo]:enabled")
        assert page.is_visible("#paint .read-back")


def test_a_photo_gives_its_style_to_the_painted_map_until_it_is_dropped(open_page):
    with open_page("#to_photo=painter-with-style") as page:
        seeded = shown(page, "#paint .answer .photo")
        with page.expect_request(lambda request: request.url.endswith("style=1%2C0%2C0")):
            give(page, "#paint .style-file", file_of(Image.new("RGB", (8, 8), (255, 0, 0))), "red.png")
        page.wait_for_selector("#paint .drop-style >> text=Style of red")
        current(page)
        styled = shown(page, "#paint .answer .photo")
        assert styled != seeded
        page.click("#paint .drop-style")
        current(page)
        assert shown(page, "#paint .answer .photo") == seeded
        assert page.is_hidden("#paint .drop-style")


def test_a_map_of_ids_is_shown_in_class_colours_and_what_is_no_picture_is_refused_at_once(page):
    paint_tab(page)
    ids = np.full((HEIGHT, WIDTH), ROAD, np.uint8)
    ids[:90] = TREE
    give(page, "#paint .map-file", file_of(Image.fromarray(ids)))
    page.wait_for_function(
        "document.querySelector('#paint [data-state]').pane.canvas.map.ids.every((id) => [3, 5].includes(id))"
    )
    assert np.array_equal(ids_of(page), ids)
    colour = page.evaluate(
        "Array.from(document.querySelector('#paint .map').getContext('2d').getImageData(5, 5, 1, 1).data)"
    )
    assert colour == [128, 128, 0, 255]
    current(page)
    coloured = Image.new("RGB", (WIDTH, HEIGHT), (128, 64, 128))
    give(page, "#paint .map-file", file_of(coloured, "JPEG"), "road.jpg", "image/jpeg")
    page.wait_for_selector("#paint .note >> text=nearest colour")
    page.wait_for_function("document.querySelector('#paint [data-state]').pane.canvas.map.ids.every((id) => id === 3)")
    give(page, "#paint .map-file", b"hello", "words.txt", "text/plain")
    page.wait_for_selector("#paint .problem")
    assert "not an image" in page.inner_text("#paint .problem")
    page.locator("#paint .scene").first.click()
    page.wait_for_selector("#paint .problem", state="hidden")


def test_the_photo_read_back_says_how_much_of_the_map_it_kept(page):
    paint_tab(page)
    current(page)
    page.click("#paint .read-back")
    page.wait_for_selector("#paint .back")
    assert "of 100 pixels are what you painted" in page.inner_text("#paint .back figcaption")
    page.locator("#paint .scene").nth(1).click()
    page.wait_for_selector("#paint .back", state="hidden")


def test_two_models_stand_side_by_side_on_one_map(page):
    paint_tab(page)
    current(page)
    page.select_option("#paint .compare", "camvid-semipaired-compact")
    current(page)
    page.wait_for_selector("#paint .second .photo[src]")
    assert page.locator("#paint .answer figcaption").all_inner_texts() == [
        "camvid-painter",
        "camvid-semipaired-compact",
    ]
    assert shown(page, "#paint .second .photo") != shown(page, "#paint .answer .photo")
    page.select_option("#paint .compare", "")
    page.wait_for_selector("#paint .second", state="hidden")
    current(page)


def test_the_command_that_the_page_shows_gives_what_the_page_shows(page, tmp_path):
    paint_tab(page)
    current(page)
    page.click("#paint .code summary")
    with page.expect_download() as coming:
        page.click("#paint .save-map")
    coming.value.save_as(tmp_path / "map.png")
    assert np.array_equal(pixels((tmp_path / "map.png").read_bytes()), ids_of(page))
    command = page.locator("#paint .snippets pre").first.inner_text()
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "photo.jpg").read_bytes() == shown(page, "#paint .answer .photo")
    with page.expect_download() as coming:
        page.click("#paint .save-photo")
    assert coming.value.path().read_bytes() == (tmp_path / "photo.jpg").read_bytes()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for place, button in enumerate(page.locator("#paint .copy").all()):
        button.click()
        text = page.locator("#paint .snippets pre").nth(place).inner_text()
        page.wait_for_function("async (text) => (await navigator.clipboard.readText()) === text", arg=text)


def test_an_example_is_read_at_once_and_its_legend_agrees_with_the_api(page, page_server):
    read_tab(page)
    page.locator("#read .scene").nth(1).click()
    page.wait_for_selector("#read .legend small")
    photo = httpx.get(f"{page_server.url}/ui/page/examples/street-2.jpg").content
    report = httpx.post(
        f"{page_server.url}/v1/segment?output=json", content=photo, headers={"Content-Type": "image/jpeg"}, timeout=60
    ).json()
    wanted = {row["name"]: row for row in report["classes"] if row["share"] >= 0.001}
    rows = page.evaluate(
        "Array.from(document.querySelectorAll('#read .legend button'),"
        " (row) => ['span', 'b', 'small'].map((part) => row.querySelector(part).textContent))"
    )
    assert [name for name, _, _ in rows] == sorted(wanted, key=lambda name: -wanted[name]["share"])
    for name, share, sure in rows:
        assert float(share.removesuffix(" %")) == pytest.approx(100 * wanted[name]["share"], abs=0.51)
        assert float(sure.removesuffix(" % sure")) == pytest.approx(100 * wanted[name]["mean_confidence"], abs=0.6)
    assert "The map is there" in page.inner_text("#read [role=status]")


def test_the_class_under_the_pointer_is_named_and_a_legend_row_isolates_its_class(page):
    read_tab(page)
    page.hover("#read .view .map", position={"x": 300, "y": 480})
    assert page.inner_text("#read .tip").startswith("road")
    page.locator("#read .legend button").first.click()
    alphas = page.evaluate(
        "(() => { const map = document.querySelector('#read .view .map'); const {data} = map.getContext('2d')"
        ".getImageData(0, 0, map.width, map.height); return [...new Set(data.filter((_, i) => i % 4 === 3))] })()"
    )
    assert sorted(alphas) == [0, 255]
    page.locator("#read .legend button").first.click()
    page.click("#read .sure")
    assert page.get_attribute("#read .view .map", "aria-label") == "How sure the model is of each pixel"
    page.click("#read .sure")
    page.locator("#read .wipe").fill("50")
    page.locator("#read .opacity").fill("80")
    style = page.evaluate(
        "(({clipPath, opacity}) => [clipPath, opacity])(getComputedStyle(document.querySelector('#read .view .map')))"
    )
    assert style == ["inset(0px 0px 0px 50%)", "0.8"]


def test_every_download_is_the_apis_answer_for_this_photo(page):
    read_tab(page)
    saved = {}
    for output in ("colours", "ids", "overlay", "json", "polygons"):
        with page.expect_download() as coming:
            page.click(f"#read [data-output={output}]")
        assert coming.value.suggested_filename.startswith(f"a-street-with-parked-cars-{output}.")
        saved[output] = coming.value.path().read_bytes()
    ids = pixels(saved["ids"])
    assert np.array_equal(pixels(saved["colours"]), ids)
    assert pixels(saved["overlay"]).shape == (*ids.shape, 3)
    counts = Counter(ids.ravel().tolist())
    assert {row["id"]: row["pixels"] for row in json.loads(saved["json"])["classes"] if row["pixels"]} == counts
    assert json.loads(saved["polygons"])["annotations"]


@pytest.mark.parametrize("way", ["camera", "paste", "drop"])
def test_a_photo_that_is_taken_pasted_or_dropped_is_read_by_both_models_to_compare(page, way):
    read_tab_without_waiting(page)
    page.select_option("#read .compare", "camvid-hybrid-compact")
    file = file_of(Image.new("RGB", (320, 200 + len(way)), "grey"))
    if way == "camera":
        give(page, "#read .camera-file", file)
    else:
        page.evaluate(
            "([way, bytes]) => { const files = new DataTransfer(); files.items.add(new File([new Uint8Array(bytes)],"
            " 'grey.png', { type: 'image/png' })); document.body.dispatchEvent(way === 'drop'"
            " ? new DragEvent(way, { dataTransfer: files, bubbles: true })"
            " : new ClipboardEvent(way, { clipboardData: files, bubbles: true })) }",
            [way, list(file)],
        )
    for view in (0, 1):
        page.wait_for_function(
            f"document.querySelectorAll('#read .map-view')[{view}].querySelector('canvas').height === {200 + len(way)}"
        )
    current(page, "read")
    page.select_option("#read .compare", "")


def test_no_old_map_stands_beside_a_new_photo(page):
    read_tab(page)
    waiting = []
    page.route("**/v1/segment*", lambda route: waiting.append(route))
    give(page, "#read .photo-file", file_of(Image.new("RGB", (300, 200), "grey")), "grey.png")
    page.wait_for_selector("#read [data-state=waiting]")
    page.wait_for_function("document.querySelector('#read .view .photo').naturalWidth === 300")
    assert page.is_hidden("#read .view .map")
    assert page.locator("#read .legend button").count() == 0
    waiting[0].fulfill(status=503, json={"error": {"code": "busy", "message": "the server is busy.", "hint": ""}})
    page.wait_for_selector("#read .problem")
    assert page.is_hidden("#read .found")
    page.unroute("**/v1/segment*")


def test_a_file_that_is_no_picture_takes_the_old_result_away_and_says_so(page):
    read_tab_without_waiting(page)
    give(page, "#read .photo-file", b"hello", "words.txt", "text/plain")
    page.wait_for_selector("#read .problem")
    assert "words.txt is not a picture that your browser can show" in page.inner_text("#read .problem")
    assert page.is_hidden("#read .found")


def test_a_large_photo_from_a_phone_is_shrunk_in_the_browser_and_turned_upright(page):
    read_tab_without_waiting(page)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    file = file_of(Image.new("RGB", (6000, 4500), "teal"), "JPEG", exif=exif)
    asked = []
    page.on("request", lambda request: asked.append(request) if "output=ids" in request.url else None)
    give(page, "#read .photo-file", file, "IMG_1.jpg", "image/jpeg")
    current(page, "read")
    assert Image.open(io.BytesIO(asked[-1].post_data_buffer)).size == (1536, 2048)
    box = page.locator("#read .view").first.bounding_box()
    assert box["height"] <= 0.73 * 900


def read_tab_without_waiting(page):
    page.get_by_role("tab", name="Photo → map").click()


def test_a_map_that_was_read_can_be_edited_over_its_photo(page):
    read_tab_without_waiting(page)
    page.locator("#read .scene").nth(2).click()
    page.wait_for_selector("#read .legend small")
    page.click("#read .edit")
    page.wait_for_selector("#paint .under[src^='blob:']")
    current(page)
    values = page.evaluate(
        "(() => { const {ids, width} = document.querySelector('#read [data-state]').pane.views[0].map;"
        " return [width, Array.from(ids)] })()"
    )
    read = np.array(values[1], np.uint8).reshape(-1, values[0])
    assert np.array_equal(ids_of(page), read[1::2, 1::2])


def test_a_portrait_photo_and_its_map_are_cut_alike_and_an_edit_can_be_undone(page):
    paint_tab(page)
    tool(page, "fill", CAR)
    drag(page, (5, 5))
    painted = ids_of(page)
    read_tab(page)
    portrait = np.zeros((900, 506, 3), np.uint8)
    portrait[450:] = 255
    give(page, "#read .photo-file", file_of(portrait), name="portrait.png")
    page.wait_for_function("document.querySelector('#read .view .photo').naturalWidth === 506")
    current(page, "read")
    page.click("#read .edit")
    page.wait_for_selector("#paint .under:visible")
    current(page)
    boxes = [page.locator(f"#paint .sheet {each}").bounding_box() for each in (".under", ".map")]
    assert boxes[0] == boxes[1]
    page.wait_for_function("getComputedStyle(document.querySelector('#paint .under')).objectFit === 'cover'")
    page.click("#paint [data-do=undo]")
    assert np.array_equal(ids_of(page), painted)


def test_a_painting_is_there_again_after_a_look_at_other_models(page):
    paint_tab(page)
    tool(page, "fill", CAR)
    drag(page, (5, 5))
    painted = ids_of(page)
    page.select_option("#head .model", "facades-painter")
    page.wait_for_function("document.querySelector('#paint [data-state]').pane.canvas.map.width === 256")
    page.wait_for_function("document.querySelector('#paint [data-state]').pane.canvas.map.height === 256")
    read_tab(page)
    page.select_option("#head .model", "camvid-hybrid-compact")
    current(page, "read")
    paint_tab(page)
    assert page.input_value("#head .model") == "facades-painter", "a reader is chosen for photos alone"
    page.select_option("#head .model", "camvid-painter")
    page.wait_for_function("document.querySelector('#paint [data-state]').pane.canvas.map.height === 192")
    assert np.array_equal(ids_of(page), painted)


def test_a_server_that_is_away_is_named_where_the_eye_is_and_the_photo_stays(page):
    read_tab(page)
    page.route("**/v1/segment*", lambda route: route.abort())
    page.select_option("#head .model", "camvid-hybrid-compact")
    problem = page.locator("#read .problem")
    problem.wait_for()
    box, size = problem.bounding_box(), page.viewport_size
    assert 0 < box["y"] < size["height"] - box["height"] + 1
    page.unroute("**/v1/segment*")
    page.select_option("#head .model", "camvid-segmenter")
    current(page, "read")
    assert problem.is_hidden()


def test_escape_ends_a_stroke_and_undo_takes_back_a_corner_of_a_polygon(page):
    paint_tab(page)
    before = ids_of(page)
    tool(page, "brush", CAR)
    page.mouse.move(*at(page, 20, 20))
    page.mouse.down()
    page.mouse.move(*at(page, 60, 40))
    page.keyboard.press("Escape")
    page.mouse.up()
    assert np.array_equal(ids_of(page), before)
    tool(page, "polygon")
    for corner in ((20, 20), (60, 20), (60, 60)):
        page.mouse.click(*at(page, *corner))
    page.keyboard.press("Control+z")
    assert page.evaluate("document.querySelector('#paint polyline').getAttribute('points').split(' ').length") == 3
    page.keyboard.press("Escape")


def test_a_map_that_is_dropped_on_the_canvas_is_painted_on(page):
    paint_tab(page)
    ids = np.full((HEIGHT, WIDTH), ROAD, np.uint8)
    page.evaluate(
        """bytes => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], 'map.png', {type: 'image/png'}));
        document.querySelector('#paint .viewport').dispatchEvent(
            new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})); }""",
        list(file_of(ids)),
    )
    page.wait_for_function(
        f"document.querySelector('#paint [data-state]').pane.canvas.map.ids.every(id => id === {ROAD})"
    )


def test_a_painted_map_and_the_chosen_models_survive_a_reload_and_back(open_page):
    with open_page("#to_photo=camvid-hybrid-compact") as page:
        assert page.input_value("#head .model") == "camvid-hybrid-compact"
        page.select_option("#head .model", "camvid-painter")
        current(page)
        blank(page, TREE)
        read_tab(page)
        page.go_back()
        page.wait_for_selector("#paint .viewport", state="visible")
        page.reload()
        page.wait_for_selector("#paint [data-state=current]")
        assert (ids_of(page) == TREE).all()
        assert page.input_value("#head .model") == "camvid-painter"


def test_a_link_that_is_opened_in_the_tab_of_the_page_shows_what_it_names(open_page):
    with open_page("#to_photo=camvid-painter&seed=3") as page:
        current(page)
        page.goto(page.url.split("#")[0] + "#to_photo=camvid-hybrid-compact&tab=paint")
        page.wait_for_function("document.querySelector('#head .model')?.value === 'camvid-hybrid-compact'")
        assert "seed" not in page.url
        page.go_back()
        page.wait_for_function("document.querySelector('#head .model')?.value === 'camvid-painter'")
        assert "seed=3" in page.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_no_serious_accessibility_violation(open_page, scheme):
    with open_page(color_scheme=scheme) as page:
        for open_tab in (paint_tab, read_tab):
            open_tab(page)
            found = Axe().run(page).response["violations"]
            assert [
                (each["id"], [node["target"] for node in each["nodes"]])
                for each in found
                if each["impact"] in ("serious", "critical")
            ] == []


def test_on_a_phone_nothing_scrolls_sideways_and_a_finger_paints(open_page):
    with open_page(**PHONE) as page:
        wide = "document.documentElement.scrollWidth"
        assert page.evaluate(wide) == 390
        page.locator("#paint [data-id='8']").tap()
        page.locator("#paint .viewport").scroll_into_view_if_needed()
        before = (ids_of(page) == CAR).sum()
        page.touchscreen.tap(*at(page, 30, 150))
        current(page)
        assert (ids_of(page) == CAR).sum() > before
        read_tab(page)
        page.wait_for_selector("#read .legend small")
        assert page.evaluate(wide) == 390


def test_below_a_path_prefix_the_page_asks_for_nothing_outside_it(open_page, tmp_path):
    prefix = "/street"
    with (
        running_server(ROOT / "exported", tmp_path, FEWPAIR_ROOT_PATH=prefix) as server,
        open_page("#seed=3", url=server.url + prefix) as page,  # opened while the server still prepares the page
    ):
        assert "seed=3" in page.url
        before = shown(page, "#paint .answer .photo")
        tool(page, "brush", CAR)
        drag(page, (100, 100), (140, 110))
        assert shown(page, "#paint .answer .photo") != before
        read_tab(page)
        assert page.url.startswith(f"{server.url}{prefix}/ui/")
