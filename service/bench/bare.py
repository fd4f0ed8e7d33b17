"""A plain loop around a library, nothing but its calls: a program, which shares nothing with what it is compared to.

    python service/bench/bare.py '{"library": "openvino", "graph": ..., "batch": 1, "side": 224, ...}'

It answers each line of seconds with a line: the images that it ran and the seconds that they took.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Call: TypeAlias = Callable[[np.ndarray[Any, Any]], object]


def main() -> None:
    """Load what the command line says, then run for as long as each line says."""
    order = json.loads(sys.argv[1])
    call = {"openvino": _openvino, "onnxruntime": _onnxruntime}[order["library"]](order)
    side = order["side"]
    rows = np.random.default_rng(0).integers(0, 256, (order["batch"], side, side, 3), np.uint8)
    call(rows)
    for line in sys.stdin:
        began = time.perf_counter()
        end, batches = began + float(line), 0
        while time.perf_counter() < end:
            call(rows)
            batches += 1
        sys.stdout.write(f"{batches * len(rows)} {time.perf_counter() - began}\n")
        sys.stdout.flush()


def _openvino(order: dict[str, Any]) -> Call:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it reports each import to the vendor
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": order["precision"]}
    if order["threads"]:
        options["INFERENCE_NUM_THREADS"] = str(order["threads"])
    core = openvino.Core()
    model = core.read_model(order["graph"])
    model.reshape([order["batch"], order["side"], order["side"], 3])
    request = core.compile_model(model, "CPU", options).create_infer_request()

    def call(rows: np.ndarray[Any, Any]) -> object:
        request.infer([openvino.Tensor(rows, shared_memory=True)])
        return np.array(request.get_output_tensor(0).data)

    return call


def _onnxruntime(order: dict[str, Any]) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = order["threads"]
    session = onnxruntime.InferenceSession(order["graph"], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda rows: session.run(None, {name: rows})


if __name__ == "__main__":
    main()
