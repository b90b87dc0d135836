"""The settings: where they come from, what is refused, and that secrets stay hidden."""

import pytest

from serving.errors import ServingError
from serving.settings import Settings, default_models_folder, load_settings
from tests.serving.process import ROOT


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    monkeypatch.delenv("FEWPAIR_DATA", raising=False)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load settings from the text of a TOML file, variables and flags."""

    def loaded(toml="", flags=(), **variables):
        (tmp_path / "server.toml").write_text(toml)
        for name, value in {"CONFIG": str(tmp_path / "server.toml"), **variables}.items():
            monkeypatch.setenv(f"FEWPAIR_{name}", value)
        return load_settings(flags)

    return loaded


def test_a_flag_wins_over_a_variable_a_variable_over_the_file_and_the_file_over_the_default(load, tmp_path):
    settings = load(
        'models = "models"\nqueue = 1\ntimeout = 2\nui = false\ncors_origins = ["https://a", "https://b"]',
        ["--queue", "100", "--access-log"],
        QUEUE="10",
        TIMEOUT="20",
        MAX_BYTES="",
    )
    assert (settings.queue, settings.timeout, settings.threads, settings.max_bytes) == (100, 20, 0, 32 * 2**20)
    assert (settings.ui, settings.access_log, settings.cors_origins) == (False, True, ("https://a", "https://b"))
    assert settings.models == tmp_path / "models", "paths of the file start from its folder"


def test_the_flag_of_a_switch_reverses_its_default(load):
    assert (load(flags=["--no-ui"]).ui, load(flags=["--open"]).open, load().ui) == (False, True, True)


@pytest.mark.parametrize(
    ("toml", "variables", "message"),
    [
        ("quue = 1", {}, "there is no setting quue"),
        ("[queue]\nlength = 1", {}, r"queue = .* \(FEWPAIR_QUEUE\)"),
        ("queue = ", {}, r"the configuration file .* cannot be read"),
        ("", {"CONFIG": "/absent"}, "the configuration file /absent cannot be read"),
        ("queue = -1", {}, r"queue = -1 \(FEWPAIR_QUEUE\): Input should be greater than or equal to 0"),
        ("", {"TIMEOUT": "nan"}, r"timeout = nan \(FEWPAIR_TIMEOUT\)"),
        ("", {"DEVICE": "tpu"}, r"device = tpu .*'auto', 'cpu' or 'cuda'"),
        ("", {"CORS_ORIGINS": "https://a/page"}, "https://a/page is no origin"),
        ("", {"TOKENS": "short"}, "8 or more ASCII characters"),
        ("", {"ADMIN_TOKEN": "token-one token-two"}, "no blanks"),
        ("", {"TOKENS": "token-one", "TOKENS_FILE": "/absent"}, "tokens and tokens_file are both set"),
        ("tokens_file = '/absent'", {}, r"tokens_file /absent cannot be read.*make one: python"),
        ("tokens_file = '/dev/null'", {}, "tokens_file /dev/null is empty"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_value_and_a_remedy(load, toml, variables, message):
    with pytest.raises(ServingError, match=message) as raised:
        load(toml, **variables)
    assert "short" not in str(raised.value)
    assert "token-one" not in str(raised.value), "a secret is not repeated"


def test_each_line_of_a_token_file_is_one_token_whatever_it_holds(load, tmp_path):
    (tmp_path / "tokens").write_text("abcdefgh,12345678\n\n token-two \n")
    (tmp_path / "admin").write_text("admin-token\n")
    settings = load("tokens_file = 'tokens'\nadmin_token_file = 'admin'")
    assert settings.all_tokens == ("abcdefgh,12345678", "token-two", "admin-token")
    assert not any(secret in repr(settings) for secret in ("abcdefgh", "token-two", "admin-token"))


def test_the_variable_holds_one_token_a_line_too(load):
    assert load(TOKENS="abcdefgh,12345678\ntoken-two").all_tokens == ("abcdefgh,12345678", "token-two")


def test_an_admin_token_alone_does_not_close_the_server(load):
    assert load(ADMIN_TOKEN="admin-token").all_tokens == ()


def test_origins_are_compared_without_a_trailing_slash_and_in_lower_case(load):
    assert load(CORS_ORIGINS="https://App.example/, http://localhost:5173,*").cors_origins == (
        "https://app.example",
        "http://localhost:5173",
        "*",
    )


@pytest.mark.parametrize("written", ["fewpair", "/fewpair/", "fewpair/"])
def test_a_root_path_starts_with_a_slash_and_ends_without(load, written):
    assert load(ROOT_PATH=written).root_path == "/fewpair"


def test_a_child_process_reads_exactly_these_settings(load, tmp_path, monkeypatch):
    (tmp_path / "tokens").write_text("token-one\ntoken,two")
    settings = load(
        "timeout = 5\ntokens_file = 'tokens'\nallowed_hosts = ['a', 'b']\njobs = 'jobs'", ["--no-ui"], QUEUE="7"
    )
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    child = load_settings()
    assert child.model_dump(exclude={"config"}) == settings.model_dump(exclude={"config"})


def test_the_address_that_kubernetes_gives_of_a_service_called_fewpair_is_no_port(load):
    assert load(PORT="tcp://10.0.0.1:80").port == 3000


def test_the_models_are_looked_for_here_first_and_then_beside_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_models_folder() == ROOT / "exported"
    (tmp_path / "exported").mkdir()
    assert default_models_folder() == Settings().models
    assert str(Settings().models) == "exported"


def test_threads_are_shared_out_between_runs(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [Settings(runs_at_once=runs).intra_op_threads for runs in (1, 3, 16)] == [8, 2, 1]
    assert Settings(threads=5, runs_at_once=2).intra_op_threads == 5


@pytest.mark.parametrize("kept", ["jobs", "studio"])
def test_a_public_server_has_neither_jobs_nor_a_studio(load, kept):
    with pytest.raises(ServingError, match=f"keeps nothing of its clients: leave out {kept} or public"):
        load(flags=["--public", f"--{kept}", "folder"])
