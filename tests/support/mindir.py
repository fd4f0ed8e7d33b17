"""Converts an untrained model for MindSpore Lite, with the real library, where a Python has it."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from patience import PATIENCE_S
from service.machine import python_with_lite
from serving import UNTRAINED

CONVERT = """
import sys
import mindspore_lite as lite

converter = lite.Converter()
converter.optimize = "general"
converter.save_type = lite.ModelType.MINDIR
converter.convert(lite.FmkType.ONNX, sys.argv[1], sys.argv[2])
"""


def found_lite_python() -> Path:
    """Find a Python that has the library; without it the test is skipped."""
    python = python_with_lite(os.environ.get("CARDINAL_MINDSPORE_LITE_PYTHON", "auto"))
    return python or pytest.skip("no Python here has mindspore_lite: see mindspore_lite_python in README.md")


def convert(model: str, gear: int, folder: Path) -> Path:
    """Write a MindIR of an untrained model at one batch size."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(UNTRAINED / model / "1/model.onnx")
    for each in (*graph.graph.input, *graph.graph.output):
        each.type.tensor_type.shape.dim[0].dim_value = gear
    onnx.save(graph, folder / f"{gear}.onnx")
    words = [found_lite_python(), "-c", CONVERT, folder / f"{gear}.onnx", folder / str(gear)]
    subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE_S)
    (folder / f"{gear}.onnx").unlink()
    return folder / f"{gear}.mindir"


def bundle_with_mindir(model: str, gears: tuple[int, ...], repository: Path) -> None:
    """Copy an untrained bundle, with artifacts for MindSpore Lite beside the one that it has."""
    bundle = Path(shutil.copytree(UNTRAINED / model / "1", repository / model / "1"))
    manifest = json.loads((bundle / "model.json").read_text())
    for gear in gears:
        path = convert(model, gear, bundle)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        artifact = {"engine": "mindspore_lite", "target": "cpu", "gears": [gear], "precision": "f32"}
        manifest["artifacts"].append(artifact | {"file": path.name, "sha256": digest})
    (bundle / "model.json").write_text(json.dumps(manifest))
