"""The repository: layout, package boundaries, the lock file, and how soon the command line answers."""

import ast
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from deploy import licences
from tests import line_links

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
BANNED_NAMES = {"utils", "util", "common", "helpers", "base_model", "options", "misc"}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_the_trainer_imports_nothing_of_serving_but_its_decoder():
    names = {name for path in python_files("trainer") for name in imported(path, package="serving")}
    assert {name for name in names if name.partition(".")[0] != "imaging"} == set()


def test_the_decoder_needs_numpy_and_pillow_alone():
    for module in ("decode", "domain", "labels"):
        path = ROOT / "serving" / "imaging" / f"{module}.py"
        third = {name.partition(".")[0] for name in imported(path, package="")} - sys.stdlib_module_names
        assert third <= {"numpy", "PIL", "serving"}
        assert {name.partition(".")[0] for name in imported(path, package="serving")} <= {"errors", "imaging"}


def test_no_file_is_called_by_a_name_that_says_nothing():
    assert [
        path for path in python_files("trainer", "serving", "benchmarks", "tests") if path.stem in BANNED_NAMES
    ] == []


def test_every_file_opens_with_a_sentence():
    silent = []
    for path in python_files("trainer", "serving", "benchmarks", "tests"):
        text = path.read_text(encoding="utf-8")
        first = (ast.get_docstring(ast.parse(text)) or "").split("\n", 1)[0]
        if text.strip() and not first.endswith((".", ":", "?")):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_the_lock_is_hashed_and_names_no_index_and_no_path():
    assert not re.search(r"https?://|file://|--(extra-)?index-url|--find-links|--trusted-host| @ ", LOCK)
    pins = re.findall(r"^([a-z0-9-]+)==[^\n]*\n((?:    --hash=[^\n]*\n)+)", LOCK, flags=re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z0-9]", LOCK, flags=re.MULTILINE))


def test_the_lock_holds_what_the_project_asks_for():
    wanted = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[^A-Za-z0-9-]", line)[0].lower() for line in wanted}
    locked = set(re.findall(r"^([a-z0-9-]+)==", LOCK, flags=re.MULTILINE))
    assert names <= locked


def test_the_server_installs_without_torch_and_with_one_onnxruntime():
    for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["serve"]):
        assert not re.match(r"(torch|torchvision|onnx|tyro)\b(?!runtime)", line)
    locked = re.findall(r"^(onnxruntime[a-z-]*)==", LOCK, flags=re.MULTILINE)
    assert locked == ["onnxruntime-gpu"]


@pytest.mark.alone
def test_help_answers_in_under_half_a_second():
    took = []
    for _ in range(3):  # the best of three: this is about what is imported, not about who else is busy
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "trainer", "--help"], check=True, capture_output=True, cwd=ROOT)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.5


def test_help_imports_the_standard_library_only():
    program = (
        "import sys; before = set(sys.modules); from trainer.__main__ import main; main(['--help']);"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names), "
        "file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert answer.stderr.strip() == "['trainer']"


@pytest.mark.parametrize("half", ["serving", "trainer"])
def test_onnxruntime_sends_no_telemetry(half, tmp_path):
    """Left to itself it writes a device id, and sends what it is used for to its maker."""
    graph = ROOT / "exported" / "camvid-hybrid-compact" / "to_label.onnx"
    program = (
        f"import {half}, onnxruntime; onnxruntime.InferenceSession({str(graph)!r}, providers=['CPUExecutionProvider'])"
    )
    alone = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env=alone)
    assert list(tmp_path.rglob("*")) == []


def test_every_decision_is_numbered_once_and_fits_a_page():
    notes = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert notes
    assert [note.name[:4] for note in notes] == [f"{number:04}" for number in range(1, len(notes) + 1)]
    assert [note.name for note in notes if len(note.read_text().splitlines()) > 45] == []


def test_the_benchmark_for_gpus_runs_every_file_with_a_gpu_test():
    marked = [
        path.relative_to(ROOT)
        for path in python_files("tests")
        if re.search(r"^@pytest\.mark\.gpu", path.read_text(), flags=re.MULTILINE)
    ]
    assert marked
    named = (ROOT / "benchmarks" / "gpu.sh").read_text()
    assert [path for path in marked if str(path) not in named] == []


# Design, section 2: what a part of the trainer never imports. An entry is a file or a folder under trainer/.
NEVER = {
    "networks": {"methods", "data", "recipes", "training", "export", "commands", "metrics"},
    "losses": {"methods", "data", "recipes", "training", "export", "commands", "metrics"},
    "labels": {"methods", "data", "recipes", "training", "export", "commands", "metrics"},
    "methods": {"training", "export", "commands", "recipes", "metrics"},
    "metrics": {"recipes", "training", "export", "commands"},
    "training": {"commands", "export", "experiment", "report"},
    "report": {"commands", "export", "experiment"},
    "export": {"commands", "experiment"},
    "data": {"methods", "training"},
}


def imported(path: Path, package: str = "trainer") -> set[str]:
    """The dotted names under a package that a file imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    prefix = f"{package}." if package else ""
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


@pytest.mark.parametrize("part", NEVER)
def test_imports_in_the_trainer_run_one_way(part):
    place = ROOT / "trainer" / part
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in files
        for name in imported(path)
        if name.partition(".")[0] in NEVER[part]
    }
    assert found == set()


# Each layer of the server imports only layers before it; `client` and `predict` are its command-line users.
LAYERS = (
    "errors", "settings", "telemetry", "imaging", "models", "inference", "client", "predict", "jobs", "api ui studio",
    "app", "service", "__main__",
)  # fmt: skip


def test_imports_in_the_server_run_one_way():
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer.split()}
    upwards = set()
    for path in python_files("serving"):
        part = path.relative_to(ROOT / "serving").with_suffix("").parts[0]
        for name in imported(path, package="serving") - {""}:
            other = name.partition(".")[0]
            if part in rank and other != part and rank.get(other, -1) >= rank[part]:
                upwards.add((str(path.relative_to(ROOT)), name))
    assert upwards == set()


def test_nothing_imports_the_command_line():
    assert [
        path for path in python_files("trainer") if "__main__" in {name.partition(".")[0] for name in imported(path)}
    ] == []


def test_the_trainer_s_modules_have_no_import_cycle():
    paths = {path.relative_to(ROOT / "trainer").with_suffix(""): path for path in python_files("trainer")}
    files = {
        ".".join(place.parent.parts if place.name == "__init__" else place.parts): path for place, path in paths.items()
    }
    left = {name: {each for each in imported(path) if each in files} - {name} for name, path in files.items()}
    while free := [name for name, wants in left.items() if not wants & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


def test_every_link_to_a_line_of_code_names_that_line_and_no_other():
    """After lines have moved, `python tests/line_links.py` corrects the numbers."""
    found = [link for page in line_links.pages() for link in line_links.links(page)]
    assert [str(link) for link in found if not link.right] == []
    assert len(found) == sum(page.read_text(encoding="utf-8").count("#L") for page in line_links.pages())


def test_a_wrong_link_is_reported_and_corrected_and_one_to_a_part_of_a_name_or_to_two_lines_is_not_accepted(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(line_links, "ROOT", tmp_path)
    (tmp_path / "code.py").write_text("one = 1\n\ntwo = one\nthreefold = two\n")
    page = tmp_path / "page.md"
    page.write_text("[`two =`](code.py#L2), [`one = 1`](code.py#L1), [`three`](code.py#L4), [`one`](code.py#L1)")
    assert [link.right for link in line_links.links(page)] == [False, True, False, False]
    assert "links to line 2 of code.py, but is on 3" in str(next(line_links.links(page)))
    assert [link.words for link in line_links.mend(page)] == ["three", "one"]
    assert page.read_text().startswith("[`two =`](code.py#L3), [`one = 1`](code.py#L1)")


@pytest.mark.parametrize("method", ["hybrid", "pix2pix", "cyclegan", "tripathy"])
def test_a_paper_s_page_links_its_details_to_the_lines_that_do_them(method):
    found = line_links.links(ROOT / "docs" / "methods" / f"{method}.md")
    assert sum(link.file.endswith(f"methods/{method}.py") for link in found) > 10


def test_the_list_of_licences_has_every_package_of_the_lock():
    listed = re.findall(
        r"^\| ([A-Za-z0-9][A-Za-z0-9_.-]*) \|", (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert listed[1:] == licences.locked()
