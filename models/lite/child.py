"""Run MindSpore Lite for the publisher: `convert GRAPH TARGET` or `answer MODEL ROWS LOGITS`.

A process of its own on an interpreter of its own: Python 3.7 for MindSpore Lite 2.0.0, and newer ones. It needs
nothing but the library and numpy, and a fault of the library ends nothing else.
"""

import ctypes
import signal
import sys

import numpy as np

_PR_SET_PDEATHSIG = 1


def convert(graph: str, target: str) -> None:
    """Write the MindIR of an ONNX file; the library adds `.mindir` to the target's name."""
    import mindspore_lite

    converter = mindspore_lite.Converter()
    converter.save_type = mindspore_lite.ModelType.MINDIR
    converter.convert(fmk_type=mindspore_lite.FmkType.ONNX, model_file=graph, output_file=target)


def answer(model_file: str, rows_file: str, logits_file: str) -> None:
    """Write the logits of rows, in batches of the size that the model is fixed to."""
    import mindspore_lite

    context = mindspore_lite.Context()
    context.target = ["cpu"]
    model = mindspore_lite.Model()
    model.build_from_file(model_file, mindspore_lite.ModelType.MINDIR, context)
    inputs = model.get_inputs()
    gear = inputs[0].shape[0]
    rows = np.load(rows_file)
    logits = []
    for start in range(0, len(rows), gear):
        batch = rows[start : start + gear]
        full = np.concatenate([batch, *[batch[-1:]] * (gear - len(batch))])
        inputs[0].set_data_from_numpy(full)
        # A copy: the library reuses its buffer.
        logits.append(model.predict(inputs)[0].get_data_to_numpy()[: len(batch)].copy())
    np.save(logits_file, np.concatenate(logits))


def main() -> None:
    """Run one command; end with the publisher."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    command, words = sys.argv[1], sys.argv[2:]
    if command == "convert":
        convert(*words)
    else:
        answer(*words)


if __name__ == "__main__":
    main()
