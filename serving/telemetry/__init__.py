"""Metrics, logs and traces."""

import os

# BentoML has prometheus_client keep counts in files for several processes. This server is one: they stay in memory.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
