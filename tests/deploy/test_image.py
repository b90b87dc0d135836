"""The Dockerfile: linted, compared with the project's other files, and its server started as the image does."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import httpx
import pytest
from onnxruntime.capi.build_and_package_info import cuda_version

from deploy.rehearse import Stage, instructions
from tests.serving.factory import write_model
from tests.serving.process import ROOT, SECONDS, free_port

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
STEPS = instructions(DOCKERFILE.read_text())


@pytest.fixture(scope="module")
def image():
    """What the Dockerfile says of its last stage for the CPU."""
    stage = Stage(Path("/"))
    for word, rest in STEPS:
        if word == "FROM":
            stage = Stage(Path("/"))
        elif word not in ("RUN", "COPY"):
            stage.note(word, rest, device="cpu")
    return stage


def as_here(image, home, **variables):
    """The image's variables, with its folders' places on this machine."""
    places = {
        "/app": ROOT,
        "/models": home / "models",
        "/opt/fewpair/bin": Path(sys.executable).parent,
        "/tmp": home / "tmp",
    }
    moved = re.compile("|".join(f"{place}(?=[/:]|$)" for place in places))
    here = {name: moved.sub(lambda found: str(places[found[0]]), value) for name, value in image.environment.items()}
    return {**here, "TMPDIR": str(home / "tmp"), **variables}


def test_the_linter_finds_nothing_in_the_dockerfile():
    hadolint = Path(sys.executable).with_name("hadolint")
    linted = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_image_holds_the_shipped_models_and_what_is_copied_is_let_through_to_the_engine():
    copied = [source for word, rest in STEPS if word == "COPY" and "--from" not in rest for source in rest.split()[:-1]]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    let_through = {
        line[1:]
        for line in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert let_through == set(copied)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "force-include"
    ]
    shipped = {place for place in wheel if (ROOT / place / "manifest.json").exists()}
    assert shipped <= set(copied)


def test_the_image_is_built_with_the_uv_of_the_lock():
    (version,) = (rest.partition("=")[2] for word, rest in STEPS if word == "ARG" and rest.startswith("UV="))
    assert f"\nuv=={version} " in (ROOT / "requirements.lock").read_text()


def test_nothing_of_the_trainer_and_no_torch_enters_the_image():
    extras = re.findall(r"--extra (\w+)", " ".join(rest for word, rest in STEPS if word == "RUN"))
    assert set(extras) == {"serve", "cuda"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [
        *project["dependencies"],
        *(line for extra in set(extras) for line in project["optional-dependencies"][extra]),
    ]
    assert not [line for line in named if line.startswith("torch")]


def test_the_image_runs_as_nobody_in_particular(image):
    user, group = image.user.split(":")
    assert int(user) > 999
    assert int(group) > 999


def test_each_setting_of_the_image_is_one_of_the_server(image):
    ours = {name for name in image.environment if name.startswith("FEWPAIR_")}
    assert ours == {f"FEWPAIR_{name}" for name in ("MODELS", "HOST", "PORT", "DEVICE")}


def test_the_libraries_of_the_cuda_image_are_those_the_pinned_onnxruntime_was_built_for():
    lock = dict(re.findall(r"^([a-z0-9-]+)==([0-9.]+)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE))
    assert version("onnxruntime-gpu") == lock["onnxruntime-gpu"]
    extras = (re.match(r'([\w-]+)~=(\d+)\..*extra == "(?:cuda|cudnn)"', line) for line in requires("onnxruntime-gpu"))
    majors = {found[1]: found[2] for found in extras if found}
    assert "nvidia-cudnn-cu13" in majors
    assert {name: lock[name].partition(".")[0] for name in majors} == majors
    assert {lock[name].partition(".")[0] for name in ("nvidia-cuda-runtime", "nvidia-cublas")} == {
        cuda_version.partition(".")[0]
    }


def test_the_image_does_not_serve_everybody_by_itself(image, tmp_path):
    write_model(tmp_path / "models" / "tiny")
    (tmp_path / "tmp").mkdir()
    environment = as_here(image, tmp_path, FEWPAIR_PORT=str(free_port()))
    started = subprocess.run(
        [sys.executable, *image.entrypoint[1:]],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert started.returncode == 2
    assert "FEWPAIR_TOKENS" in started.stderr


@pytest.mark.slow
def test_started_as_the_image_starts_it_the_server_turns_healthy_and_writes_under_tmp_alone(image, tmp_path):
    write_model(tmp_path / "models" / "tiny")
    for folder in ("tmp", "elsewhere"):
        (tmp_path / folder).mkdir()
    before = {path for path in tmp_path.rglob("*") if tmp_path / "tmp" not in path.parents}
    environment = as_here(
        image, tmp_path, FEWPAIR_PORT=str(free_port()), FEWPAIR_TOKENS="only-for-tests", FEWPAIR_THREADS="1"
    )

    def healthy():
        return (
            subprocess.run(
                [sys.executable, *image.healthcheck[1:]], env=environment, capture_output=True, check=False
            ).returncode
            == 0
        )

    assert not healthy()
    log = tmp_path / "tmp" / "log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, *image.entrypoint[1:]],
            env=environment,
            cwd=tmp_path / "elsewhere",
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + SECONDS
        while not healthy():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        url = f"http://127.0.0.1:{environment['FEWPAIR_PORT']}"
        assert httpx.get(f"{url}/v1/models").status_code == 401
        listed = httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer only-for-tests"}).json()
        assert [model["name"] for model in listed["models"]] == ["tiny"]
    finally:
        server.terminate()
        assert server.wait(60) == 0
    assert {path for path in tmp_path.rglob("*") if tmp_path / "tmp" not in path.parents} == before
