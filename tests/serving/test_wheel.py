"""The wheel: what a server needs beside its code is in it, and its serving half works without the other."""

import subprocess
import sys
import tomllib
import zipfile

import pytest

from tests.serving.process import ROOT, environment

PROGRAM = """
import sys
from pathlib import Path
from serving.models.repository import EMPTY, reload_repository
from serving.settings import Settings
repository = reload_repository(EMPTY, Settings(device="cpu", threads=1))
crossed = [name for name in sys.modules if name.split(".")[0] == "trainer"]
found = Path(sys.modules["serving"].__file__).parent
print(found, *repository.models, *repository.broken.values(), *crossed, sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        yield archive


def shipped():
    """The models that are shipped, as pyproject.toml names them."""
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "force-include"
    ]
    return [ROOT / source for source in included if (ROOT / source).is_dir()]


@pytest.mark.slow
def test_the_wheel_holds_the_contract_and_the_shipped_models(wheel):
    models = shipped()
    assert models
    files = {path.relative_to(ROOT) for model in models for path in model.rglob("*") if path.is_file()}
    assert all((model / "manifest.json").relative_to(ROOT) in files for model in models)
    expected = {"exported/manifest.schema.json", "exported/README.md", *(path.as_posix() for path in files)}
    names = wheel.namelist()
    assert {name.removeprefix("serving/") for name in names if name.startswith("serving/exported/")} == expected
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"serving", "trainer"}
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "serving").glob("*.py")} <= set(names)
    assert {"trainer/experiment/tables/s0-t2.toml", "trainer/export/card.md.jinja"} <= set(names)
    assert not [name for name in names if name.endswith("ruff.toml")]


@pytest.mark.slow
def test_the_wheel_holds_the_class_tables_of_the_published_datasets(wheel):
    tables = {path.relative_to(ROOT).as_posix() for path in (ROOT / "trainer" / "data" / "classes").glob("*.csv")}
    assert {"cityscapes.csv", "ade20k.csv", "coco-stuff.csv"} <= {table.rpartition("/")[2] for table in tables}
    assert tables <= set(wheel.namelist())


@pytest.mark.slow
def test_the_serving_half_of_the_wheel_answers_without_the_trainer(wheel, tmp_path):
    wheel.extractall(tmp_path / "half", [name for name in wheel.namelist() if name.startswith("serving/")])
    (tmp_path / "elsewhere").mkdir()
    alone = environment(tmp_path, PYTHONPATH=str(tmp_path / "half"))
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path / "elsewhere",
        env=alone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split("\n")[:-1] == [str(tmp_path / "half" / "serving"), *(model.name for model in shipped())]
