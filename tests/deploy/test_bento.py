"""`bentoml build` without prompts, and the bento served from its folder, without the checkout."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.serving.factory import write_model
from tests.serving.process import ROOT, SECONDS, free_port

pytestmark = pytest.mark.slow
# Warnings about BentoML's own template: unpinned apt and pip packages, and shell for every base image at once.
TEMPLATE_HABITS = "DL3008,DL3009,DL3013,DL3042,DL3046,DL3066,SC3020"


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """An environment without this checkout in it, and where each call to the outside fails."""
    home = tmp_path_factory.mktemp("home")
    nobody = "http://127.0.0.1:9"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "GRADIO_TEMP_DIR": str(home / "gradio"),
        "BENTOML_DO_NOT_TRACK": "True",
        "FEWPAIR_THREADS": "1",
        "FEWPAIR_UI": "off",
        "OMP_NUM_THREADS": "1",
        "UV_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), nobody),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
    }


@pytest.fixture(scope="module")
def bento(clean, tmp_path_factory):
    """The bento of this server with a model of the tests."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "serving", source / "serving")
    shutil.copy(ROOT / "bentofile.yaml", source)
    write_model(source / "exported" / "tiny")
    shutil.copy(ROOT / "exported" / "manifest.schema.json", source / "exported")
    built = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "--output", "tag"],
        cwd=source,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    name, version = re.search(r"__tag__:(\w+):(\w+)", built.stdout).groups()
    return Path(clean["BENTOML_HOME"]) / "bentos" / name / version


@pytest.fixture(scope="module")
def served(bento, clean, tmp_path_factory):
    """The address of `bentoml serve BENTO`, started somewhere else."""
    port, elsewhere = free_port(), tmp_path_factory.mktemp("elsewhere")
    log = elsewhere / "log"
    command = [sys.executable, "-m", "bentoml", "serve", str(bento), "--host", "127.0.0.1", "--port", str(port)]
    with (
        log.open("w") as out,
        subprocess.Popen(command, cwd=elsewhere, env=clean, stdout=out, stderr=subprocess.STDOUT) as process,
    ):
        try:
            url, until = f"http://127.0.0.1:{port}", time.monotonic() + SECONDS
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                        break
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()


def test_a_bento_holds_the_server_and_the_models_and_nothing_of_the_trainer(bento):
    held = {
        str(path.relative_to(bento / "src"))
        for path in (bento / "src").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {
        "serving/service.py",
        "exported/tiny/manifest.json",
        "exported/tiny/to_label.onnx",
        "exported/manifest.schema.json",
    } <= held
    assert {name.partition("/")[0] for name in held} == {"serving", "exported", "bentofile.yaml"}


def test_the_dockerfile_that_bentoml_writes_passes_the_linter_but_for_the_habits_of_its_template(bento):
    ignored = [word for habit in TEMPLATE_HABITS.split(",") for word in ("--ignore", habit)]
    hadolint = Path(sys.executable).with_name("hadolint")
    linted = subprocess.run(
        [hadolint, *ignored, bento / "env" / "docker" / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_built_bento_answers_from_its_folder(bento, served):
    photo = io.BytesIO()
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(photo, "PNG")
    answer = httpx.post(
        f"{served}/segment", files={"image": photo.getvalue()}, data={"output": "ids"}, timeout=60, trust_env=False
    )
    assert answer.status_code == 200, answer.text
    assert np.unique(Image.open(io.BytesIO(answer.content))).tolist() == [2]
    listed = httpx.get(f"{served}/v1/models", trust_env=False).json()
    assert [model["name"] for model in listed["models"]] == ["tiny"]
    assert list((bento / "src" / "serving" / "__pycache__").glob("service.*.pyc")), (
        "the server was imported from somewhere else"
    )


def test_the_metric_that_kubernetes_scales_by_is_one_that_the_server_has(served):
    scaling = (ROOT / "deploy" / "kubernetes" / "cpu" / "scaling.yaml").read_text()
    metric = re.search(r"metric:\n +name: (\w+)", scaling)[1]
    assert re.search(rf"^{metric} \d", httpx.get(f"{served}/metrics", trust_env=False).text, flags=re.MULTILINE)
