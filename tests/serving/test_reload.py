"""Reloading: new and changed models are served without a restart, and one bad folder never affects the others."""

import asyncio
import gc
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import onnxruntime
import pytest

from serving.app import create_app
from serving.errors import ModelError
from serving.models.repository import EMPTY, reload_repository
from serving.settings import Settings
from tests.serving.conftest import OPERATOR
from tests.serving.factory import CLASSES, write_model
from tests.serving.pictures import file_of, ramp
from tests.serving.test_server import error_of

OTHER_COLOURS = [{**row, "color": [255 - value for value in row["color"]]} for row in CLASSES]
DOMAINS = {"photo": {"kind": "picture", "classes": None}, "label": {"kind": "classes", "classes": OTHER_COLOURS}}
PHOTO = file_of(ramp())
KINDS = ("added", "changed", "removed", "kept")
BAD_MANIFESTS = {
    "deep": b"[" * 200_000,
    "long-number": b'{"format": ' + b"9" * 5000 + b"}",
    "not-utf8": b'{"name": "\xff"}',
    "constant": b'{"format": NaN}',
    "other-schema": b'{"format": 2}',
}


@pytest.fixture
def folder(operated_folder):
    return operated_folder / "models"


@pytest.fixture
def url(operated):
    return operated.url


@pytest.fixture
def reload(url, folder):
    """Ask for a reload; at the end put the folder back to its models."""

    def ask():
        response = httpx.post(f"{url}/v1/admin/reload", headers={"Authorization": f"Bearer {OPERATOR}"}, timeout=120)
        assert response.status_code == 200, response.text
        return response.json()

    yield ask
    for path in folder.iterdir():
        if path.name != "blurring":
            shutil.rmtree(path)
    write_model(folder / "tiny")
    write_model(folder / "other")
    ask()


@pytest.fixture
def settings(tmp_path):
    return Settings(models=tmp_path, device="cpu", threads=1)


def export(folder, **changes):
    """Replace a model as `fewpair export` does."""
    built = write_model(folder.with_name(f".{folder.name}.exporting") / folder.name, **changes)
    former = folder.with_name(f".{folder.name}.former")
    if folder.exists():
        folder.rename(former)
    built.rename(folder)
    shutil.rmtree(former, ignore_errors=True)
    built.parent.rmdir()


def segment(url, model):
    return httpx.post(f"{url}/segment", files={"image": PHOTO}, data={"model": model}, timeout=60)


def names(url):
    return [model["name"] for model in httpx.get(f"{url}/v1/models").json()["models"]]


def test_without_an_admin_token_there_is_no_reload(http):
    assert error_of(http.post("/v1/admin/reload", headers={"Authorization": "Bearer x"}), 404)["code"] == "no_admin"


def test_a_reload_without_the_admin_token_is_refused(url):
    for header in (None, "", "Bearer", f"Bearer {OPERATOR}x", f"Basic {OPERATOR}", OPERATOR, "Bearer \xe4"):
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        response = httpx.post(f"{url}/v1/admin/reload", headers=headers)
        assert error_of(response, 401)["code"] == "no_admin_token"
        assert response.headers["www-authenticate"].startswith("Bearer")


def test_new_changed_and_removed_models_are_reported_and_served(url, folder, reload):
    write_model(folder / "fresh")
    assert names(url) == ["blurring", "other", "tiny"]
    found = reload()
    assert [found[what] for what in KINDS] == [["fresh"], [], [], ["blurring", "other", "tiny"]]
    assert names(url) == ["blurring", "fresh", "other", "tiny"]
    export(folder / "fresh", domains=DOMAINS)
    shutil.rmtree(folder / "other")
    found = reload()
    assert [found[what] for what in KINDS] == [[], ["fresh"], ["other"], ["blurring", "tiny"]]
    assert names(url) == ["blurring", "fresh", "tiny"]
    assert httpx.get(f"{url}/v1/models/fresh").json()["classes"] == OTHER_COLOURS
    assert error_of(segment(url, "other"), 404)["code"] == "unknown_model"


def test_bad_folders_are_listed_with_their_reasons_and_every_other_model_is_served(url, folder, reload):
    for name, manifest in BAD_MANIFESTS.items():
        (folder / name).mkdir()
        (folder / name / "manifest.json").write_bytes(manifest)
    write_model(folder / "half-copied")
    graph = (folder / "half-copied" / "to_label.onnx").read_bytes()
    (folder / "half-copied" / "to_label.onnx").write_bytes(graph[: len(graph) // 2])
    write_model(folder / "fresh")
    write_model(folder / ".building")
    found = reload()
    assert found["added"] == ["fresh"]
    failed = {entry["name"]: entry for entry in found["failed"]}
    assert failed.keys() == {*BAD_MANIFESTS, "half-copied"}
    assert "does not match its manifest" in failed["half-copied"]["reason"]
    assert {entry["former_answers"] for entry in failed.values()} == {False}
    assert {segment(url, name).status_code for name in ("tiny", "other", "fresh")} == {200}
    assert error_of(segment(url, "deep"), 404)["code"] == "broken_model"
    (folder / "half-copied" / "to_label.onnx").write_bytes(graph)
    assert reload()["added"] == ["half-copied"]


def test_a_model_whose_new_form_fails_is_served_in_its_former_one(url, folder, reload):
    before = segment(url, "other").content
    path = folder / "other" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["directions"]["to_label"]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    (failed,) = reload()["failed"]
    assert (failed["name"], failed["former_answers"]) == ("other", True)
    assert "expected 0000" in failed["reason"]
    assert segment(url, "other").content == before
    assert {entry["name"] for entry in httpx.get(f"{url}/v1/models").json()["broken"]} == {"other"}


def test_the_default_model_answers_even_where_its_folder_is_gone(url, folder, reload):
    shutil.rmtree(folder / "tiny")
    found = reload()
    assert found["removed"] == []
    assert "tiny is gone" in found["failed"][0]["reason"]
    assert found["defaults"] == {"to_label": "tiny", "to_photo": "tiny"}
    assert httpx.post(f"{url}/segment", files={"image": PHOTO}).headers["x-model"] == "tiny"


def test_reloads_at_once_follow_one_another(reload, folder):
    write_model(folder / "fresh")
    with ThreadPoolExecutor(4) as pool:
        found = [asked.result() for asked in [pool.submit(reload) for _ in range(4)]]
    assert sorted(one["added"] for one in found) == [[], [], [], ["fresh"]]


def test_requests_during_a_reload_are_answered_by_the_former_or_the_new_model_and_later_ones_by_the_new(
    url, folder, reload
):
    over, answers = threading.Event(), []

    def ask_on():
        while not over.is_set():
            answers.append(segment(url, "other"))

    former = segment(url, "other").content
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask_on) for _ in range(3)]
        for changes in ({"domains": DOMAINS}, {}, {"domains": DOMAINS}):
            export(folder / "other", **changes)
            assert reload()["changed"] == ["other"]
        over.set()
        for one in asking:
            one.result()
    new = segment(url, "other").content
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} <= {former, new}
    assert former != new


def test_an_unchanged_model_is_not_loaded_again(tmp_path, settings):
    write_model(tmp_path / "tiny")
    write_model(tmp_path / "other")
    before = reload_repository(EMPTY, settings)
    export(tmp_path / "other", description="The same graphs, described better.")
    after = reload_repository(before, settings)
    assert after.models["tiny"] is before.models["tiny"]
    assert after.models["other"] is not before.models["other"]
    assert (after.changes["kept"], after.changes["changed"]) == (["tiny"], ["other"])


def test_replaced_models_are_freed(tmp_path, settings):
    write_model(tmp_path / "tiny")
    app = create_app(settings.model_copy(update={"ui": False}))

    def sessions():
        return sum(type(one) is onnxruntime.InferenceSession for one in gc.get_objects())

    async def reload_often():
        async with app.router.lifespan_context(app):
            before = sessions()
            for number in range(5):
                export(tmp_path / "tiny", description=f"Version {number}.")
                assert (await app.state.reload()).changes["changed"] == ["tiny"]
            return before, sessions()

    before, after = asyncio.run(reload_often())
    assert before == after


def test_a_folder_that_an_export_takes_away_for_a_moment_is_not_taken_for_removed(tmp_path, settings):
    write_model(tmp_path / "tiny")
    write_model(tmp_path / "other")
    before = reload_repository(EMPTY, settings)
    (tmp_path / "other").rename(tmp_path / ".former")
    back = threading.Timer(0.05, lambda: (tmp_path / ".former").rename(tmp_path / "other"))
    back.start()
    after = reload_repository(before, settings)
    back.join()
    assert (after.changes["removed"], after.changes["kept"]) == ([], ["other", "tiny"])


def test_a_default_model_that_was_never_there_is_refused(tmp_path, settings):
    write_model(tmp_path / "other")
    chosen = settings.model_copy(update={"default_model": "tiny"})
    with pytest.raises(ModelError, match="default_model tiny cannot be the default: models here: other"):
        reload_repository(EMPTY, chosen)
    write_model(tmp_path / "tiny")
    assert reload_repository(EMPTY, chosen).defaults == {"to_label": "tiny", "to_photo": "tiny"}


def test_a_models_folder_that_cannot_be_read_is_refused(tmp_path, settings, monkeypatch):
    def no_access(path):  # as for another user; tests may run as root, who may read everything
        raise PermissionError(13, "Permission denied", path)

    write_model(tmp_path / "models" / "tiny")
    chosen = settings.model_copy(update={"models": tmp_path / "models"})
    before = reload_repository(EMPTY, chosen)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", no_access)
        with pytest.raises(ModelError, match="cannot be read"):
            reload_repository(before, chosen)
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(ModelError, match="cannot be read"):
        reload_repository(before, chosen)
