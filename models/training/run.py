"""Start a training, or take it up again: recipe, framework, device and a folder -> a trained network in that folder.

The folder holds recipe.yaml, log.jsonl, tensorboard/, report.html, and checkpoints/: the last ones, named by epochs
and steps, and the best.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.checkpoints import Wish, import_weights, read_checkpoint
from models.errors import InvalidValueError
from models.initial import initial_weights, whitened_stem
from models.networks import Network
from models.storage import Mirror, alone, cache_folder, fetched
from models.training.datasets import Dataset, open_dataset
from models.training.feeding import Feed
from models.training.learner import Learner
from models.training.loop import Training, train
from models.training.progress import Progress
from models.training.recipe import Recipe, as_document
from models.training.report import Report, ReportWriter
from models.training.savepoints import Position, Savepoint, Shelf, read_savepoint
from models.training.sending import CHECKPOINTS, Sending
from models.training.watching import JsonLines, Watcher
from models.weights import Array, Weights

Framework: TypeAlias = Literal["torch", "mindspore", "mindspore-split"]

_LEARNERS: dict[Framework, tuple[str, dict[str, bool]]] = {
    "torch": ("models.training.torch_learner", {}),
    "mindspore": ("models.training.mindspore_learner", {}),
    "mindspore-split": ("models.training.mindspore_learner", {"is_split": True}),
}

_WITHOUT_EFFECT = ("data.workers", "data.is_cached")  # on what is learnt

_LOOKED_AT, _AT_ONCE = 1000, 10  # pictures whose patches whiten the stem


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked for; `device` is auto, cpu, gpu or npu. The folder is sent to the URL `mirror`, if there is one.

    `watchers` are told of the training beside the run's own.
    """

    recipe: Recipe
    framework: Framework
    device: str
    folder: Path
    is_resumed: bool
    mirror: str | None = None
    watchers: Sequence[Watcher] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a training came to, as one of its processes sees it."""

    rank: int
    best: Path | None
    newest: Path | None
    top1: float | None


def run(order: Order) -> Ended:
    """Train to the end of the recipe.

    Raises InvalidValueError before the first step, for what cannot be used; TrainingFailedError after it;
    TransferFailedError for what could not be fetched or, in the end, sent.
    """
    recipe, network = order.recipe, order.recipe.network.describe()
    mirror = Mirror(order.mirror) if order.mirror else None
    shelf = Shelf(order.folder / "checkpoints", recipe.checkpoints.keep)
    point = _resumed(order, shelf, mirror)
    pictures = open_dataset(recipe.data, "train", seed=recipe.seed, classes=network.classes)
    evaluation = _evaluation(recipe, network, pictures)
    weights = point.state.weights if point else _first_weights(recipe, network, pictures)
    learner = build_learner(order.framework, recipe, weights, device=order.device)
    with ExitStack() as ending:
        ending.callback(learner.world.close)
        is_first = learner.world.rank == 0
        if is_first:
            ending.enter_context(_held(order.folder))
        if point:
            _check_devices(point, learner)
            _check_pictures(point, pictures)
            learner.restore(point.state)
            if is_first:
                shelf.mend(point.position)
        position = point.position if point else Position()
        feed = Feed(recipe, pictures, learner.world)
        taken = position.epoch * feed.steps + position.step
        watchers = _watchers(order, learner, pictures.names, taken) if is_first else []
        sending = Sending(mirror, order.folder, shelf) if mirror and is_first else None
        if sending:
            watchers.append(sending)
        training = Training(
            recipe=recipe,
            learner=learner,
            feed=feed,
            labels=pictures.names,
            evaluation=evaluation,
            shelf=shelf,
            watchers=watchers,
        )
        position = _trained(training, position)
        if sending:
            sending.check()
    return Ended(rank=learner.world.rank, best=shelf.best(), newest=shelf.newest(), top1=position.best_top1)


def _trained(training: Training, position: Position) -> Position:
    """Train, and let those who watch finish."""
    try:
        return train(training, position)
    finally:
        for watcher in training.watchers:
            with suppress(OSError):  # what was wrong with the disk has been told
                watcher.close()


def _watchers(order: Order, learner: Learner, labels: Sequence[str], taken: int) -> list[Watcher]:
    """Return those who watch a run that has taken so many steps already; the report is of the log."""
    recipe, log = order.recipe, order.folder / "log.jsonl"
    (order.folder / "recipe.yaml").write_text(recipe.text(), encoding="utf-8")
    facts = {
        "Framework": learner.framework,
        "Devices": f"{learner.world.size}",
        "Seed": f"{recipe.seed}",
        "Pictures of evaluation": recipe.data.evaluation_name,
    }
    network = recipe.network
    title = f"{recipe.name}: {network.name}, width {network.width:g}, {network.classes} classes"
    report = Report(title=title, facts=facts, labels=labels, recipe=recipe.text())
    watchers: list[Watcher] = [JsonLines(log, resumed_at=taken), Progress(sys.stderr)]
    if find_spec("tensorboardX"):
        from models.training.tensorboard import TensorBoard  # noqa: PLC0415 - an extra

        watchers.append(TensorBoard(order.folder / "tensorboard", resumed_at=taken))
    return [*watchers, *order.watchers, ReportWriter(order.folder / "report.html", log, report)]


def _resumed(order: Order, shelf: Shelf, mirror: Mirror | None) -> Savepoint | None:
    """Return where the run stood, in the folder or, if that is lost or older, in its mirror.

    Refuses to go on with another recipe, or over another run.
    """
    if not order.is_resumed:
        _check_nothing_there(order, shelf, mirror)
        return None
    if mirror and _newest_name(mirror) > (shelf.newest() or Path()).name:
        mirror.fetch(order.folder)
    newest = shelf.newest()
    if newest is None:
        return None
    point = _read(newest, shelf)
    then, now = _flat(as_document(point.recipe)), _flat(as_document(order.recipe))
    changed = [
        f"{key} was {then.get(key)} and is {now.get(key)}"
        for key in dict.fromkeys([*then, *now])
        if key not in _WITHOUT_EFFECT and then.get(key) != now.get(key)
    ]
    if changed:
        raise InvalidValueError(
            f"the run in {order.folder} had another recipe: {'; '.join(changed)};"
            " allowed is the same one, or a new run with start.checkpoint"
        )
    return point


def _newest_name(mirror: Mirror) -> str:
    """Return the name of the last checkpoint that was sent, or nothing."""
    return max((Path(name).name for name in mirror.names() if fnmatch(name, CHECKPOINTS)), default="")


def _read(newest: Path, shelf: Shelf) -> Savepoint:
    try:
        return read_savepoint(newest)
    except InvalidValueError as error:
        older = shelf.paths()[:-1]
        hint = f"; if it is removed, --resume goes on from {older[-1].name}" if older else ""
        raise InvalidValueError(f"{error}{hint}") from error


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values by their keys, with dots for sections, as they are overridden."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep other trainings out of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with alone(folder / ".lock", waits=False):
            yield
    except BlockingIOError as error:
        raise InvalidValueError(
            f"another training writes into {folder}; allowed is another --output, or to wait for its end"
        ) from error


def _check_nothing_there(order: Order, shelf: Shelf, mirror: Mirror | None) -> None:
    if newest := shelf.newest():
        raise InvalidValueError(
            f"{order.folder} holds a run with the checkpoint {newest.name}; go on with it by --resume,"
            " or choose another --output"
        )
    if mirror and (sent := _newest_name(mirror)):
        raise InvalidValueError(
            f"{order.mirror} holds a run with the checkpoint {sent}; go on with it by --resume,"
            " or choose another --mirror"
        )


def _check_devices(point: Savepoint, learner: Learner) -> None:
    if point.devices != learner.world.size:
        raise InvalidValueError(
            f"the run was on {point.devices} devices and is resumed on {learner.world.size}; allowed are as many,"
            " or a new run with start.checkpoint"
        )


def _check_pictures(point: Savepoint, pictures: Dataset) -> None:
    if point.labels != pictures.names:
        differing = sorted(set(point.labels) ^ set(pictures.names)) or ["their order"]
        raise InvalidValueError(
            f"the run was on other classes than the pictures have: {', '.join(differing)} differ;"
            " allowed are the same, or a new run with start.checkpoint"
        )
    if point.pictures != len(pictures):
        raise InvalidValueError(
            f"the run was on {point.pictures} pictures, and there are {len(pictures)}; allowed are as many,"
            " or a new run with start.checkpoint"
        )


def _evaluation(recipe: Recipe, network: Network, pictures: Dataset) -> Dataset | None:
    if recipe.data.format == "folder" and not recipe.data.evaluation:
        return None
    evaluation = open_dataset(recipe.data, "evaluation", seed=recipe.seed, classes=network.classes)
    if evaluation.names != pictures.names:
        differing = sorted(set(evaluation.names) ^ set(pictures.names))
        raise InvalidValueError(
            f"{recipe.data.evaluation} and {recipe.data.train} have different classes: {', '.join(differing)}"
            " are in one of them; allowed are the same in both"
        )
    return evaluation


def _first_weights(recipe: Recipe, network: Network, pictures: Dataset) -> dict[str, Array]:
    drawn = initial_weights(network, recipe.start.initial(network.name), recipe.seed)
    if recipe.start.whitens_stem:
        drawn["conv1.weight"] = whitened_stem(network, _some_planes(recipe, pictures))
    if not recipe.start.checkpoint:
        return drawn
    path = fetched(recipe.start.checkpoint, cache_folder())
    if not path.exists():
        raise InvalidValueError(f"start.checkpoint is {path}, which is not there")
    classes = None if recipe.start.replaces_head else network.classes
    imported = import_weights(
        read_checkpoint(path), Wish(network=network.name, classes=classes, width=network.width)
    )
    pools = {dialect.stem_pool for dialect in imported.dialects} - {None}
    if len(pools) == 1 and network.stem_pool not in pools:
        raise InvalidValueError(
            f"start.checkpoint is {path}, whose stem pools {pools.pop()}, and network.stem_pool is"
            f" {network.stem_pool}; allowed is the same"
        )
    if not recipe.start.replaces_head:
        return imported.weights
    return imported.weights | {name: drawn[name] for name in ("fc.weight", "fc.bias")}


def _some_planes(recipe: Recipe, pictures: Dataset) -> Iterator[NDArray[np.float32]]:
    """Yield normalised planes of some training pictures, a few at a time; the same ones for the same seed."""
    preprocessing = recipe.preprocessing.build()
    some = np.random.default_rng(recipe.seed).permutation(len(pictures))[:_LOOKED_AT]
    for part in np.array_split(some, -(-len(some) // _AT_ONCE)):
        rows = np.stack([preprocessing.rows(pictures.picture(int(index))) for index in part])
        yield preprocessing.planes(rows)


def build_learner(framework: Framework, recipe: Recipe, weights: Weights, *, device: str) -> Learner:
    """Return a network in a framework; raises InvalidValueError where that is not installed."""
    module, choices = _LEARNERS[framework]
    try:
        learner: Learner = import_module(module).build(recipe, weights, device=device, **choices)
    except ModuleNotFoundError as error:
        raise InvalidValueError(
            f"framework is {framework}, but {error.name} is not installed; see README.md, To train"
        ) from error
    return learner
