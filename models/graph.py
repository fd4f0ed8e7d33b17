"""Write the deployment graph: network and weights -> ONNX, with no framework.

images (n, side, side, 3) uint8 RGB -> normalise -> NCHW -> blocks -> mean -> logits (n, classes) float32
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from models.layers import (
    NORM_EPSILON,
    Block,
    Convolution,
    Dense,
    Norm,
    PlainBlock,
    SelectiveKernelLayers,
    SqueezeExciteLayers,
    topology,
)
from models.networks import Network
from models.preprocessing import Preprocessing
from models.sizes import check_input_size
from models.weights import Array, check_weights

# Old enough for the converters of the devices, new enough for a softmax over one axis.
OPSET = 13
IR_VERSION = 7

_GRAPH_TAG = bytes([ModelProto.GRAPH_FIELD_NUMBER << 3 | 2])  # 2: bytes, after their number
_VARINT_BITS, _VARINT_MASK, _VARINT_MORE = 7, 0x7F, 0x80


def deployment_graph(network: Network, weights: dict[str, Array], preprocessing: Preprocessing) -> ModelProto:
    """Return the graph that serves the network on rows that this preprocessing makes.

    The bytes depend on nothing but the arguments. Raises InvalidValueError when weights and network differ.
    The weights are used up: each leaves the dict as it enters the graph, so that no two copies of all exist.
    """
    check_weights(network, weights)
    check_input_size(preprocessing.crop)
    layers = topology(network)
    model = _empty_model(network, preprocessing.crop)
    writer = _Writer(weights=weights, graph=model.graph)
    x = _normalised(writer, preprocessing)
    x = writer.relu(writer.convolution(x, layers.stem))
    x = x if network.is_plain else _stem_pool(writer, x, network)
    for block in layers.blocks:
        if isinstance(block, PlainBlock):
            x = _plain_block(writer, x, block)
        else:
            x = _block(writer, x, block, inner_relu=network.inner_relu)
    x = writer.add("GlobalAveragePool", x, name="mean")
    x = writer.add("Flatten", x, name="features", axis=1)
    writer.head(x, layers.head)
    return model


def graph_bytes(model: ModelProto) -> bytes:
    """Return the file's content, the same for the same graph."""
    return b"".join(graph_chunks(model))


def graph_chunks(model: ModelProto) -> Iterator[bytes]:
    """Yield the file's content constant by constant: protobuf itself would need twice the memory of all of them.

    It merges messages that follow one another, so that each field can be written as a message of its own.
    """
    length = sum(map(len, _graph_fields(model.graph)))
    head = ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    yield _content(head) + _GRAPH_TAG + _varint(length)
    yield from _graph_fields(model.graph)
    yield _content(ModelProto(opset_import=model.opset_import))


def _graph_fields(graph: GraphProto) -> Iterator[bytes]:
    yield _content(GraphProto(node=graph.node, name=graph.name))
    for constant in graph.initializer:
        yield _content(GraphProto(initializer=[constant]))
    yield _content(GraphProto(input=graph.input, output=graph.output))


def _content(message: ModelProto | GraphProto) -> bytes:
    return message.SerializeToString(deterministic=True)


def _varint(value: int) -> bytes:
    groups = []
    while value > _VARINT_MASK:
        groups.append(value & _VARINT_MASK | _VARINT_MORE)
        value >>= _VARINT_BITS
    return bytes([*groups, value])


@dataclass(slots=True, kw_only=True)
class _Writer:
    """Adds nodes and constants to a graph; each method returns the name of the tensor that it adds.

    The graph grows in its model, which holds the one copy of the constants: protobuf copies what it is given.
    """

    weights: dict[str, Array]
    graph: GraphProto

    def add(self, operator: str, *inputs: str, name: str, **attributes: Any) -> str:
        self.graph.node.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def relu(self, x: str) -> str:
        return self.add("Relu", x, name=f"{x}.relu")

    def convolution(self, x: str, layer: Convolution, before: Norm | None = None) -> str:
        """Add a convolution with its norm folded in; a 1x1 one can also take in a norm right before it."""
        scale, shift = self._affine(layer.norm)
        kernel = self.weights.pop(f"{layer.name}.weight").astype(np.float64) * scale[:, None, None, None]
        if before:
            scale, before_shift = self._affine(before)
            shift = shift + (kernel[:, :, 0, 0] * before_shift).sum(axis=1)
            kernel = kernel * scale[None, :, None, None]
        return self._convolution(x, layer, weight=kernel.astype(np.float32), bias=shift.astype(np.float32))

    def pooled_convolution(self, x: str, layer: Convolution) -> str:
        """Add a convolution, a pool of 2x2, and the convolution's norm, which does not fold in past the pool."""
        x = self._convolution(x, layer, weight=self.weights.pop(f"{layer.name}.weight"))
        x = self.add("MaxPool", x, name=f"{layer.name}.pool", kernel_shape=[2, 2], strides=[2, 2])
        return self.norm(x, layer.norm)

    def _convolution(self, x: str, layer: Convolution, **parameters: Array) -> str:
        return self.add(
            "Conv",
            x,
            *(self.constant(f"{layer.name}.{name}", array) for name, array in parameters.items()),
            name=layer.name,
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
            dilations=[layer.dilation] * 2,
            group=layer.groups,
        )

    def norm(self, x: str, norm: Norm) -> str:
        """Add a norm that no convolution can take in."""
        scale, shift = (values.astype(np.float32)[:, None, None] for values in self._affine(norm))
        x = self.add("Mul", x, self.constant(f"{norm.name}.scale", scale), name=f"{norm.name}.scaled")
        return self.add("Add", x, self.constant(f"{norm.name}.shift", shift), name=norm.name)

    def pointwise(self, x: str, layer: Dense) -> str:
        """Add a dense layer of a gate as a 1x1 convolution, which keeps the map's four axes."""
        weight = self.weights.pop(f"{layer.name}.weight")
        if layer.norm:
            scale, shift = self._affine(layer.norm)
            weight, bias = (weight * scale[:, None]).astype(np.float32), shift.astype(np.float32)
        else:
            bias = self.weights.pop(f"{layer.name}.bias")
        return self.add(
            "Conv",
            x,
            self.constant(f"{layer.name}.weight", weight[:, :, None, None]),
            self.constant(f"{layer.name}.bias", bias),
            name=layer.name,
            kernel_shape=[1, 1],
            strides=[1, 1],  # the defaults, which MindSpore Lite's converter does not know
            dilations=[1, 1],
        )

    def head(self, x: str, layer: Dense) -> str:
        """Add the classifier."""
        names = [f"{layer.name}.weight", f"{layer.name}.bias"]
        parameters = [self.constant(name, self.weights.pop(name)) for name in names]
        return self.add("Gemm", x, *parameters, name="logits", transB=1)

    def _affine(self, norm: Norm) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        weight, bias, mean, variance = (self.weights.pop(name).astype(np.float64) for name in norm.shapes())
        scale = weight / np.sqrt(variance + NORM_EPSILON)
        return scale, bias - mean * scale


def _normalised(writer: _Writer, preprocessing: Preprocessing) -> str:
    mean = np.array(preprocessing.mean, np.float32)
    reciprocal = (1 / np.array(preprocessing.std, np.float64)).astype(np.float32)
    x = writer.add("Cast", "images", name="pixels", to=TensorProto.FLOAT)
    x = writer.add("Sub", x, writer.constant("pixels.mean", mean), name="centred")
    x = writer.add("Mul", x, writer.constant("pixels.reciprocal_std", reciprocal), name="normalised")
    return writer.add("Transpose", x, name="planes", perm=[0, 3, 1, 2])


def _stem_pool(writer: _Writer, x: str, network: Network) -> str:
    # No `dilations` here: MindSpore Lite's converter refuses a pool that has the attribute.
    edges = {"ceil_mode": 1} if network.stem_pool == "ceil" else {"pads": [1, 1, 1, 1]}
    return writer.add("MaxPool", x, name="stem.pool", kernel_shape=[3, 3], strides=[2, 2], **edges)


def _block(writer: _Writer, x: str, block: Block, *, inner_relu: bool) -> str:
    y = writer.convolution(x, block.reduce)
    y = writer.relu(y) if inner_relu else y
    if isinstance(block.gate, SelectiveKernelLayers):
        y = _selected(writer, y, block, block.gate)
        y = _expanded(writer, y, block, block.gate.norm, inner_relu=inner_relu)
    else:
        y = writer.convolution(y, block.branches[0])
        y = writer.convolution(writer.relu(y) if inner_relu else y, block.expand)
    if isinstance(block.gate, SqueezeExciteLayers):
        y = _excited(writer, y, block, block.gate)
    shortcut = writer.convolution(x, block.shortcut) if block.shortcut else x
    return writer.relu(writer.add("Add", y, shortcut, name=block.name))


def _plain_block(writer: _Writer, x: str, block: PlainBlock) -> str:
    convolution = writer.pooled_convolution if block.has_pool else writer.convolution
    y = writer.relu(convolution(x, block.first))
    return writer.relu(writer.norm(_selected(writer, y, block, block.gate), block.gate.norm))


def _expanded(writer: _Writer, x: str, block: Block, norm: Norm, *, inner_relu: bool) -> str:
    if inner_relu:
        return writer.convolution(writer.relu(writer.norm(x, norm)), block.expand)
    return writer.convolution(x, block.expand, before=norm)


def _excited(writer: _Writer, x: str, block: Block, gate: SqueezeExciteLayers) -> str:
    y = writer.add("GlobalAveragePool", x, name=f"{block.name}.se.mean")
    y = writer.pointwise(writer.relu(writer.pointwise(y, gate.fc1)), gate.fc2)
    y = writer.add("Sigmoid", y, name=f"{block.name}.se.gate")
    return writer.add("Mul", x, y, name=f"{block.name}.se")


def _selected(writer: _Writer, x: str, block: Block | PlainBlock, gate: SelectiveKernelLayers) -> str:
    name = f"{block.name}.sk"
    branches = [writer.relu(writer.convolution(x, branch)) for branch in block.branches]
    shares = _shares(writer, _sum(writer, branches, f"{name}.all"), name, gate)
    weighted = [
        writer.add("Mul", branch, share, name=f"{share}.weighted")
        for branch, share in zip(branches, shares, strict=True)
    ]
    return _sum(writer, weighted, name)


def _shares(writer: _Writer, x: str, name: str, gate: SelectiveKernelLayers) -> list[str]:
    """Add the softmax over branches, with no more axes than a batch of maps has."""
    z = writer.pointwise(writer.add("GlobalAveragePool", x, name=f"{name}.mean"), gate.fuse)
    z = writer.relu(z) if gate.fuse.norm else z
    logits = [writer.pointwise(z, select) for select in gate.selects]
    stacked = writer.add("Concat", *logits, name=f"{name}.stacked", axis=1)  # (n, branches * channels, 1, 1)
    count, channels = len(gate.selects), gate.norm.channels
    apart = writer.constant(f"{name}.apart", np.array([0, count, channels, 1], np.int64))
    together = writer.constant(f"{name}.together", np.array([0, count * channels, 1, 1], np.int64))
    x = writer.add("Reshape", stacked, apart, name=f"{name}.logits")
    x = writer.add("Softmax", x, name=f"{name}.shares", axis=1)
    x = writer.add("Reshape", x, together, name=f"{name}.flat")
    names = [f"{name}.share.{index}" for index in range(count)]
    writer.graph.node.append(helper.make_node("Split", [x], names, name=f"{name}.split", axis=1))
    return names


def _sum(writer: _Writer, inputs: list[str], name: str) -> str:
    x = inputs[0]
    for index, other in enumerate(inputs[1:], start=1):
        x = writer.add("Add", x, other, name=name if index == len(inputs) - 1 else f"{name}.{index}")
    return x


def _empty_model(network: Network, side: int) -> ModelProto:
    model = ModelProto(
        ir_version=IR_VERSION,
        producer_name="cardinal-models",
        opset_import=[helper.make_opsetid("", OPSET)],
    )
    model.graph.name = network.name
    model.graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", side, side, 3]))
    model.graph.output.append(
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", network.classes])
    )
    return model
