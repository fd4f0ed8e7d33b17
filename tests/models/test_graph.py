from dataclasses import replace

import numpy as np
import onnx
import openvino
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from models.graph import deployment_graph, graph_bytes
from models.layers import (
    Block,
    Convolution,
    Dense,
    Norm,
    PlainBlock,
    SelectiveKernelLayers,
    SqueezeExciteLayers,
    topology,
)
from models.networks import Network, SelectiveKernel, describe
from models.preprocessing import standard_preprocessing
from models.weights import random_weights

SIDE = 64
PREPROCESSING = standard_preprocessing(SIDE)
NETWORKS = {
    "se_resnext50": describe("se_resnext50", classes=10, width=1 / 16),
    "resnext101": describe("resnext101", classes=10, width=1 / 32),
    "sknet50": describe("sknet50", width=1 / 16),
    "sknet50_paper": describe("sknet50_paper", classes=10, width=1 / 16),
    "sknet8": describe("sknet8", classes=10, width=1 / 8),
    "sknet50 of three branches": replace(
        describe("sknet50", width=1 / 16), stem_pool="padded", gate=SelectiveKernel(branches=3)
    ),
}

Floats = NDArray[np.float64]


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    return NETWORKS[request.param]


@pytest.fixture(scope="module")
def model(network: Network) -> onnx.ModelProto:
    return deployment_graph(network, random_weights(network, seed=1), PREPROCESSING)


@pytest.fixture(scope="module")
def compiled(model: onnx.ModelProto) -> openvino.CompiledModel:
    # A CPU with bf16 would compute in that by default, which agrees to 1e-2 only.
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    return core.compile_model(core.read_model(graph_bytes(model)), "CPU", precision)


@pytest.fixture(scope="module")
def rows() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


def test_openvino_agrees_with_the_reference_evaluator(
    model: onnx.ModelProto, compiled: openvino.CompiledModel, rows: NDArray[np.uint8]
) -> None:
    (expected,) = ReferenceEvaluator(model).run(None, {"images": rows})
    logits = compiled(rows)["logits"]
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


def test_the_graph_computes_what_the_network_means(
    network: Network, compiled: openvino.CompiledModel, rows: NDArray[np.uint8]
) -> None:
    expected = _Slow(network, seed=1).logits(rows)
    assert np.abs(compiled(rows)["logits"] - expected).max() < 1e-4 * np.abs(expected).max()


def test_three_rows_at_once_answer_as_one_by_one(
    compiled: openvino.CompiledModel, rows: NDArray[np.uint8]
) -> None:
    together = compiled(rows)["logits"].copy()
    alone = np.concatenate([compiled(rows[index : index + 1])["logits"].copy() for index in range(3)])
    assert together.shape == alone.shape == (3, 10)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * np.abs(together).max())


def test_the_tensors_are_the_contract_of_every_engine(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    (images,), (logits,) = model.graph.input, model.graph.output
    assert (images.name, images.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim] == [
        "n",
        SIDE,
        SIDE,
        3,
    ]
    assert (logits.name, logits.type.tensor_type.elem_type) == ("logits", onnx.TensorProto.FLOAT)
    assert [dim.dim_param or dim.dim_value for dim in logits.type.tensor_type.shape.dim] == ["n", 10]


def test_older_converters_can_read_the_graph(model: onnx.ModelProto) -> None:
    assert (model.ir_version, [opset.version for opset in model.opset_import]) == (7, [13])
    pools = [node for node in model.graph.node if node.op_type == "MaxPool"]
    assert pools
    assert all("dilations" not in {attribute.name for attribute in pool.attribute} for pool in pools)
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    spoken = {"kernel_shape", "strides", "dilations"}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert all(spoken <= {attribute.name for attribute in node.attribute} for node in convolutions)


def test_the_same_arguments_make_the_same_bytes(network: Network, model: onnx.ModelProto) -> None:
    again = deployment_graph(network, random_weights(network, seed=1), PREPROCESSING)
    assert graph_bytes(again) == graph_bytes(model)


def test_a_graph_that_is_written_constant_by_constant_is_what_protobuf_writes(model: onnx.ModelProto) -> None:
    assert graph_bytes(model) == model.SerializeToString(deterministic=True)


class _Slow:
    """The network once more, slowly, layer after layer: no folding, no ONNX, float64."""

    def __init__(self, network: Network, seed: int) -> None:
        self.network, self.weights = network, random_weights(network, seed)

    def logits(self, rows: NDArray[np.uint8]) -> Floats:
        layers = topology(self.network)
        x = (rows - np.array(PREPROCESSING.mean)) / np.array(PREPROCESSING.std)
        x = _relu(self.convolution(x.transpose(0, 3, 1, 2), layers.stem))
        if self.network.stem_pool:
            before = 1 if self.network.stem_pool == "padded" else 0
            x = np.pad(x, [(0, 0), (0, 0), (before, 1), (before, 1)])  # zeros never win after a ReLU
            x = _windows(x, 3, 1)[:, :, ::2, ::2].max(axis=(-2, -1))[:, :, : SIDE // 4, : SIDE // 4]
        for block in layers.blocks:
            x = self.plain(x, block) if isinstance(block, PlainBlock) else self.block(x, block)
        return self.dense(x.mean(axis=(2, 3)), layers.head)

    def plain(self, x: Floats, block: PlainBlock) -> Floats:
        y = self.map(x, block.first)
        y = _windows(y, 2, 1)[:, :, ::2, ::2].max(axis=(-2, -1)) if block.has_pool else y
        y = self.selected(_relu(self.norm(y, block.first.norm)), block, block.gate)
        return _relu(self.norm(y, block.gate.norm))

    def block(self, x: Floats, block: Block) -> Floats:
        inner = _relu if self.network.inner_relu else np.asarray
        y = inner(self.convolution(x, block.reduce))
        if isinstance(block.gate, SelectiveKernelLayers):
            y = inner(self.norm(self.selected(y, block, block.gate), block.gate.norm))
        else:
            y = inner(self.convolution(y, block.branches[0]))
        y = self.convolution(y, block.expand)
        if isinstance(block.gate, SqueezeExciteLayers):
            z = self.dense(_relu(self.dense(y.mean(axis=(2, 3)), block.gate.fc1)), block.gate.fc2)
            y = y / (1 + np.exp(-z))[:, :, None, None]
        return _relu(y + (self.convolution(x, block.shortcut) if block.shortcut else x))

    def selected(self, x: Floats, block: Block | PlainBlock, gate: SelectiveKernelLayers) -> Floats:
        branches = np.stack([_relu(self.convolution(x, branch)) for branch in block.branches])
        z = self.dense(branches.sum(axis=0).mean(axis=(2, 3)), gate.fuse)
        if gate.fuse.norm:
            z = _relu(self.norm(z[..., None, None], gate.fuse.norm)[..., 0, 0])
        powers = np.exp(np.stack([self.dense(z, select) for select in gate.selects]))
        return (branches * (powers / powers.sum(axis=0))[..., None, None]).sum(axis=0)

    def convolution(self, x: Floats, layer: Convolution) -> Floats:
        return self.norm(self.map(x, layer), layer.norm)

    def map(self, x: Floats, layer: Convolution) -> Floats:
        pad = layer.padding
        windows = _windows(np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)]), layer.kernel, layer.dilation)
        windows = windows[:, :, :: layer.stride, :: layer.stride]
        groups = windows.reshape(len(x), layer.groups, -1, *windows.shape[2:])
        kernel = self.weights[f"{layer.name}.weight"].astype(np.float64)
        kernel = kernel.reshape(layer.groups, -1, *kernel.shape[1:])
        y = np.einsum("ngihwkl,goikl->ngohw", groups, kernel, optimize=True)
        return np.reshape(y, (len(x), layer.out_channels, *y.shape[3:]))

    def norm(self, x: Floats, norm: Norm) -> Floats:
        weight, bias, mean, variance = (
            self.weights[name].astype(np.float64)[:, None, None] for name in norm.shapes()
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias

    def dense(self, x: Floats, layer: Dense) -> Floats:
        return x @ self.weights[f"{layer.name}.weight"].T + self.weights.get(f"{layer.name}.bias", 0)


def _relu(x: Floats) -> Floats:
    return np.maximum(x, 0)


def _windows(x: Floats, kernel: int, dilation: int) -> Floats:
    reach = dilation * (kernel - 1) + 1
    windows = np.lib.stride_tricks.sliding_window_view(x, (reach, reach), axis=(2, 3))
    return windows[..., ::dilation, ::dilation]
