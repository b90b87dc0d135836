"""A reload: what is new or changed in the models folder is served without a restart, by every worker, and nothing half-written is."""

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from serving.asked import SegmentOptions
from serving.batch import Picture
from serving.errors import ModelError, Refusal
from serving.inside import Inside
from serving.reload import Reloader
from serving.settings import Settings
from serving.shelf import Shelf, fill, restock
from serving.workers import Board
from tests.serving.factory import CLASSES, write_model
from tests.serving.pictures import file_of, ramp
from tests.serving.process import running_server
from tests.serving.test_ends import workers_of
from tests.serving.test_server import error_of

TOKEN = "the-operators-own"
OTHER_COLOURS = [{**row, "color": [255 - value for value in row["color"]]} for row in CLASSES]
DOMAINS = {"photo": {"kind": "picture", "classes": None}, "label": {"kind": "classes", "classes": OTHER_COLOURS}}
PHOTO = file_of(ramp())
MAX_PIXELS = 30_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelf")
    write_model(folder / "tiny")
    write_model(folder / "other")
    return folder


@pytest.fixture(scope="module")
def pair(folder, tmp_path_factory):
    """Two workers, which are asked on a connection of its own each time, so that either may answer."""
    options = ("--no-ui", "--workers", "2", "--default-model", "tiny")
    limits = {"FEWPAIR_MAX_PIXELS": str(MAX_PIXELS)}
    with running_server(
        folder, tmp_path_factory.mktemp("server"), *options, FEWPAIR_ADMIN_TOKEN=TOKEN, FEWPAIR_QUEUE="100", **limits
    ) as running:
        yield running


@pytest.fixture(scope="module")
def workers(pair):
    return pair.url


@pytest.fixture
def reload(workers, folder):
    """Asks for a reload; puts the folder back to its two models in the end."""

    def ask():
        response = httpx.post(f"{workers}/v1/admin/reload", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120)
        assert response.status_code == 200, response.text
        assert response.json()["workers"] == {"reloaded": 2, "behind": []}
        return response.json()

    yield ask
    for path in folder.iterdir():
        shutil.rmtree(path)
    write_model(folder / "tiny")
    write_model(folder / "other")
    ask()


def export(folder, **changes):
    """Put a new model in the place of an earlier one as `fewpair export` does."""
    built = write_model(folder.with_name(f".{folder.name}.exporting") / folder.name, **changes)
    former = folder.with_name(f".{folder.name}.former")
    if folder.exists():
        folder.rename(former)
    built.rename(folder)
    shutil.rmtree(former, ignore_errors=True)
    built.parent.rmdir()


def names_of_both(workers):
    """What GET /v1/models names, asked often enough that both workers have answered."""
    told = [httpx.get(f"{workers}/v1/models").json() for _ in range(12)]
    assert [one for one in told if one != told[0]] == []
    return [model["name"] for model in told[0]["models"]]


def test_without_an_admin_token_there_is_no_reload(http):
    assert error_of(http.post("/v1/admin/reload", headers={"Authorization": "Bearer x"}), 404)["code"] == "no_admin"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xe4"])
def test_whoever_does_not_carry_the_admin_token_is_refused(workers, header):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    response = httpx.post(f"{workers}/v1/admin/reload", headers=headers)
    assert error_of(response, 401)["code"] == "no_admin_token"
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_new_changed_and_removed_models_are_told_and_every_worker_follows(workers, folder, reload):
    write_model(folder / "fresh")
    assert names_of_both(workers) == ["other", "tiny"]
    found = reload()
    assert (found["added"], found["changed"], found["removed"], found["kept"]) == (["fresh"], [], [], ["other", "tiny"])
    assert names_of_both(workers) == ["fresh", "other", "tiny"]
    export(folder / "fresh", domains=DOMAINS)
    shutil.rmtree(folder / "other")
    found = reload()
    assert (found["added"], found["changed"], found["removed"], found["kept"]) == ([], ["fresh"], ["other"], ["tiny"])
    assert names_of_both(workers) == ["fresh", "tiny"]
    assert httpx.get(f"{workers}/v1/models/fresh").json()["classes"] == OTHER_COLOURS
    assert error_of(httpx.post(f"{workers}/segment", files={"image": PHOTO}, data={"model": "other"}), 404)["code"] == "unknown_model"


def test_a_half_copied_folder_is_listed_with_its_reason_until_it_is_whole(workers, folder, reload):
    write_model(folder / "copied")
    graph = (folder / "copied" / "to_label.onnx").read_bytes()
    (folder / "copied" / "to_label.onnx").write_bytes(graph[: len(graph) // 2])
    write_model(folder / ".building")
    found = reload()
    assert (found["added"], [failed["name"] for failed in found["failed"]]) == ([], ["copied"])
    assert "does not match its manifest" in found["failed"][0]["reason"]
    assert found["failed"][0]["former_answers"] is False
    assert names_of_both(workers) == ["other", "tiny"]
    assert "does not match" in httpx.get(f"{workers}/v1/models").json()["broken"][0]["reason"]
    (folder / "copied" / "to_label.onnx").write_bytes(graph)
    assert reload()["added"] == ["copied"]


def test_a_model_whose_new_form_fails_goes_on_in_its_former_one(workers, folder, reload):
    before = httpx.post(f"{workers}/segment", files={"image": PHOTO}, data={"model": "other"}).content
    path = folder / "other" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["directions"]["to_label"]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    (failed,) = reload()["failed"]
    assert (failed["name"], failed["former_answers"]) == ("other", True)
    assert "expected 0000" in failed["reason"]
    assert httpx.post(f"{workers}/segment", files={"image": PHOTO}, data={"model": "other"}).content == before
    assert {entry["name"] for entry in httpx.get(f"{workers}/v1/models").json()["broken"]} == {"other"}


def test_a_model_that_runs_and_does_not_answer_a_first_request_is_not_served(workers, folder, reload):
    larger = {"rule": "exact", "height": 200, "width": 200, "filter": "bicubic"}  # than the pictures this server takes
    write_model(folder / "fresh", resize=larger)
    export(folder / "other", resize=larger)
    found = reload()
    assert (found["added"], found["changed"], found["kept"]) == ([], [], ["tiny"])
    assert [(failed["name"], failed["former_answers"]) for failed in found["failed"]] == [("fresh", False), ("other", True)]
    assert "fresh does not answer a first request (to_label): 200x200 pixels is over the limit" in found["failed"][0]["reason"]
    assert names_of_both(workers) == ["other", "tiny"]
    assert httpx.post(f"{workers}/segment", files={"image": PHOTO}, data={"model": "other"}).status_code == 200


def test_the_default_model_answers_even_where_its_folder_is_gone(workers, folder, reload):
    shutil.rmtree(folder / "tiny")
    found = reload()
    assert found["removed"] == []
    assert "is gone; the default model goes on answering" in found["failed"][0]["reason"]
    assert found["defaults"] == {"to_label": "tiny", "to_photo": "tiny"}
    assert httpx.post(f"{workers}/segment", files={"image": PHOTO}).headers["x-model"] == "tiny"


def test_reloads_at_once_follow_one_another(reload, folder):
    write_model(folder / "fresh")
    with ThreadPoolExecutor(4) as pool:
        found = [asked.result() for asked in [pool.submit(reload) for _ in range(4)]]
    assert sorted(one["added"] for one in found) == [[], [], [], ["fresh"]]


def test_requests_during_a_reload_are_answered_by_the_former_or_the_new_model_and_after_it_by_the_new(workers, folder, reload):
    over, answers = threading.Event(), []

    def segment():
        return httpx.post(f"{workers}/segment", files={"image": PHOTO}, data={"model": "other"}, timeout=60)

    def hammer():
        while not over.is_set():
            answers.append(segment())

    former = segment().content
    with ThreadPoolExecutor(3) as pool:
        hammering = [pool.submit(hammer) for _ in range(3)]
        for changes in ({"domains": DOMAINS}, {}, {"domains": DOMAINS}):
            export(folder / "other", **changes)
            assert reload()["changed"] == ["other"]
        over.set()
        for one in hammering:
            one.result()
    new = {segment().content for _ in range(12)}
    assert len(new) == 1
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} <= {former, *new}
    assert former not in new


@pytest.mark.slow
def test_a_worker_that_is_killed_after_a_reload_comes_back_with_the_reloaded_models_and_follows_the_next(pair, workers, folder, reload):
    write_model(folder / "fresh")
    shutil.rmtree(folder / "other")
    assert reload()["added"] == ["fresh"]
    killed, survivor = workers_of(pair.process.pid)
    os.kill(killed, signal.SIGKILL)
    until = time.monotonic() + 60
    while len(workers_of(pair.process.pid)) < 2 or killed in workers_of(pair.process.pid):
        assert time.monotonic() < until, "it did not come back"
        time.sleep(0.1)
    os.kill(survivor, signal.SIGSTOP)  # so that the one that came back answers
    try:
        told = httpx.get(f"{workers}/v1/models", timeout=60).json()
        answer = httpx.post(f"{workers}/segment", files={"image": PHOTO}, data={"model": "fresh"}, timeout=60)
    finally:
        os.kill(survivor, signal.SIGCONT)
    assert [model["name"] for model in told["models"]] == ["fresh", "tiny"]
    assert (answer.status_code, answer.headers["x-model"]) == (200, "fresh")
    write_model(folder / "other")
    assert reload()["added"] == ["other"]


def on_the_cpu(folder, **more):
    return Settings.from_environment({"FEWPAIR_MODELS": str(folder), "FEWPAIR_DEVICE": "cpu", "FEWPAIR_THREADS": "1", **more})


def test_a_request_in_flight_finishes_on_the_model_it_began_with(tmp_path):
    write_model(tmp_path / "tiny")
    settings, inside, begun, reloaded = on_the_cpu(tmp_path), Inside(), threading.Event(), threading.Event()
    inside.stock(fill(settings), settings)

    def slowly():
        begun.set()
        assert reloaded.wait(30)
        return PHOTO

    async def both():
        asked = asyncio.create_task(inside.need().segment([Picture("a", slowly)], SegmentOptions(output="json")))
        assert await asyncio.to_thread(begun.wait, 30)
        export(tmp_path / "tiny", domains=DOMAINS)
        found = restock(inside.need().shelf, settings)
        inside.stock(found.shelf, settings)
        reloaded.set()
        later = await inside.need().segment([Picture("a", lambda: PHOTO)], SegmentOptions(output="json"))
        return found.changed, [json.loads(answer.body)["classes"][0]["color"] for answer in (await asked, later)]

    changed, colours = asyncio.run(both())
    assert changed == ("tiny",)
    assert colours == [CLASSES[2]["color"], OTHER_COLOURS[2]["color"]]  # the class that covers most comes first


def test_an_unchanged_model_is_not_loaded_again(tmp_path):
    write_model(tmp_path / "tiny")
    write_model(tmp_path / "other")
    settings = on_the_cpu(tmp_path)
    before = fill(settings)
    export(tmp_path / "other", description="The same graphs, described better.")
    after = restock(before, settings)
    assert after.shelf.models["tiny"] is before.models["tiny"]
    assert after.shelf.models["other"] is not before.models["other"]
    assert (after.kept, after.changed) == (("tiny",), ("other",))


def test_a_folder_that_an_export_takes_away_for_a_moment_is_not_taken_for_removed(tmp_path):
    write_model(tmp_path / "tiny")
    write_model(tmp_path / "other")
    settings = on_the_cpu(tmp_path)
    before = fill(settings)
    (tmp_path / "other").rename(tmp_path / ".former")
    back = threading.Timer(0.05, lambda: (tmp_path / ".former").rename(tmp_path / "other"))
    back.start()
    after = restock(before, settings)
    back.join()
    assert (after.removed, after.kept) == ((), ("other", "tiny"))


def test_a_server_that_was_not_ready_is_after_a_reload_and_one_without_models_is_not(tmp_path):
    settings, inside = on_the_cpu(tmp_path, FEWPAIR_DEFAULT_MODEL="tiny"), Inside()
    inside.reloader = Reloader(
        lambda: Shelf({}, {}, {}) if inside.operations is None else inside.operations.shelf,
        lambda former: restock(former, settings),
        lambda shelf: inside.stock(shelf, settings),
        board=None,
    )
    write_model(tmp_path / "other")
    with pytest.raises(Refusal, match="FEWPAIR_DEFAULT_MODEL=tiny cannot be the default"):
        asyncio.run(inside.reloader.reload())
    assert inside.trouble is not None
    write_model(tmp_path / "tiny")
    assert asyncio.run(inside.reloader.reload())["added"] == ["other", "tiny"]
    assert inside.trouble is None
    assert inside.need().shelf.defaults["to_label"] == "tiny"
    inside.stock(Shelf({}, {}, {}), settings)
    assert inside.trouble == "the models folder is empty"


def test_a_models_folder_that_cannot_be_read_leaves_the_former_models(tmp_path):
    write_model(tmp_path / "models" / "tiny")
    settings, inside = on_the_cpu(tmp_path / "models"), Inside()
    inside.stock(fill(settings), settings)
    reloader = Reloader(
        lambda: inside.need().shelf, lambda former: restock(former, settings), lambda shelf: inside.stock(shelf, settings), board=None
    )
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(Refusal, match="cannot be read") as refused:
        asyncio.run(reloader.reload())
    assert refused.value.status == 409
    assert list(inside.need().shelf.models) == ["tiny"]


def test_nobody_waits_for_a_worker_that_is_dead_and_a_slow_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("serving.reload._PATIENCE", 0.2)
    board = Board(tmp_path)
    (tmp_path / "1.here").touch()  # nobody holds its lock
    (tmp_path / "1.json").write_text("{}")
    shelf = Shelf({}, {}, {})
    reloader = Reloader(lambda: shelf, lambda former: restock(former, on_the_cpu(tmp_path / "models")), lambda shelf: None, board=board)
    write_model(tmp_path / "models" / "tiny")

    async def ask():
        async with reloader.following():
            return await reloader.reload()

    began = time.monotonic()
    assert asyncio.run(ask())["workers"] == {"reloaded": 1, "behind": []}
    assert time.monotonic() - began < 10
    assert not (tmp_path / "1.json").exists()
    import fcntl

    with (tmp_path / "2.here").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        told = asyncio.run(reloader.reload())["workers"]
    assert told["reloaded"] == 1
    assert [entry["worker"] for entry in told["behind"]] == [2]
    assert "not answered in time" in told["behind"][0]["reason"]


def test_a_reload_asks_a_kept_default_model_too_and_says_why_it_does_not_answer(tmp_path):
    write_model(tmp_path / "one")
    settings = Settings(models=tmp_path, device="cpu", threads=1)
    shelf, proven = fill(settings), []
    write_model(tmp_path / "two")
    restock(shelf, settings, prove=lambda model, _: proven.append(model.name))
    assert proven == ["two", "one"], "what is new, and who answers where nobody is named"

    def refuse(model, _):
        raise ModelError(f"{model.name} does not answer a first request")

    with pytest.raises(ModelError, match="one does not answer"):
        restock(shelf, settings, prove=refuse)
