"""Put a training aside and take it up again: Savepoint <-> a checkpoint file, and the folder that holds them.

A file is a safetensors file whose tensors of the network have their own names, so that whatever reads checkpoints
reads it: `raw.` and `moments.` are put before the rest. Its metadata say where the training stood.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from models.checkpoints.files import write_whole
from models.errors import InvalidValueError
from models.training.learner import LossScale, State
from models.training.recipe import Recipe, as_document, parse_recipe
from models.weights import Array, check_weights, parameter_shapes

SUFFIX = ".safetensors"
BEST = f"best{SUFFIX}"
NAMES = f"[0-9]*-[0-9]*{SUFFIX}"  # of the others, by epochs and steps
_KEY = "cardinal.training"
_RAW, _VELOCITY = "raw.", "moments."  # the second is MindSpore's word


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What was measured on the evaluation set, as shares of its `n` pictures."""

    top1: float
    top5: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Whole epochs, steps of the next one, the sum of its losses and how many; the best accuracy, and after which."""

    epoch: int = 0
    step: int = 0
    losses: float = 0.0
    counted: int = 0
    best_top1: float | None = None
    best_epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Savepoint:
    """A training at a moment, on so many `pictures`; `accuracy` is of these very weights, where it was measured."""

    recipe: Recipe
    framework: str
    labels: tuple[str, ...]
    devices: int
    pictures: int
    position: Position
    accuracy: Accuracy | None
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a checkpoint of a training says of its weights: how they were trained, and what was measured of them."""

    recipe: Recipe
    framework: str
    labels: tuple[str, ...]
    position: Position
    accuracy: Accuracy | None


def write_savepoint(path: Path, point: Savepoint) -> None:
    """Write a file that appears at once, or not at all."""
    tensors = {
        **point.state.weights,
        **_prefixed(_RAW, point.state.raw),
        **_prefixed(_VELOCITY, point.state.velocities),
    }
    scale, position, accuracy = point.state.loss_scale, point.position, point.accuracy
    about = {
        "recipe": as_document(point.recipe),
        "framework": point.framework,
        "labels": point.labels,
        "devices": point.devices,
        "pictures": point.pictures,
        "position": {
            "epoch": position.epoch,
            "step": position.step,
            "losses": position.losses.hex(),
            "counted": position.counted,
            "best_top1": position.best_top1,
            "best_epoch": position.best_epoch,
        },
        "accuracy": accuracy and {"top1": accuracy.top1, "top5": accuracy.top5, "n": accuracy.n},
        "loss_scale": {"factor": scale.factor, "steady_steps": scale.steady_steps},
    }
    content = save(tensors, {"format": "pt", _KEY: json.dumps(about)})
    write_whole(path, lambda file: file.write(content))


def read_savepoint(path: Path) -> Savepoint:
    """Return what a file of a training holds; raises InvalidValueError for damage, and for any other checkpoint."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Array] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise InvalidValueError(f"checkpoint {path} is damaged: {error}") from error
    if _KEY not in metadata:
        raise InvalidValueError(
            f"checkpoint {path} is none of a training: it holds weights, and not where it stood"
        )
    try:
        point = _savepoint(json.loads(metadata[_KEY]), tensors, path)
        _check_state(point)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidValueError(f"checkpoint {path} is damaged: {error}") from error
    return point


def read_origin(path: Path) -> Origin | None:
    """Return what a checkpoint says of its training, without its tensors; None for any other file."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except SafetensorError:
        return None
    if _KEY not in metadata:
        return None
    about = json.loads(metadata[_KEY])
    return Origin(
        recipe=parse_recipe(about["recipe"], where=f"in {path}"),
        framework=about["framework"],
        labels=tuple(about["labels"]),
        position=_position(about),
        accuracy=_accuracy(about),
    )


class Shelf:
    """The folder of a run's checkpoints: the last few and the best one."""

    def __init__(self, folder: Path, keep: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._keep = folder, keep

    def put(self, point: Savepoint, *, is_best: bool) -> Path:
        """Write a checkpoint, name it the best if it is, and only then remove the oldest ones."""
        path = self.path(point.position)
        write_savepoint(path, point)
        if is_best:
            self._name_best(path)
        left_by_killed = list(self._folder.glob(f".*{SUFFIX}.*"))
        for old in [*self.paths()[: -self._keep], *left_by_killed]:
            if old != self.best():
                old.unlink(missing_ok=True)
        return path

    def path(self, position: Position) -> Path:
        """Return the file of the checkpoint at a position."""
        return self._folder / f"{position.epoch:04d}-{position.step:06d}{SUFFIX}"

    def mend(self, position: Position) -> None:
        """Name the best checkpoint of a run that was killed before it could."""
        if (
            position.best_epoch is not None
            and (best := self.path(Position(epoch=position.best_epoch))).exists()
        ):
            self._name_best(best)

    def _name_best(self, path: Path) -> None:
        link = self._folder / f".{BEST}"
        link.unlink(missing_ok=True)
        link.symlink_to(path.name)
        link.replace(self._folder / BEST)

    def kept(self) -> str:
        """Say what is left of a training that failed."""
        newest = self.newest()
        return f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"

    def paths(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        return sorted(path for path in self._folder.glob(NAMES))

    def newest(self) -> Path | None:
        """Return the last checkpoint."""
        return next(reversed(self.paths()), None)

    def best(self) -> Path | None:
        """Return the best checkpoint, by its own name."""
        link = self._folder / BEST
        return self._folder / link.readlink() if link.is_symlink() else None


def _prefixed(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{prefix}{name}": array for name, array in tensors.items()}


def _savepoint(about: dict[str, Any], tensors: dict[str, Array], path: Path) -> Savepoint:
    def with_prefix(prefix: str) -> dict[str, Array]:
        names = [name for name in tensors if name.startswith(prefix)]
        return {name.removeprefix(prefix): tensors.pop(name) for name in names}

    raw, velocities = with_prefix(_RAW), with_prefix(_VELOCITY)
    return Savepoint(
        recipe=parse_recipe(about["recipe"], where=f"in {path}"),
        framework=about["framework"],
        labels=tuple(about["labels"]),
        devices=about["devices"],
        pictures=about["pictures"],
        position=_position(about),
        accuracy=_accuracy(about),
        state=State(
            weights=tensors, raw=raw, velocities=velocities, loss_scale=LossScale(**about["loss_scale"])
        ),
    )


def _check_state(point: Savepoint) -> None:
    network, state = point.recipe.network.describe(), point.state
    shapes = parameter_shapes(network)
    for weights in filter(None, (state.weights, state.raw)):
        check_weights(network, weights)
    for name, velocity in state.velocities.items():
        if velocity.shape != shapes.get(name):
            raise ValueError(f"{_VELOCITY}{name} is {velocity.shape} and not {shapes.get(name)}")


def _position(about: dict[str, Any]) -> Position:
    return Position(**about["position"] | {"losses": float.fromhex(about["position"]["losses"])})


def _accuracy(about: dict[str, Any]) -> Accuracy | None:
    return about["accuracy"] and Accuracy(**about["accuracy"])
