"""Make golden samples: a few small pictures, and the scores that every engine must reproduce on them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper
from onnx.numpy_helper import to_array
from onnx.reference import ReferenceEvaluator
from PIL import Image

from models.errors import InvalidValueError
from models.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A PNG file's content and the scores expected for it."""

    png: bytes
    scores: tuple[float, ...]


def golden_rows(preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return the rows of the golden pictures, to be answered by whoever computes the samples."""
    return np.stack([preprocessing.rows(image) for image in pictures()])


def golden_samples(logits: NDArray[np.float32], temperature: float) -> tuple[Sample, ...]:
    """Return the golden samples from the logits of the golden rows.

    An engine never takes part: what it computes is what the samples are there to check.
    Raises InvalidValueError for logits that are no numbers.
    """
    if not np.isfinite(logits).all():
        raise InvalidValueError(
            "the network answers no numbers to the golden pictures, so its weights have overflowed; allowed are"
            " weights of a training that went well"
        )
    return tuple(
        Sample(png=_png(image), scores=tuple(float(f"{score:.7g}") for score in row))
        for image, row in zip(pictures(), softmax(logits / temperature), strict=True)
    )


def evaluate(model: ModelProto, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the logits of rows by onnx's reference evaluator, an implementation apart from every engine.

    In small steps, for the memory: row by row and node by node, since the evaluator of a whole model copies all
    constants and keeps every tensor, and each group of a convolution apart, since it unfolds what that sees.
    """
    return np.concatenate([_evaluate_row(model, row[np.newaxis]) for row in rows])


def _evaluate_row(model: ModelProto, row: NDArray[np.uint8]) -> NDArray[np.float32]:
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    last_uses = {name: node.name for node in model.graph.node for name in node.input}
    tensors: dict[str, Any] = {"images": row}
    for node in model.graph.node:
        inputs = [tensors[name] if name in tensors else to_array(constants[name]) for name in node.input]
        tensors |= zip(node.output, _run(node, inputs, opsets), strict=True)
        for name in set(node.input) & tensors.keys():
            if last_uses[name] == node.name:
                del tensors[name]
    return np.asarray(tensors["logits"], np.float32)


def _run(node: NodeProto, inputs: list[Any], opsets: dict[str, int]) -> list[Any]:
    single, groups = _single_group(node)
    evaluator = ReferenceEvaluator(helper.make_graph([single], node.name, [], []), opsets)

    def run(values: Sequence[Any]) -> list[Any]:
        return list(evaluator.run(node.output, dict(zip(node.input, values, strict=True))))

    if groups == 1:
        return run(inputs)
    maps, *parameters = inputs
    split = [np.split(maps, groups, axis=1), *(np.split(parameter, groups) for parameter in parameters)]
    return [np.concatenate([run(shares)[0] for shares in zip(*split, strict=True)], axis=1)]


def _single_group(node: NodeProto) -> tuple[NodeProto, int]:
    """Return the node that computes one group, and how many there are."""
    single, groups = NodeProto(), 1
    single.CopyFrom(node)
    for attribute in single.attribute:
        if attribute.name == "group":
            groups, attribute.i = attribute.i, 1
    return single, groups


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return scores that add up to 1 over the last axis."""
    highest = logits.max(axis=-1, keepdims=True)
    powers: NDArray[np.float64] = np.exp(logits.astype(np.float64) - highest)
    total: NDArray[np.float64] = powers.sum(axis=-1, keepdims=True)
    return powers / total


def pictures() -> tuple[Image.Image, ...]:
    """Return three RGB pictures that look nothing alike: a sunset, a checked wall, confetti."""
    return _sunset(96, 64), _wall(80, 120), _confetti(64, 64)


def _sunset(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 - y, 120 - y, 60 + 2 * y], axis=-1)
    pixels[(x - 30) ** 2 + (y - 24) ** 2 < 15**2] = (255, 240, 80)
    pixels[(x - 70) ** 2 + (y - 48) ** 2 < 12**2] = (20, 60, 20)
    return _image(pixels)


def _wall(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    light = ((x // 10 + y // 15) % 2)[..., None]
    return _image(np.where(light, (40, 200, 220), (10, 40, 160)) + (y // 3)[..., None])


def _confetti(width: int, height: int) -> Image.Image:
    generator = np.random.Generator(np.random.PCG64(0))
    squares = generator.integers(0, 256, (height // 8, width // 8, 3))
    noise = generator.integers(-12, 13, (height, width, 1))
    return _image(squares.repeat(8, axis=0).repeat(8, axis=1) + noise)


def _image(pixels: NDArray[np.integer]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
