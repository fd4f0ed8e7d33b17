"""Take a network back from its bundle: graph and manifest -> Network, weights and preprocessing.

The graph's norms were folded into its convolutions: what comes back answers the same, its norms doing nothing but
add a bias. Their statistics are gone, so that it is nothing to go on training with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx.numpy_helper import to_array

from models.content import sha256_of
from models.errors import InvalidValueError
from models.layers import NORM_EPSILON, Convolution, Dense, Norm, topology
from models.manifest import GRAPH_FILE, LABELS_FILE, MANIFEST_FILE, read_manifest
from models.networks import Network, describe
from models.preprocessing import Preprocessing
from models.weights import Array, check_weights

Constants = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfolded:
    """What a bundle holds, as a framework takes it."""

    network: Network
    weights: dict[str, Array]
    preprocessing: Preprocessing
    labels: tuple[str, ...]


def unfold(bundle: Path) -> Unfolded:
    """Return the network of a bundle; raises InvalidValueError where the folder is none, or is not whole."""
    manifest = read_manifest(bundle)
    graph = _graph(
        bundle, [entry["sha256"] for entry in manifest["artifacts"] if entry["file"] == GRAPH_FILE]
    )
    constants = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    described = describe(
        manifest["network"]["name"], classes=manifest["classes"], width=manifest["network"]["width"]
    )
    network = described if described.is_plain else replace(described, stem_pool=_stem_pool(graph))
    weights = _weights(network, constants)
    check_weights(network, weights)
    return Unfolded(
        network=network,
        weights=weights,
        preprocessing=Preprocessing(
            **manifest["preprocessing"],
            mean=_channels(constants["pixels.mean"]),
            std=_channels(1 / constants["pixels.reciprocal_std"].astype(np.float64)),
        ),
        labels=tuple((bundle / LABELS_FILE).read_text(encoding="utf-8").splitlines()),
    )


def _graph(bundle: Path, digests: list[str]) -> onnx.GraphProto:
    file = bundle / GRAPH_FILE
    if sha256_of(file) not in digests:
        raise InvalidValueError(f"{file} is not the file that {MANIFEST_FILE} names")
    try:
        return onnx.load(file).graph
    except DecodeError as error:
        raise InvalidValueError(f"{file} is no ONNX file") from error


def _stem_pool(graph: onnx.GraphProto) -> Literal["ceil", "padded"]:
    (pool,) = (node for node in graph.node if node.op_type == "MaxPool")
    return "padded" if any(attribute.name == "pads" for attribute in pool.attribute) else "ceil"


def _weights(network: Network, constants: Constants) -> dict[str, Array]:
    weights: dict[str, Array] = {}
    for layer in topology(network).layers():
        if isinstance(layer, Norm):
            weights |= _scaling(layer, constants)
            continue
        shape = layer.shape if isinstance(layer, Convolution) else (layer.outputs, layer.inputs)
        weights[f"{layer.name}.weight"] = constants[f"{layer.name}.weight"].reshape(shape).astype(np.float32)
        bias = constants.get(f"{layer.name}.bias")
        if layer.norm and bias is None:
            weights |= _scaling(layer.norm, constants)
        elif layer.norm:
            weights |= _norm(layer.norm, bias)
        elif isinstance(layer, Dense):
            weights[f"{layer.name}.bias"] = constants[f"{layer.name}.bias"].astype(np.float32)
    return weights


def _scaling(norm: Norm, constants: Constants) -> dict[str, Array]:
    return _norm(norm, constants.get(f"{norm.name}.shift"), constants.get(f"{norm.name}.scale"))


def _norm(
    norm: Norm, shift: NDArray[np.generic] | None, scale: NDArray[np.generic] | None = None
) -> dict[str, Array]:
    """Return a norm that scales and shifts, or does neither where a convolution has taken it in."""
    zeros, ones = np.zeros(norm.channels, np.float32), np.ones(norm.channels, np.float32)
    values = (
        ones if scale is None else scale.reshape(-1).astype(np.float32),
        zeros if shift is None else shift.reshape(-1).astype(np.float32),
        zeros.copy(),
        ones - np.float32(NORM_EPSILON),
    )
    return dict(zip(norm.shapes(), values, strict=True))


def _channels(values: NDArray[np.generic]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
