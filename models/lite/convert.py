"""Convert the graph of a bundle for MindSpore Lite on a CPU: one file for each gear, refused where it disagrees."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from models.content import sha256_of
from models.errors import InvalidValueError
from models.golden import softmax
from models.graph import graph_chunks
from models.lite.interpreter import run_lite
from models.manifest import (
    GRAPH_FILE,
    MANIFEST_FILE,
    ArtifactSection,
    manifest_text,
    read_manifest,
    with_artifacts,
)
from models.preprocessing import Preprocessing


def add_lite(bundle: Path, python: Path, gears: Sequence[int]) -> None:
    """Add a MindIR for each gear to a bundle that is being published.

    Each has its batch size fixed: MindSpore Lite 2.0.0 dies when it resizes a grouped convolution.
    Raises InvalidValueError when a file cannot be made, or answers a golden sample other than the manifest says.
    """
    artifacts = []
    for gear in gears:
        file = bundle / f"cpu-{gear}.mindir"
        convert_graph(bundle / GRAPH_FILE, gear, file, python)
        with TemporaryDirectory(dir=bundle) as work:
            _prove(bundle, file, python, Path(work))
        artifacts.append(
            ArtifactSection(
                engine="mindspore_lite",
                target="cpu",
                file=file.name,
                sha256=sha256_of(file),
                gears=(gear,),
                precision="f32",
            )
        )
    document = with_artifacts(read_manifest(bundle), artifacts)
    (bundle / MANIFEST_FILE).write_text(manifest_text(document), encoding="utf-8")


def convert_graph(graph: Path, gear: int, target: Path, python: Path) -> None:
    """Write the MindIR of a deployment graph for batches of one size."""
    with TemporaryDirectory(dir=target.parent) as work:
        fixed = Path(work) / "fixed.onnx"
        _fix_batch(graph, gear, fixed)
        run_lite(python, "convert", fixed, target.with_suffix(""))
    if not target.exists():
        raise InvalidValueError(f"MindSpore Lite ({python}): convert wrote no {target.name}")
    target.chmod(0o644)  # it writes files that only their owner may read


def _fix_batch(graph: Path, gear: int, target: Path) -> None:
    model = onnx.load(graph)
    for tensor in (*model.graph.input, *model.graph.output):
        batch = tensor.type.tensor_type.shape.dim[0]
        batch.Clear()
        batch.dim_value = gear
    with target.open("wb") as file:
        file.writelines(graph_chunks(model))


def _prove(bundle: Path, file: Path, python: Path, work: Path) -> None:
    """Compare the file's scores with those of the golden samples, as the server does when it loads it."""
    manifest = read_manifest(bundle)
    rows, logits = work / "rows.npy", work / "logits.npy"
    np.save(rows, _golden_rows(bundle, manifest))
    run_lite(python, "answer", file, rows, logits)
    scores = softmax(np.load(logits) / manifest["temperature"])
    for index, sample in enumerate(manifest["golden"]["samples"]):
        expected = np.array(sample["scores"])
        off = np.abs(scores[index] - expected)
        off[np.isnan(off)] = np.inf
        worst, allowed = int(off.argmax()), manifest["golden"]["tolerance"] * expected.max()
        if off[worst] > allowed:
            raise InvalidValueError(
                f"{file.name}: MindSpore Lite answers golden.samples[{index}].scores[{worst}] with"
                f" {scores[index][worst]:.7g}, not {expected[worst]:.7g}: off by {off[worst]:.3g},"
                f" allowed is {allowed:.3g}"
            )


def _golden_rows(bundle: Path, manifest: dict[str, Any]) -> NDArray[np.uint8]:
    preprocessing = Preprocessing(**manifest["preprocessing"])
    pictures = (Image.open(bundle / sample["file"]) for sample in manifest["golden"]["samples"])
    return np.stack([preprocessing.rows(picture) for picture in pictures])
