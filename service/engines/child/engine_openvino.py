"""Runs an ONNX graph with OpenVINO on the CPU. Lives in the engine process."""

import os
import sys
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np


class Engine:
    """A compiled model, with one infer request, for each gear; or one for all batch sizes where there are no gears."""

    def __init__(self, order: Dict[str, Any]) -> None:
        # OpenVINO reports every import to its vendor through this package, unasked. Without it, it reports nothing.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        import openvino

        self._tensor = openvino.Tensor
        core = openvino.Core()
        core.set_property("CPU", _options_of(order))
        folder = order["options"]["cache_folder"]
        if folder and _is_writable(folder):
            core.set_property({"CACHE_DIR": folder})
        self._requests: Dict[Optional[int], Any] = {}
        for file in order["files"]:
            for gear in file["gears"] or [None]:
                model = core.read_model(file["path"])
                if gear is not None:
                    model.reshape([gear, order["side"], order["side"], 3])
                compiled = core.compile_model(model, "CPU")
                self._requests[gear] = compiled.create_infer_request()
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()  # what it made of ours
        self.about = "openvino %s cpu %s" % (openvino.__version__.split("-")[0], precision)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Answer uint8 (n, side, side, 3) with float32 (n, classes)."""
        request = self._requests.get(len(images)) or self._requests.get(None)
        if request is None:
            raise ValueError("a batch of %d rows; the gears are %s" % (len(images), list(self._requests)))
        request.infer([self._tensor(np.ascontiguousarray(images), shared_memory=True)])
        return np.asarray(request.get_output_tensor(0).data)


def _options_of(order: Dict[str, Any]) -> Dict[str, str]:
    # Always told: its own choice on newer CPUs is bf16, whose answers are off by half a percent.
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": order["options"]["precision"]}
    if order["threads"]:
        options["INFERENCE_NUM_THREADS"] = str(order["threads"])
    if order["pins_threads"] is not None:
        options["ENABLE_CPU_PINNING"] = "YES" if order["pins_threads"] else "NO"
    return options


def _is_writable(folder: str) -> bool:
    """Make the folder; a disk that may not be written to costs the cache, not the engine."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.stderr.write("models are compiled at each start: %s\n" % error)
        return False
    return os.access(folder, os.W_OK)
