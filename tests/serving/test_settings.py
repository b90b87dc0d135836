"""What an operator may say, and where the models are looked for."""

from dataclasses import fields
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.settings import Settings, default_models_folder
from tests.serving.process import ROOT


def test_settings_survive_the_way_to_a_child_process():
    chosen = Settings(
        *(Path("/m"), "cpu", "tiny", False, 2, 3, 4, 5, 6, 2048, 7, ("https://a", "https://b"), True, 8, 2000, 9, ("a", "b:80")),
        *(("one-token", "two-tokens"), "admin-token", "0.0.0.0", 80, True, ("example.org",), 10, 4096, "json"),
        *(Path("/jobs"), 11, 12, 2048, 4096, 13, 14),
    )
    assert all(getattr(chosen, field.name) != field.default for field in fields(Settings))
    assert Settings.from_environment(chosen.environment()) == chosen
    assert Settings.from_environment(Settings(Path("/m")).environment()) == Settings(Path("/m"))


@pytest.mark.parametrize("value", ["inf", "nan", "2.5", "0", "soon"])
def test_a_timeout_that_makes_no_sense_is_refused_by_its_name(value):
    with pytest.raises(ServingError, match=f"FEWPAIR_TIMEOUT={value} "):
        Settings.from_environment({"FEWPAIR_TIMEOUT": value})


def test_the_models_are_looked_for_here_first_and_then_beside_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_models_folder() == ROOT / "exported"
    (tmp_path / "exported").mkdir()
    assert default_models_folder() == Path("exported")
