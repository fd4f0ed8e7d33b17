"""Runs an ONNX graph with OpenVINO on the CPU, at any batch size. Lives in the engine process."""

from typing import Any, Dict

import numpy as np
import openvino


class Engine:
    """One compiled model with one infer request."""

    def __init__(self, order: Dict[str, Any]) -> None:
        core = openvino.Core()
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if order["threads"]:
            options["INFERENCE_NUM_THREADS"] = str(order["threads"])
        self._request = core.compile_model(order["artifact"], "CPU", options).create_infer_request()
        self.about = "openvino %s cpu f32" % openvino.__version__.split("-")[0]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Answer uint8 (n, side, side, 3) with float32 (n, classes)."""
        self._request.infer([openvino.Tensor(np.ascontiguousarray(images), shared_memory=True)])
        return np.asarray(self._request.get_output_tensor(0).data)
