"""What an operator may say, and where the models are looked for."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from serving.configuration import Said, child_environment, configure, strangers
from serving.errors import ServingError
from serving.settings import VARIABLES, Settings, default_models_folder
from serving.tokens import token_matches
from tests.serving.process import ROOT


def test_settings_survive_the_way_to_a_child_process():
    chosen = Settings(
        *(
            Path("/m"),
            "cpu",
            "tiny",
            False,
            2,
            3,
            4,
            7,
            20,
            True,
            5,
            5001,
            6,
            2048,
            7,
            ("https://a", "https://b"),
            True,
            8,
            2000,
            9,
            ("a", "b:80"),
        ),
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


def test_models_that_a_folder_called_exported_hides_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = ", ".join(sorted(path.parent.name for path in (ROOT / "exported").glob("*/manifest.json")))
    assert list(configure({}, {}).hidden_models()) == []
    (tmp_path / "exported").mkdir()
    (said,) = configure({}, {}).hidden_models()
    assert f"hides the models that came with fewpair ({shipped}); --models {ROOT / 'exported'} serves these" in said
    assert list(configure({"models": Said("exported", "--models")}, {}).hidden_models()) == []


def test_at_the_start_what_decides_and_what_was_changed_is_told_and_all_the_rest_in_one_line(tmp_path):
    found = configured(
        tmp_path, "queue = 7\ntimeout = 60", {"FEWPAIR_TOKENS": "a-secret-of-mine", "FEWPAIR_MODELS": "/my models"}, port="80"
    )
    assert [line.split()[0] for line in found.decisive()] == ["models", "device", "workers", "queue", "tokens"]
    assert f"  queue    7  (queue in {tmp_path / 'server.toml'})" in found.decisive()
    assert "  device   auto  (default)" in found.decisive()
    told = dict(word.split("=", 1) for word in shlex.split(found.in_one_line()))
    assert told.keys() == VARIABLES.keys()
    assert (told["models"], told["port"], told["tokens"]) == ("/my models", "80", "1 hidden")
    assert found.spelled("port") == "--port 80"


def configured(tmp_path, text, environment=None, **flags):
    (tmp_path / "server.toml").write_text(text)
    typed = {name: Said(value, f"--{name}") for name, value in flags.items()}
    return configure(typed, {"FEWPAIR_CONFIG": str(tmp_path / "server.toml"), **(environment or {})})


def test_a_flag_wins_over_a_variable_a_variable_over_the_file_and_the_file_over_the_default(tmp_path):
    found = configured(
        tmp_path,
        'models = "models"\nqueue = 1\ntimeout = 2\nworkers = 3\nui = false\ncors_origins = ["https://a", "https://b"]',
        {"FEWPAIR_QUEUE": "10", "FEWPAIR_TIMEOUT": "20"},
        queue="100",
    )
    settings = found.settings
    assert (settings.queue, settings.timeout, settings.workers, settings.threads, settings.ui) == (100, 20, 3, 0, False)
    assert settings.cors_origins == ("https://a", "https://b")
    assert settings.models == tmp_path / "models", "paths of the file start where the file is"
    assert {name: one.where for name, one in found.said.items() if name in ("queue", "timeout", "workers", "threads")} == {
        "queue": "--queue",
        "timeout": "FEWPAIR_TIMEOUT",
        "workers": f"workers in {tmp_path / 'server.toml'}",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quue = 1", "no setting 'quue'. Did you mean queue?"),
        ("FEWPAIR_TOKEN_FILE = 'x'", "Did you mean tokens_file?"),
        ("zzz = 1", "Settings: access_log, "),
        ("queue = 'many'", "queue = many in .* is not a whole number"),
        ("queue = 1.5", "queue = 1.5 in .* is not a whole number"),
        ("queue = -1", "queue = -1 in .* lies outside 0 to 100000"),
        ("ui = 'perhaps'", "ui = perhaps in .* is neither on nor off"),
        ("log = 'xml'", "log xml is none of text, json"),
        ("[queue]\nlength = 1", "neither a text, a number"),
        ("queue = ", "is no TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_what_would(tmp_path, text, said):
    with pytest.raises(ServingError) as raised:
        configured(tmp_path, text)
    assert re.search(said, str(raised.value))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ServingError, match="No such file"):
        configure({}, {}, file=str(tmp_path / "absent.toml"))


def test_tokens_come_from_a_variable_or_a_file_and_are_never_shown(tmp_path):
    (tmp_path / "tokens").write_text("token-one\ntoken-two\n\n")
    (tmp_path / "admin").write_text("admin-token\n")
    found = configured(tmp_path, "tokens_file = 'tokens'\nadmin_token_file = 'admin'")
    assert (found.settings.tokens, found.settings.admin_token) == (("token-one", "token-two"), "admin-token")
    shown = "\n".join(found.lines())
    assert "2 hidden  (tokens_file in" in shown
    assert not any(secret in shown for secret in ("token-one", "token-two", "admin-token"))
    by_variable = configured(tmp_path, "tokens_file = 'tokens'", {"FEWPAIR_TOKENS": "token-three, token-four"}).settings
    assert by_variable.tokens == ("token-three", "token-four")
    assert configure({}, {"FEWPAIR_TOKENS_FILE": str(tmp_path / "tokens")}).settings.tokens == ("token-one", "token-two")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"FEWPAIR_TOKENS": "short"}, "a token of 5 letters"),
        ({"FEWPAIR_TOKENS": "two words in one"}, "blanks"),
        ({"FEWPAIR_TOKENS": ","}, "holds no token"),
        ({"FEWPAIR_ADMIN_TOKEN": "token-one,token-two"}, "holds 2 tokens"),
        ({"FEWPAIR_TOKENS": "token-one", "FEWPAIR_TOKENS_FILE": "/absent"}, "both say tokens"),
        ({"FEWPAIR_TOKENS_FILE": "/absent"}, "/absent cannot be read"),
        ({"FEWPAIR_TOKENS_FILE": "/absent"}, re.escape("import secrets; print(secrets.token_urlsafe(32))") + '" > /absent'),
        ({"FEWPAIR_CONFIG": "/absent"}, "/absent cannot be read: .* Name a file of lines like queue = 64"),
    ],
)
def test_tokens_that_are_none_are_refused_and_not_repeated(environment, said):
    with pytest.raises(ServingError, match=said) as raised:
        configure({}, environment)
    assert "two words in one" not in str(raised.value)


def test_a_child_gets_exactly_these_settings(tmp_path):
    (tmp_path / "tokens").write_text("token-one")
    environment = {"FEWPAIR_TOKENS_FILE": str(tmp_path / "tokens"), "FEWPAIR_QUEUE": "7", "PATH": "/bin"}
    settings = configured(tmp_path, "timeout = 5", environment).settings
    child = child_environment(settings, {**environment, "FEWPAIR_CONFIG": "/gone"})
    assert child["PATH"] == "/bin"
    assert Settings.from_environment(child) == settings


def test_what_kubernetes_says_of_a_service_called_fewpair_is_no_port():
    assert configure({}, {"FEWPAIR_PORT": "tcp://10.0.0.1:80"}).settings.port == 3000


def test_a_variable_that_is_nearly_a_setting_is_told():
    assert strangers({"FEWPAIR_QUEU": "1", "FEWPAIR_QUEUE": "1", "FEWPAIR_SOMETHING_ELSE": "1", "QUEUE": "1"}) == [
        "FEWPAIR_QUEU is no setting and does nothing; FEWPAIR_QUEUE is one."
    ]


def test_a_token_matches_whole_and_only_as_a_bearer():
    tokens = ("token-one", "token-two")
    assert all(token_matches(header, tokens) for header in ("Bearer token-one", "bearer token-two", "BEARER  token-one "))
    strange = (None, "", "Bearer", "Bearer ", "token-one", "Basic token-one", "Bearer token-on", "Bearer token-one2", "Bearer t\udcff")
    assert not any(token_matches(header, tokens) for header in strange)
    assert not token_matches("Bearer ", ())
    assert not token_matches("Bearer ", ("",))
