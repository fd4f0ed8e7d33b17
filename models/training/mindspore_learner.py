"""The learner in MindSpore: rows and classes -> steps of a network on a CPU, a GPU or an Ascend NPU.

A pass, an update and an answer are a compiled graph each; between them gradients are one flat tensor. Under msrun, or
with a rank table, each process has a device of its own, and gradients are averaged.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, communication, device_context, nn, ops
from numpy.typing import NDArray

from models.errors import InvalidValueError
from models.frameworks import mindspore_network
from models.frameworks.mindspore_network import Norm, ResNeXt
from models.layers import NORM_EPSILON
from models.training.learner import (
    FIRST_DYNAMIC_FACTOR,
    Alone,
    Batch,
    Logits,
    LossScale,
    Rows,
    State,
    Step,
    World,
)
from models.training.recipe import Recipe
from models.weights import Weights, check_weights

Graph: TypeAlias = Callable[..., Any]

_MAP = ops.HyperMap()  # in a graph, loops over as many parameters take minutes to compile
_FLAT = 2  # dimensions of what has no height and width
_TYPES = {"f16": ms.float16, "bf16": ms.bfloat16}


class MindSporeLearner:
    """A network in MindSpore, its optimizer and its device; use `build`.

    There are two cells of the network: the one that is trained, and the one that follows it and is published.
    """

    def __init__(self, recipe: Recipe, weights: Weights, world: World, *, is_split: bool) -> None:
        network = recipe.network.describe()
        self.framework = f"mindspore {ms.__version__}"
        self.world = world
        self._recipe = recipe
        self._trained = mindspore_network.build(network, is_split=is_split)
        self._published = mindspore_network.build(network, is_split=is_split)
        self._published.update_parameters_name("published.")  # names are unique within a graph
        self._velocities = [
            Parameter(ops.zeros_like(weight), name=f"moments.{weight.name}", requires_grad=False)
            for weight in self._trained.trainable_params()
        ]
        _prepare(self._trained, recipe, world)
        self._pass = _pass(self._trained, recipe)
        self._update = _update(self._trained, self._published, self._velocities, recipe)
        self._answer = _answer(self._published, recipe)
        self._statistics = _Flat([*_statistics(self._trained), *_statistics(self._published)])
        first = FIRST_DYNAMIC_FACTOR if self._is_dynamic else recipe.precision.loss_scale
        self.loss_scale = LossScale(factor=float(first))
        self.restore(State(weights=weights, raw={}, velocities={}, loss_scale=self.loss_scale))

    def step(self, batches: Sequence[Batch], rate: float) -> Step:
        """Take one step on the mean gradient of these batches, of equal size, on all devices."""
        statistics = self._statistics.take() if self._is_dynamic else None
        loss, gradient = self._passes(batches)
        is_skipped = self._is_dynamic and not bool(ops.isfinite(gradient).all())
        if self._is_dynamic:
            self.loss_scale = self.loss_scale.after(is_finite=not is_skipped)
        if is_skipped:
            self._statistics.put(statistics)  # what overflowed may be in them too
        else:
            gradients = _parted(gradient, self._trained.trainable_params())
            self._update(Tensor(rate, ms.float32), *gradients)
        total = self.world.sum(np.array(loss, np.float64))
        return Step(loss=float(total) / self.world.size, is_skipped=is_skipped)

    def agree(self) -> None:
        """Give all devices the same norm statistics, the mean of theirs."""
        self._statistics.put(_mean(self._statistics.take(), self.world))

    def logits(self, rows: Rows) -> Logits:
        """Return the answers of the weights that are published, in float32 and without learning from the rows.

        The graph is compiled for one batch, to which rows are filled up.
        """
        size = self._recipe.batch
        answered = []
        for start in range(0, len(rows), size):
            piece = rows[start : start + size]
            filled = np.pad(piece, [(0, size - len(piece)), (0, 0), (0, 0), (0, 0)])
            answered.append(self._answer(Tensor(filled)).asnumpy()[: len(piece)])
        return np.concatenate(answered)

    def state(self) -> State:
        """Return a copy of what was learnt."""
        names = [weight.name for weight in self._trained.trainable_params()]
        moments = [velocity.asnumpy().copy() for velocity in self._velocities]
        return State(
            weights=mindspore_network.weights_of(self._published),
            raw=mindspore_network.weights_of(self._trained) if self._recipe.ema else {},
            velocities=mindspore_network.wholes_of(self._trained, dict(zip(names, moments, strict=True))),
            loss_scale=self.loss_scale,
        )

    def restore(self, state: State) -> None:
        """Go on from a state."""
        _assign(self._trained, state.raw or state.weights)
        _assign(self._published, state.weights)
        moments = mindspore_network.pieces_of(self._trained, state.velocities)
        for weight, velocity in zip(self._trained.trainable_params(), self._velocities, strict=True):
            moment = moments.get(weight.name, np.zeros(weight.shape, np.float32))
            ops.assign(velocity, Tensor(moment))
        self.loss_scale = state.loss_scale

    @property
    def _is_dynamic(self) -> bool:
        return self._recipe.precision.loss_scale == "dynamic"

    def _passes(self, batches: Sequence[Batch]) -> tuple[float, Tensor]:
        """Return the mean loss of this device, and the mean gradient of all devices."""
        scale = Tensor(self.loss_scale.factor, ms.float32)
        losses, total = [], None
        for batch in batches:
            loss, gradients = self._pass(Tensor(batch.rows), Tensor(batch.labels, ms.int32), scale)
            losses.append(float(loss))
            gradient = _joined(gradients)
            total = gradient if total is None else total + gradient
        return sum(losses) / len(losses), _mean(total, self.world) / (scale * len(batches))


class _Flat:
    """Parameters as one flat tensor."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = ParameterTuple(parameters)
        self._assign = ms.jit(_assignment(self._parameters))

    def take(self) -> Tensor:
        """Return a copy of them all."""
        return _joined(self._parameters)

    def put(self, flat: Tensor) -> None:
        """Give them what was taken, or has become of it."""
        self._assign(*_parted(flat, self._parameters))


class _SynchronisedNorm(nn.Cell):
    """A normalisation by the statistics of the batches of all devices, in place of an operator by its own.

    Of all-reduces, which every device has and MindSpore can differentiate; its own operator is for Ascend alone.
    """

    def __init__(self, momentum: float, devices: int) -> None:
        super().__init__()
        self.momentum, self.devices = momentum, devices
        self.sum = ops.AllReduce()

    def construct(
        self, x: Tensor, weight: Tensor, bias: Tensor, running_mean: Parameter, running_var: Parameter
    ) -> tuple[Tensor]:  # (n, c) or (n, c, h, w)
        """Return the normalised maps, and follow the statistics as ops.BatchNorm does."""
        axes, shape = ((0, 2, 3), (1, -1, 1, 1)) if x.ndim > _FLAT else ((0,), (1, -1))
        mean = self.sum(ops.mean(x, axes)) / self.devices
        centred = x - ops.reshape(mean, shape)
        variance = self.sum(ops.mean(ops.square(centred), axes)) / self.devices
        n = x.size // x.shape[1] * self.devices
        ops.assign(running_mean, running_mean + self.momentum * (mean - running_mean))
        ops.assign(running_var, running_var + self.momentum * (variance * (n / (n - 1)) - running_var))
        scale = weight / ops.sqrt(variance + NORM_EPSILON)
        return (centred * ops.reshape(scale, shape) + ops.reshape(bias, shape),)


class _Together:
    """The processes that msrun started, or that a rank table lists."""

    def __init__(self) -> None:
        self.rank, self.size = communication.get_rank(), communication.get_group_size()

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over all processes, of float64 numbers that travel as the int32 pairs of their bits.

        As float64 a CPU's AllGather would round them to float32 unasked (MindSpore 2.10), and AllReduce refuses.
        """
        bits = Tensor(np.ascontiguousarray(values, np.float64).reshape(-1).view(np.int32))
        gathered = ops.AllGather()(bits).asnumpy().view(np.float64)
        total: NDArray[np.float64] = gathered.reshape(self.size, *values.shape).sum(0)
        return total

    def close(self) -> None:
        """Leave the others."""
        communication.release()


def build(recipe: Recipe, weights: Weights, *, device: str, is_split: bool = False) -> MindSporeLearner:
    """Return a learner that begins with these weights; under msrun or with a rank table, one of several.

    `device` is cpu, gpu, npu or auto. Raises InvalidValueError for a device that is not there.
    """
    target = _target(device)
    if target == "CPU" and recipe.precision.compute == "bf16":
        raise InvalidValueError("precision.compute is bf16; on a CPU, MindSpore allows f32 and f16")
    has_table = "RANK_TABLE_FILE" in os.environ
    is_one_of_many = has_table or "MS_ROLE" in os.environ
    ms.set_context(mode=ms.PYNATIVE_MODE)
    _once(ms.set_deterministic, True)
    if has_table:
        ms.set_device(target, int(os.environ.get("DEVICE_ID", "0")))
    else:
        ms.set_device(target)  # msrun's processes settle among themselves who has which
    if target == "CPU":
        # MindSpore's 25 threads wait actively for each other, and on few cores starve each other so.
        _once(device_context.cpu.op_tuning.threads_num, max((os.cpu_count() or 1) // 2, 1))
    if is_one_of_many:
        communication.init()  # in msrun's scheduler it serves the others, and ends the process with them
    return MindSporeLearner(recipe, weights, _Together() if is_one_of_many else Alone(), is_split=is_split)


def _once(choose: Graph, value: int) -> None:
    """Choose what MindSpore lets a process choose only once, and which an earlier learner has chosen alike."""
    with suppress(RuntimeError):
        choose(value)


def _target(wish: str) -> str:
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        return "CPU"
    is_there = {
        "npu": device_context.ascend.is_available,
        "gpu": device_context.gpu.is_available,
        "cpu": lambda: True,
    }
    if wish not in ("auto", *is_there):
        raise InvalidValueError(f"device is {wish!r}; allowed are auto, cpu, gpu and npu")
    found = [name for name in is_there if wish in (name, "auto") and is_there[name]()]
    if not found:
        raise InvalidValueError(f"device is {wish!r}, but MindSpore finds none; allowed is one that is there")
    return {"npu": "Ascend", "gpu": "GPU", "cpu": "CPU"}[found[0]]


def _prepare(cell: ResNeXt, recipe: Recipe, world: World) -> None:
    """Set the cell to train, in the precision and with the norms of the recipe."""
    compute = _TYPES.get(recipe.precision.compute)
    cell.set_train()
    for _, layer in cell.cells_and_names():
        if compute and isinstance(layer, nn.Conv2d | nn.Dense):
            layer.to_float(compute)
        if not isinstance(layer, Norm):
            continue
        if compute:
            layer.to_float(ms.float32)
        if recipe.norms == "frozen":
            layer.set_train(mode=False)
        if recipe.norms == "synchronised" and world.size > 1:
            layer.of_batch = _SynchronisedNorm(layer.momentum, world.size)


def _pass(cell: ResNeXt, recipe: Recipe) -> Graph:
    """Return rows, classes, loss scale -> loss, scaled gradient."""
    planes, classes = _planes(recipe), recipe.network.classes
    weights = cell.trainable_params()
    right = Tensor(1 - recipe.label_smoothing, ms.float32)
    wrong = Tensor(recipe.label_smoothing / (classes - 1), ms.float32)

    def losses(rows: Tensor, labels: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        shares = ops.log_softmax(ops.cast(cell(planes(rows)), ms.float32), 1)
        wanted = ops.one_hot(labels, classes, right, wrong)
        loss = -ops.mean(ops.sum(wanted * shares, 1))
        return loss * scale, loss

    differentiated = ms.value_and_grad(losses, None, weights, has_aux=True)

    def pass_once(rows: Tensor, labels: Tensor, scale: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (_, loss), gradients = differentiated(rows, labels, scale)
        return loss, gradients

    graph: Graph = ms.jit(pass_once)
    return graph


def _update(trained: ResNeXt, published: ResNeXt, velocities: Sequence[Parameter], recipe: Recipe) -> Graph:
    """Return rate, gradients -> nothing: the weights move, and those that are published follow."""
    how, share = recipe.optimizer, 1 - recipe.ema
    weights = ParameterTuple(trained.trainable_params())
    moments = ParameterTuple(velocities)
    decays = tuple(how.weight_decay if weight.ndim > 1 or how.decays_all else 0.0 for weight in weights)
    leaders, followers = ParameterTuple(trained.get_parameters()), ParameterTuple(published.get_parameters())

    def move(rate: Tensor, weight: Parameter, velocity: Parameter, decay: float, gradient: Tensor) -> Tensor:
        slope = gradient + decay * weight
        faster = how.momentum * velocity + slope  # by hand: ApplyMomentum on a CPU passes over use_nesterov
        ahead = slope + how.momentum * faster if how.nesterov else faster
        ops.assign(velocity, faster)
        return ops.assign(weight, weight - rate * ahead)

    def follow(leader: Parameter, follower: Parameter) -> Tensor:
        return ops.assign(follower, follower + share * (leader - follower) if recipe.ema else leader)

    def update(rate: Tensor, *gradients: Tensor) -> Tensor:
        _MAP(partial(move, rate), weights, moments, decays, gradients)
        _MAP(follow, leaders, followers)
        return rate  # a graph has to return something

    graph: Graph = ms.jit(update)
    return graph


def _assign(cell: ResNeXt, weights: Weights) -> None:
    """Put weights into a cell in their place: a graph that has run goes on with the memory that it knows."""
    check_weights(cell.network, weights)
    pieces = mindspore_network.pieces_of(cell, weights)
    for name, parameter in cell.parameters_and_names():
        ops.assign(parameter, Tensor(pieces[name]))


def _assignment(parameters: Sequence[Parameter]) -> Graph:
    """Return values -> nothing: the parameters take them."""

    def assign(*values: Tensor) -> Tensor:
        _MAP(ops.assign, parameters, values)
        return values[0]

    return assign


def _answer(cell: ResNeXt, recipe: Recipe) -> Graph:
    """Return rows -> logits."""
    planes = _planes(recipe)

    def answer(rows: Tensor) -> Tensor:
        return cell(planes(rows))

    graph: Graph = ms.jit(answer)
    return graph


def _planes(recipe: Recipe) -> Graph:
    """Return rows (n, side, side, 3) -> what the network takes, (n, 3, side, side)."""
    preprocessing = recipe.preprocessing.build()
    mean, std = Tensor(preprocessing.mean, ms.float32), Tensor(preprocessing.std, ms.float32)

    def run(rows: Tensor) -> Tensor:
        return ops.transpose((ops.cast(rows, ms.float32) - mean) / std, (0, 3, 1, 2))

    return run


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return ops.concat([tensor.reshape(-1) for tensor in tensors])


def _parted(flat: Tensor, like: Sequence[Parameter]) -> tuple[Tensor, ...]:
    parts = ops.split(flat, [tensor.size for tensor in like])
    return tuple(part.reshape(tensor.shape) for part, tensor in zip(parts, like, strict=True))


def _mean(flat: Tensor, world: World) -> Tensor:
    """Return the mean over all devices."""
    return flat if world.size == 1 else ops.AllReduce()(flat) / world.size


def _statistics(cell: ResNeXt) -> list[Parameter]:
    return [parameter for parameter in cell.get_parameters() if not parameter.requires_grad]
