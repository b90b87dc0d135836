"""A segmenter behind FastAPI or LitServe alone: `... FastAPI|LitServe FILE HEIGHT WIDTH THREADS PORT`."""

import io
import sys
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request, Response, UploadFile
from PIL import Image


class Segmenter:
    """A photo's file to its class ids as a PNG file of the same size."""

    def __init__(self, file: str, height: str, width: str, threads: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(threads)
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.size = (int(width), int(height))

    def decoded(self, photo: Image.Image) -> np.ndarray:
        """What the graph takes, u8[1,H,W,3]."""
        return np.asarray(photo.convert("RGB").resize(self.size, Image.Resampling.BICUBIC))[None]

    def run(self, pixels: np.ndarray) -> Any:
        """The bare session: u8[1,H,W,3] to u8[1,H,W]."""
        return self.session.run(["label"], {"photo": pixels})[0]

    def __call__(self, upload: bytes) -> bytes:
        photo, answer = Image.open(io.BytesIO(upload)), io.BytesIO()
        ids = Image.fromarray(self.run(self.decoded(photo))[0])
        ids.resize(photo.size, Image.Resampling.NEAREST).save(answer, "PNG")
        return answer.getvalue()


def plain_fastapi(*model: str, port: int) -> None:
    """Serve until stopped, each request in a thread of FastAPI's pool."""
    app, segmenter = FastAPI(), Segmenter(*model)

    @app.post("/v1/segment")
    def segment(image: UploadFile) -> Response:
        return Response(segmenter(image.file.read()), media_type="image/png")

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__" and sys.argv[1] == "FastAPI":
    plain_fastapi(*sys.argv[2:-1], port=int(sys.argv[-1]))
elif sys.argv[1:2] == ["LitServe"]:  # also in the worker that it starts
    import litserve

    class Api(litserve.LitAPI):
        """One worker process, without batching."""

        def setup(self, device: str) -> None:
            self.segmenter = Segmenter(*sys.argv[2:-1])

        def decode_request(self, request: Request) -> Any:
            return request["image"].file.read()

        def predict(self, upload: bytes) -> bytes:
            return self.segmenter(upload)

        def encode_response(self, answer: bytes) -> Response:
            return Response(answer, media_type="image/png")

    if __name__ == "__main__":
        server = litserve.LitServer(Api(api_path="/v1/segment"), accelerator="cpu")
        server.run(host="127.0.0.1", port=int(sys.argv[-1]), log_level="warning", generate_client_file=False)
