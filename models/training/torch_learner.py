"""The learner in PyTorch: rows and classes -> steps of a network on a CPU, a GPU or, by torch_npu, an Ascend NPU.

Under torchrun each process has a device of its own, and gradients are averaged as one flat tensor. PyTorch's own
DistributedDataParallel puts them together anew after its first step, and so adds them up in another order when a run
is resumed.
"""

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from models.errors import InvalidValueError
from models.frameworks import torch_network
from models.training.learner import (
    FIRST_DYNAMIC_FACTOR,
    Alone,
    Batch,
    Labels,
    Logits,
    LossScale,
    Rows,
    State,
    Step,
    World,
)
from models.training.recipe import Recipe
from models.weights import Array, Weights, parameter_shapes

_TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_COLLECTIVES = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "npu": "cpu:gloo,npu:hccl"}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class TorchLearner:
    """A network in PyTorch, its optimizer and its device; use `build`."""

    def __init__(self, recipe: Recipe, weights: Weights, device: torch.device, world: World) -> None:
        preprocessing, network = recipe.preprocessing.build(), recipe.network.describe()
        module = torch_network.build(network)
        torch_network.load(module, weights)
        self.framework = f"pytorch {torch.__version__}"
        self.world = world
        self._recipe, self._device = recipe, device
        self._names = list(parameter_shapes(network))
        self._mean = torch.tensor(preprocessing.mean, device=device)[:, None, None]
        self._std = torch.tensor(preprocessing.std, device=device)[:, None, None]
        self._module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.norms == "synchronised" and world.size > 1:
            self._synchronise_norms()
        self._optimizer = _optimizer(self._module, recipe)
        self._smoothing = recipe.label_smoothing * network.classes / (network.classes - 1)  # of all classes
        self._average = self._copied() if recipe.ema else {}
        first = FIRST_DYNAMIC_FACTOR if self._is_dynamic else recipe.precision.loss_scale
        self.loss_scale = LossScale(factor=float(first))

    def step(self, batches: Sequence[Batch], rate: float) -> Step:
        """Take one step on the mean gradient of these batches, of equal size, on all devices."""
        self._learning_mode()
        statistics = [buffer.clone() for buffer in self._module.buffers()] if self._is_dynamic else []
        self._optimizer.zero_grad()
        loss = torch.zeros((), device=self._device)
        for batch in batches:
            part = self._loss(batch) / len(batches)
            (part * self.loss_scale.factor).backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
        self._average_gradients()
        is_skipped = self._unscale_gradients()
        if is_skipped:
            for buffer, before in zip(self._module.buffers(), statistics, strict=True):
                buffer.copy_(before)  # what overflowed may be in them too
        else:
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
            self._follow()
        mean = self.world.sum(np.array(float(loss), np.float64)) / self.world.size
        return Step(loss=float(mean), is_skipped=is_skipped)

    @torch.no_grad()
    def agree(self) -> None:
        """Give all devices the same norm statistics, the mean of theirs."""
        if self.world.size == 1:
            return
        for states in (self._tensors(), self._average):
            for name, tensor in states.items():
                if ".running_" in name:
                    distributed.all_reduce(tensor)
                    tensor.div_(self.world.size)

    @torch.inference_mode()
    def logits(self, rows: Rows) -> Logits:
        """Return the answers of the weights that are published, in float32 and without learning from the rows."""
        self._module.eval()
        planes = self._planes(rows)
        answered: Tensor = functional_call(self._module, self._average, planes)
        return answered.float().cpu().numpy()

    def state(self) -> State:
        """Return a copy of what was learnt."""
        weights = torch_network.weights_of(self._module)
        return State(
            weights={name: _array(self._average[name]) for name in weights} if self._average else weights,
            raw=weights if self._average else {},
            velocities={
                name: _array(self._optimizer.state[parameter]["momentum_buffer"])
                for name, parameter in self._module.named_parameters()
                if self._optimizer.state[parameter].get("momentum_buffer") is not None
            },
            loss_scale=self.loss_scale,
        )

    def restore(self, state: State) -> None:
        """Go on from a state."""
        torch_network.load(self._module, state.raw or state.weights)
        for name, tensor in self._average.items():
            tensor.copy_(self._tensor(state.weights[name]))
        for name, parameter in self._module.named_parameters():
            if name in state.velocities:
                velocity = torch.empty_like(parameter).copy_(self._tensor(state.velocities[name]))
                self._optimizer.state[parameter]["momentum_buffer"] = velocity
        self.loss_scale = state.loss_scale

    @property
    def _is_dynamic(self) -> bool:
        return self._recipe.precision.loss_scale == "dynamic"

    def _loss(self, batch: Batch) -> Tensor:
        compute = _TYPES[self._recipe.precision.compute]
        with torch.autocast(self._device.type, compute, enabled=compute is not torch.float32):
            logits = self._module(self._planes(batch.rows))
        return cross_entropy(logits.float(), self._classes(batch.labels), label_smoothing=self._smoothing)

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._module.parameters() if parameter.grad is not None]

    def _average_gradients(self) -> None:
        """Give all devices the mean of their gradients."""
        if self.world.size == 1:
            return
        gradients = self._gradients()
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        flat.div_(self.world.size)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def _unscale_gradients(self) -> bool:
        """Divide the gradients by the loss scale; tell whether the step is to be skipped, since they overflowed."""
        gradients = self._gradients()
        if self.loss_scale.factor != 1:
            torch._foreach_mul_(gradients, 1 / self.loss_scale.factor)
        if not self._is_dynamic:
            return False
        is_finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        self.loss_scale = self.loss_scale.after(is_finite=is_finite)
        return not is_finite

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average a little towards the weights, the statistics of norms included."""
        for name, tensor in self._tensors().items() if self._average else ():
            self._average[name].lerp_(tensor, 1 - self._recipe.ema)

    def _learning_mode(self) -> None:
        self._module.train()
        if self._recipe.norms == "frozen":
            for layer in self._module.modules():
                if isinstance(layer, _NORMS):
                    layer.eval()

    def _synchronise_norms(self) -> None:
        if self._device.type == "cpu":
            raise InvalidValueError(
                "norms is 'synchronised'; on a CPU, PyTorch allows 'per_device' and 'frozen'"
            )
        nn.SyncBatchNorm.convert_sync_batchnorm(self._module)  # type: ignore[no-untyped-call] # in place

    def _planes(self, rows: Rows) -> Tensor:
        pixels = torch.from_numpy(rows).to(self._device).permute(0, 3, 1, 2)  # channels last as they are
        return (pixels - self._mean) / self._std

    def _classes(self, labels: Labels) -> Tensor:
        return torch.from_numpy(labels).to(self._device)

    def _tensors(self) -> dict[str, Tensor]:
        state = self._module.state_dict()
        return {name: state[name] for name in self._names}

    def _copied(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self._tensors().items()}

    def _tensor(self, array: Array) -> Tensor:
        return torch.tensor(array, device=self._device)


class _Together:
    """The processes that torchrun started."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum over all processes, taken on the hosts: not every device knows float64."""
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return total.numpy()

    def close(self) -> None:
        """Leave the others."""
        distributed.destroy_process_group()


def build(recipe: Recipe, weights: Weights, *, device: str) -> TorchLearner:
    """Return a learner that begins with these weights; under torchrun, one of several.

    `device` is cpu, gpu, npu or auto. Raises InvalidValueError for a device that is not there.
    """
    local, is_one_of_many = int(os.environ.get("LOCAL_RANK", "0")), "WORLD_SIZE" in os.environ
    found = _device(device, local)
    if is_one_of_many:
        distributed.init_process_group(_COLLECTIVES[found.type])
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = (
        False  # f32 means f32: by default convolutions keep 10 bits of 23 on a GPU
    )
    return TorchLearner(recipe, weights, found, _Together() if is_one_of_many else Alone())


def _device(wish: str, local: int) -> torch.device:
    if wish in ("npu", "auto") and find_spec("torch_npu"):
        import_module("torch_npu")  # gives torch the device
        torch.npu.set_device(local)  # type: ignore[attr-defined]
        return torch.device("npu", local)
    if wish in ("gpu", "auto") and torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise InvalidValueError(f"process {local} has no GPU; there are {torch.cuda.device_count()}")
        torch.cuda.set_device(local)
        return torch.device("cuda", local)
    if wish in ("cpu", "auto"):
        return torch.device("cpu")
    missing = {"npu": "torch_npu is not installed", "gpu": "PyTorch finds no GPU"}
    raise InvalidValueError(f"device is {wish!r}; {missing.get(wish, 'allowed are auto, cpu, gpu and npu')}")


def _optimizer(module: torch_network.ResNeXt, recipe: Recipe) -> torch.optim.SGD:
    how = recipe.optimizer
    kernels = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in module.parameters() if parameter.ndim == 1]  # of norms, and biases
    groups = [
        {"params": kernels, "weight_decay": how.weight_decay},
        {"params": others, "weight_decay": how.weight_decay if how.decays_all else 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=how.momentum, nesterov=how.nesterov)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.float().cpu().contiguous().numpy().copy()
    return array
