"""Studio mode in a real Chromium: pick, label by mouse, train, and see the map of a photo that was never labelled."""

import io
import re
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from tests.browser.conftest import DESKTOP
from tests.serving.pictures import file_of
from tests.serving.process import running_studio
from trainer.data.synthetic import scenes

pytestmark = pytest.mark.browser
HEIGHT, WIDTH = 96, 128
SKY, ROAD, VOID = 0, 1, 255
VOID_CLASS = {"id": VOID, "name": "void", "color": [0, 0, 0], "ignore": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "photos").mkdir()
    for index in range(8):
        photo, _ = scenes.draw(index, height=HEIGHT, width=WIDTH, split="train")
        Image.fromarray(photo).save(folder / "photos" / f"scene-{index}.png")
    return folder


@pytest.fixture(scope="module")
def studio(folder, tmp_path_factory):
    with running_studio(folder, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def page(browser, studio):
    page = browser.new_context(**DESKTOP).new_page()
    page.set_default_timeout(300_000)
    yield page
    page.close()


def accessible(page):
    found = Axe().run(page).response["violations"]
    return not [each["id"] for each in found if each["impact"] in ("serious", "critical")]


def open_photo(page, studio, name):
    page.goto(f"{studio.url}/ui/#tab=label&photo={name}")
    page.wait_for_selector("#label [data-state=current]")


def drag(page, *points):
    box = page.locator("#label .sheet .map").bounding_box()
    places = [(box["x"] + x * box["width"] / WIDTH, box["y"] + y * box["height"] / HEIGHT) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()


@pytest.mark.timeout(900)  # four processes that import torch start in it
def test_from_a_folder_of_photos_to_the_map_of_an_unseen_one(page, studio, folder):
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{studio.url}/ui/")

    page.fill("#pick .count", "4")
    page.click("#pick [type=submit]")
    page.wait_for_selector("#pick .thumb >> nth=3")
    assert "stands for" in page.inner_text("#pick .thumb >> nth=0")
    assert page.locator("#pick .dots b:not(:empty)").count() == 4
    assert accessible(page)
    page.click("#pick .thumb >> nth=0")

    page.wait_for_selector("#label [data-state=current]")
    page.click("#label .table summary")
    for row, name in enumerate(("sky", "road")):  # the second is typed while the first is being saved
        page.locator("#label .row [type=text]").nth(row).fill(name)
        page.locator("#label .row [type=text]").nth(row).press("Tab")
    for name in ("sky", "road"):
        page.wait_for_selector(f"#label .classes >> text={name}")
    assert (folder / "classes.csv").read_text().splitlines()[1:] == [
        "0,sky,96,104,120,0",
        "1,road,230,90,60,0",
        "255,void,0,0,0,1",
    ]
    assert accessible(page)
    page.click("#label .table summary")
    for photo in range(4):
        page.locator("#label .viewport").scroll_into_view_if_needed()
        page.click("#label [data-tool=polygon]")
        page.click(f"#label .classes [data-id='{ROAD}']")
        for corner in ((0.5, 64), (127.5, 64), (127.5, 95.5), (0.5, 95.5)):
            drag(page, corner)
        page.keyboard.press("Enter")
        page.click("#label [data-tool=fill]")
        page.click(f"#label .classes [data-id='{SKY}']")
        drag(page, (60, 5))
        page.wait_for_selector(f"#label .done >> text={photo + 1} of 4")
        page.wait_for_selector("#label .saved >> text=Saved.")
        if photo < 3:
            page.click("#label .next")
            page.wait_for_function("document.querySelector('#label .saved').textContent === ''")
    labels = sorted((folder / "labels").iterdir())
    assert len(labels) == 4
    for label in labels:
        ids = np.asarray(Image.open(label))
        assert ids.shape == (HEIGHT, WIDTH)
        assert (ids[64:] == ROAD).all()
        assert (ids[:64] == SKY).all()

    page.get_by_role("tab", name="Train").click()
    page.evaluate("document.querySelector('#train .steps').options[0].value = '60'")  # of 320, for the sake of time
    page.click("#train [type=submit]")
    page.wait_for_selector("#train .training-status >> text=Step")
    page.wait_for_selector("#train .rounds td", timeout=600_000)
    assert "of 100 pixels right" in page.inner_text("#train .verdict")
    for picture in (".grid img", ".rounds img"):  # the samples, and the worst photo
        page.locator(f"#train {picture}").evaluate("image => image.decode()")
    caption = page.inner_text("#train .curve figcaption")
    assert re.match(r"The loss up to step 60 of 60: \d\.\d{3}, at most \d\.\d{3}", caption)

    assert accessible(page)
    page.click("#train .more-picks")
    page.wait_for_selector("#pick [type=submit]", state="visible")
    page.get_by_role("tab", name="Train").click()
    page.click("#train .try")
    page.wait_for_selector("#read [data-state=current]")
    unseen = next(
        path for path in sorted((folder / "photos").iterdir()) if not (folder / "labels" / path.name).exists()
    )
    page.set_input_files("#read .photo-file >> nth=0", unseen)
    page.wait_for_function("document.querySelector('#read .legend').children.length === 2")
    ids = page.evaluate("Array.from(document.querySelector('#read .pane').pane.views[0].map.ids)")
    ids = np.array(ids).reshape(HEIGHT, WIDTH)
    assert (ids[:20] == SKY).mean() > 0.8
    assert (ids[-20:] == ROAD).mean() > 0.8
    assert errors == []


def test_a_draft_that_is_answered_late_is_not_saved_under_another_photo(page, studio, folder):
    ids = np.full((HEIGHT, WIDTH), SKY, np.uint8)
    classes = [
        {"id": SKY, "name": "sky", "color": [96, 104, 120]},
        {"id": ROAD, "name": "road", "color": [230, 90, 60]},
    ]
    with httpx.Client(base_url=f"{studio.url}/studio") as http:
        http.put("/classes", json=[*classes, VOID_CLASS]).raise_for_status()
        for name in ("scene-0", "scene-1"):
            http.put(f"/labels/{name}", content=file_of(ids)).raise_for_status()
    model = {"name": "slow", "directions": ["to_label"], "classes": classes, "size": None, "confidence": False}
    page.route("**/v1/models", lambda route: route.fulfill(json={"models": [model], "defaults": {"to_label": "slow"}}))
    seen = {"pixel_accuracy": 0.9, "seen_in_training": 3}
    card = {"training": {"pairs": 2, "terms": ""}, "metrics": {"val": seen}, "description": ""}
    page.route("**/v1/models/slow", lambda route: route.fulfill(json=card))
    drafts = []
    page.route("**/v1/segment*", lambda route: drafts.append(route))
    open_photo(page, studio, "scene-0")
    page.click("#label .draft")
    while len(drafts) < 1:  # the route's handler runs after the request was sent
        page.wait_for_timeout(20)
    page.click("#label .thumb[data-name=scene-1]")
    page.wait_for_selector("#label .thumb[data-name=scene-1][aria-pressed=true]")
    with page.expect_response("**/v1/segment*"):
        drafts[0].fulfill(body=file_of(np.full_like(ids, ROAD)), content_type="image/png")
    page.wait_for_timeout(500)
    assert page.is_disabled("#label [data-do=undo]")
    page.click("#label .draft")
    while len(drafts) < 2:
        page.wait_for_timeout(20)
    with page.expect_response("**/studio/labels/scene-1"):
        drafts[1].fulfill(body=file_of(np.full_like(ids, ROAD)), content_type="image/png")
    assert "did not learn from" not in page.text_content("#head .right")
    for name, paint in (("scene-0", SKY), ("scene-1", ROAD)):
        assert (np.asarray(Image.open(folder / "labels" / f"{name}.png")) == paint).all()


def test_a_map_that_could_not_be_saved_keeps_the_canvas_until_it_is(page, studio, folder):
    open_photo(page, studio, "scene-1")
    page.route("**/studio/labels/scene-1", lambda route: route.abort())
    page.click("#label [data-tool=fill]")
    page.click(f"#label .classes [data-id='{SKY}']")
    drag(page, (60, 5))
    page.wait_for_selector("#label .saved >> text=Not saved.")
    page.click("#label .thumb[data-name=scene-0]")
    page.wait_for_selector("#label .problem >> text=The server does not answer.")
    assert page.get_attribute("#label .thumb[aria-pressed=true]", "data-name") == "scene-1"
    page.unroute("**/studio/labels/scene-1")
    page.click("#label .thumb[data-name=scene-0]")
    page.wait_for_selector("#label .thumb[data-name=scene-0][aria-pressed=true]")
    assert (np.asarray(Image.open(folder / "labels" / "scene-1.png")) == SKY).all()


def test_a_stroke_while_the_next_photo_loads_is_saved_and_both_can_be_painted_on(page, studio, folder):
    open_photo(page, studio, "scene-0")
    held = {"GET": [], "PUT": []}
    page.route("**/studio/photos/scene-1?side=1024", lambda route: held["GET"].append(route))
    page.route("**/studio/labels/scene-0", lambda route: held["PUT"].append(route))
    page.click("#label .thumb[data-name=scene-1]")
    page.click("#label [data-tool=fill]")
    page.click(f"#label .classes [data-id='{ROAD}']")
    drag(page, (60, 5))
    while not (held["GET"] and held["PUT"]):
        page.wait_for_timeout(20)
    held["GET"][0].continue_()
    page.wait_for_selector("#label .thumb[data-name=scene-1][aria-pressed=true]")
    held["PUT"][0].continue_()
    page.wait_for_selector("#label .saved >> text=Saved.")
    with page.expect_response("**/studio/labels/scene-1") as saved:
        drag(page, (60, 5))
    assert saved.value.status == 204
    for name in ("scene-0", "scene-1"):
        assert (np.asarray(Image.open(folder / "labels" / f"{name}.png")) == ROAD).all()


def test_a_photo_that_loads_slowly_is_opened_although_the_project_is_polled_meanwhile(page, studio):
    def running(route):
        state = route.fetch().json()
        route.fulfill(json=state | {"work": state["work"] | {"running": "train"}})

    def slow(route):
        page.wait_for_timeout(2500)
        route.continue_()

    page.route("**/studio/project", running)
    page.route("**/studio/photos/scene-1?side=1024", slow)
    page.goto(f"{studio.url}/ui/#tab=label&photo=scene-1")
    page.wait_for_selector("#label .thumb[data-name=scene-1][aria-pressed=true]", timeout=20_000)


def test_more_than_nine_classes_can_be_added_and_painted(page, studio, folder):
    open_photo(page, studio, "scene-0")
    page.click("#label .table summary")
    for _ in range(page.locator("#label .row").count(), 12):
        page.click("#label .add")
    page.wait_for_selector("#label .row >> nth=11")
    *rows, void = (folder / "classes.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(12))
    assert len({row.split(",", 2)[2] for row in [*rows, void]}) == 13
    page.click("#label .table summary")
    page.click("#label [data-tool=fill]")
    page.click("#label .classes [data-id='11']")
    drag(page, (60, 5))
    page.wait_for_selector("#label .saved >> text=Saved.")
    assert 11 in np.asarray(Image.open(folder / "labels" / "scene-0.png"))


def test_superpixels_are_painted_whole_and_a_photo_can_be_kept_for_measuring_and_a_class_removed(page, studio, folder):
    open_photo(page, studio, "scene-0")
    areas = []
    for grain, few in (("1500", False), ("150", True)):
        page.select_option("#label .grain", grain)
        segments = "new Set(document.querySelector('#label [data-state]').pane.canvas.segments ?? []).size"
        page.wait_for_function(f"{segments} && ({segments} < 300) === {str(few).lower()}")
        page.click("#label [data-tool=superpixel]")
        page.click("#label .classes [data-id='10']")
        with page.expect_response("**/studio/labels/scene-0"):
            drag(page, (60, 5))
        areas.append(int((np.asarray(Image.open(folder / "labels" / "scene-0.png")) == 10).sum()))
    assert 1 < areas[0] < areas[1] / 3 < HEIGHT * WIDTH / 50
    page.check("#label .keep")
    page.wait_for_selector("#label .thumb[data-name=scene-0] >> text=for measuring")
    assert any(path.stem == "scene-0" for path in (folder / "val").rglob("*"))
    page.uncheck("#label .keep")
    page.wait_for_selector("#label .thumb[data-name=scene-0]:not(:has-text('for measuring'))")
    page.click("#label .table summary")
    with page.expect_response("**/studio/classes"):
        page.locator("#label .row button").nth(9).click()
    assert "class 9" not in (folder / "classes.csv").read_text()


def test_a_training_that_was_stopped_goes_on_at_the_click_of_continue(page, studio, folder):
    resumed = []

    def describe(route):
        run = {"name": "1", "step": 20, "steps": 60, "size": [96, 128], "seconds_left": 30.0, "exported": False}
        run |= {"recipe": "own", "loss": [[10, 2.0], [20, 1.0]], "score": [], "samples": [], "evaluation": None}
        work = {"kind": "train", "command": "train", "running": bool(resumed), "error": None, "log": []}
        route.fulfill(json=route.fetch().json() | {"runs": [run], "work": work})

    def resume(route):
        resumed.append(route.request.method)
        route.fulfill(json=None)

    page.route("**/studio/project", describe)
    page.route("**/studio/resume", resume)
    page.goto(f"{studio.url}/ui/#tab=train")
    page.click("#train .resume")
    page.wait_for_selector("#train .training-status >> text=Step 20 of 60 of own at 96x128, 30 s left")
    assert resumed == ["POST"]
    assert page.is_visible("#train .stop")
    assert page.is_hidden("#train .resume")


def test_only_the_page_itself_reaches_the_project(studio, folder):
    url = f"{studio.url}/studio/project"
    with httpx.Client() as http:
        assert http.get(url).json()["folder"] == str(folder)
        assert http.get(url, headers={"Origin": studio.url}).status_code == 200
        for headers in (
            {"Host": "evil.example"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
        ):
            assert http.get(url, headers=headers).status_code in (400, 403)
            assert http.post(f"{studio.url}/studio/train", json={"steps": 8}, headers=headers).status_code in (400, 403)
        for name in ("../classes.csv", "..%2fclasses", "%2e%2e/photos/scene-0", "/etc/hostname"):
            for address in (f"{studio.url}/studio/photos/{name}?side=64", f"{studio.url}/studio/labels/{name}?side=64"):
                assert http.get(address).status_code == 404
        png = file_of(np.zeros((4, 4), np.uint8))
        assert http.put(f"{studio.url}/studio/labels/..%2f..%2fx", content=png).status_code == 404
        assert not (folder.parent / "x.png").exists()


def test_label_maps_are_saved_at_the_size_of_their_photos_and_move_with_them(studio, folder):
    label = folder / "labels" / "scene-7.png"
    with httpx.Client(base_url=f"{studio.url}/studio") as http:
        half = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)
        half[10:20, 10:20] = ROAD
        http.put("/labels/scene-7", content=file_of(half)).raise_for_status()
        whole = np.asarray(Image.open(label))
        assert np.array_equal(whole, half.repeat(2, axis=0).repeat(2, axis=1))
        small = http.get("/labels/scene-7", params={"side": WIDTH // 2}).content
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(small))), half)
        version = http.get("/labels/scene-7", params={"side": 64}).headers["ETag"]
        changed = {
            "/labels/scene-7": {"content": file_of(half)},
            "/classes": {"json": http.get("/project").json()["classes"]},
        }
        for path, body in changed.items():
            headers = {"If-Match": version if path != "/classes" else http.get("/project").json()["table"]}
            assert http.put(path, **body, headers=headers).status_code in (200, 204)
            refused = http.put(path, **body, headers=headers)  # as another tab would, which has not read it since
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "changed_meanwhile")
        version = http.get("/labels/scene-7", params={"side": 64}).headers["ETag"]
        with ThreadPoolExecutor(4) as tabs:
            sent = {"content": file_of(half), "headers": {"If-Match": version}}
            answers = list(tabs.map(lambda _: http.put("/labels/scene-7", **sent).status_code, range(4)))
        assert sorted(answers) == [204, 409, 409, 409]
        without_road = [{"id": SKY, "name": "sky", "color": [0, 0, 0]}]
        refused = http.put("/classes", json=without_road)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "class_in_use")

        taken = folder / "val" / "photos" / "scene-7.jpg"
        taken.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(taken)
        refused = http.put("/kept/scene-7", json={"kept": True})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "name_taken")
        taken.unlink()
        assert http.get("/photos/scene-7", params={"side": 64}).headers["Cache-Control"] == "no-cache"
        http.put("/kept/scene-7", json={"kept": True}).raise_for_status()
        assert np.array_equal(np.asarray(Image.open(folder / "val" / "labels" / "scene-7.png")), whole)
        assert {"name": "scene-7", "labelled": 1.0, "kept": True} in http.get("/project").json()["photos"]
        http.put("/kept/scene-7", json={"kept": False}).raise_for_status()
        assert (folder / "photos" / "scene-7.png").exists()

        http.put("/labels/scene-7", content=file_of(np.full((4, 4), VOID, np.uint8))).raise_for_status()
        assert not label.exists()


def test_a_studio_that_is_stopped_leaves_a_training_that_can_be_continued(studio, folder):
    with httpx.Client(base_url=f"{studio.url}/studio", timeout=60) as http:
        ids = np.full((HEIGHT, WIDTH), SKY, np.uint8)
        ids[64:] = ROAD
        http.put("/labels/scene-0", content=file_of(ids)).raise_for_status()
        http.post("/train", json={"steps": 5000}).raise_for_status()
        while not (runs := http.get("/project").json()["runs"]) or not 0 < runs[-1]["step"] < 5000:
            time.sleep(0.5)
    assert studio.stop() == 0
    assert (folder / "runs" / runs[-1]["name"] / "last.ckpt").exists()
