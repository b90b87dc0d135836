"""The boundary between the packages, and what may not be missing from a server without torch."""

import ast
import re
import subprocess
import sys
import tomllib

from tests.serving.process import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PROVIDERS = {
    "PIL": "pillow",
    "pythonjsonlogger": "python-json-logger",
    "opentelemetry": "bentoml",
    "psutil": "bentoml",
    "onnxruntime": "onnxruntime-gpu",
    "pydantic": "fastapi",
    "starlette": "fastapi",
    "skimage": "scikit-image",
}
PROGRAM = """
import sys
import serving.service, serving.ui.page, serving.predict, serving.client, serving.__main__
banned = ("torch", "torchvision", "trainer", "onnx", "tyro")
crossed = sorted(name for name in sys.modules if name.split(".")[0] in banned)
sys.exit(f"imported: {crossed}" if crossed else 0)
"""


def test_serving_never_imports_torch_or_the_trainer(tmp_path):
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "BENTOML_HOME": str(tmp_path),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


def test_a_client_needs_no_onnxruntime(tmp_path):
    program = "import sys, serving.client; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_the_server_imports_nothing_but_what_its_extras_install():
    imported = set()
    for file in (ROOT / "serving").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    needed = {PROVIDERS.get(name, name.replace("_", "-")) for name in imported - sys.stdlib_module_names - {"serving"}}
    extras = PROJECT["optional-dependencies"]
    assert needed <= names_of([*PROJECT["dependencies"], *extras["serve"], *extras["studio"]])


def test_a_bento_installs_what_the_serving_extra_does():
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["serve"]]
    wanted = {line.partition(";")[0].strip() for line in lines}
    listed = set(re.findall(r'^    - "(.+)"$', (ROOT / "bentofile.yaml").read_text(), flags=re.MULTILINE))
    assert names_of(wanted - listed) == {"uv"}  # which `bentoml build` needs, and the built bento does not
    assert listed <= wanted


def names_of(requirements):
    return {re.split(r"[^A-Za-z0-9-]", line)[0].lower() for line in requirements}
