"""The package that serves exported models over REST and in the browser; it never imports torch or trainer."""

import os

# Read once, when onnxruntime is loaded: since 1.29 it reports to its maker by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
