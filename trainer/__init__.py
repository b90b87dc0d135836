"""The half of fewpair that may import torch: pairs -> train -> evaluate -> export."""

import os

# Read once, when onnxruntime is loaded: since 1.29 it reports to its maker by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
