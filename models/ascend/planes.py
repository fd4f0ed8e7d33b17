"""Take the normalisation off a deployment graph: images uint8 -> nodes becomes planes float32 -> nodes.

A compiler that is given an AIPP stage normalises there, and makes the input uint8 (n, side, side, 3) again.
"""

from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx.numpy_helper import to_array

from models.errors import InvalidValueError

_FIRST_NODES = ["Cast", "Sub", "Mul", "Transpose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """What a graph does to each channel of its pixels: subtract the mean, multiply with the reciprocal."""

    mean: tuple[float, ...]
    reciprocal: tuple[float, ...]


def normalisation_of(model: ModelProto) -> Normalisation:
    """Return the normalisation in a deployment graph; InvalidValueError where its first nodes are others."""
    _, subtract, multiply, _ = _first_nodes(model.graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    mean, reciprocal = (
        tuple(float(value) for value in to_array(constants[node.input[1]])) for node in (subtract, multiply)
    )
    return Normalisation(mean=mean, reciprocal=reciprocal)


def without_normalisation(model: ModelProto) -> ModelProto:
    """Return the graph from its planes on: its input `images` is float32 (n, 3, side, side)."""
    graph = model.graph
    nodes = _first_nodes(graph)
    constants = {nodes[1].input[1], nodes[2].input[1]}
    side = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    kept = GraphProto(name=graph.name, node=graph.node[len(nodes) :], output=graph.output)
    kept.input.append(helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, side, side]))
    kept.initializer.extend(tensor for tensor in graph.initializer if tensor.name not in constants)
    for node in kept.node:
        node.input[:] = ["images" if name == nodes[-1].output[0] else name for name in node.input]
    return ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        opset_import=model.opset_import,
        graph=kept,
    )


def _first_nodes(graph: GraphProto) -> list[NodeProto]:
    nodes = list(graph.node[: len(_FIRST_NODES)])
    operators = [node.op_type for node in nodes]
    if operators != _FIRST_NODES:
        raise InvalidValueError(f"the graph begins with {operators}; allowed is {_FIRST_NODES}")
    return nodes
