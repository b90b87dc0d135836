"""The wall between the halves, and what may not be missing from a server without torch."""

import subprocess
import sys

from tests.serving.process import ROOT

PROGRAM = """
import sys
import serving.service, serving.demo, serving.predict, serving.client, serving.__main__
crossed = sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "torchvision", "trainer", "onnx", "tyro"))
sys.exit(f"imported: {crossed}" if crossed else 0)
"""


def test_serving_never_imports_torch_or_the_trainer(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"}
    process = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_a_client_needs_no_onnxruntime(tmp_path):
    program = "import sys, serving.client; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
