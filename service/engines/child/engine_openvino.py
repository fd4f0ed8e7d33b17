"""Runs an ONNX graph with OpenVINO on the CPU, at any batch size. Lives in the engine process."""

import sys
from typing import Any, Dict

import numpy as np


class Engine:
    """One compiled model with one infer request."""

    def __init__(self, order: Dict[str, Any]) -> None:
        # OpenVINO reports every import to its vendor through this package, unasked. Without it, it reports nothing.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        import openvino

        self._tensor = openvino.Tensor
        # On newer CPUs the default is bf16, whose answers are off by half a percent.
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if order["threads"]:
            options["INFERENCE_NUM_THREADS"] = str(order["threads"])
        model = openvino.Core().compile_model(order["files"][0]["path"], "CPU", options)
        self._request = model.create_infer_request()
        self.about = "openvino %s cpu f32" % openvino.__version__.split("-")[0]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Answer uint8 (n, side, side, 3) with float32 (n, classes)."""
        self._request.infer([self._tensor(np.ascontiguousarray(images), shared_memory=True)])
        return np.asarray(self._request.get_output_tensor(0).data)
