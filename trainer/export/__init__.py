"""From a run to a folder that the server reads: ONNX graphs, parity with torch, manifest and card."""
