"""Start a training, or take it up again: recipe, framework, device and a folder -> a trained network in that folder.

The folder holds recipe.yaml, log.jsonl, tensorboard/, report.html, and checkpoints/: the last ones, named by epochs
and steps, and the best.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.checkpoints import Wish, import_weights, read_checkpoint
from models.errors import InvalidValueError, TrainingFailedError
from models.initial import initial_weights, whitened_stem
from models.networks import Network
from models.storage import Mirror, cache_folder, fetched
from models.training.datasets import Dataset, open_dataset
from models.training.feeding import Feed
from models.training.learner import Learner
from models.training.loop import Training, train
from models.training.progress import Progress
from models.training.recipe import Recipe, as_document
from models.training.report import Report, ReportWriter
from models.training.savepoints import Position, Savepoint, Shelf, read_savepoint
from models.training.sending import Sending
from models.training.watching import JsonLines, Watcher
from models.weights import Array, Weights

Framework: TypeAlias = Literal["torch", "mindspore", "mindspore-split"]

_LEARNERS: dict[Framework, tuple[str, dict[str, bool]]] = {
    "torch": ("models.training.torch_learner", {}),
    "mindspore": ("models.training.mindspore_learner", {}),
    "mindspore-split": ("models.training.mindspore_learner", {"is_split": True}),
}

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
    try:
        if point:
            _check_devices(point, learner)
            learner.restore(point.state)
            if learner.world.rank == 0:
                shelf.mend(point.position)
        position = point.position if point else Position()
        feed = Feed(recipe, pictures, learner.world)
        taken = position.epoch * feed.steps + position.step
        watchers = _watchers(order, learner, pictures.names, taken) if learner.world.rank == 0 else []
        sending = Sending(mirror, order.folder, shelf) if mirror and learner.world.rank == 0 else None
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
    finally:
        learner.world.close()
    return Ended(rank=learner.world.rank, best=shelf.best(), newest=shelf.newest(), top1=position.best_top1)


def _trained(training: Training, position: Position) -> Position:
    """Train; tell of a damaged picture or a full disk what is left of the run."""
    try:
        return train(training, position)
    except (InvalidValueError, OSError) as error:
        raise TrainingFailedError(f"{error}; {training.shelf.kept()}") from error
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
    """Return where the run stood, in the folder or, if it is lost, in its mirror.

    Refuses to go on with another recipe, or over another run.
    """
    if not order.is_resumed:
        _check_nothing_there(order, shelf, mirror)
        return None
    if mirror and not shelf.newest():
        mirror.fetch(order.folder)
    newest = shelf.newest()
    if newest is None:
        return None
    point = read_savepoint(newest)
    then, now = as_document(point.recipe), as_document(order.recipe)
    changed = [f"{key} was {then[key]} and is {now[key]}" for key in now if then[key] != now[key]]
    if changed:
        raise InvalidValueError(
            f"the run in {order.folder} had another recipe: {'; '.join(changed)};"
            " allowed is the same one, or a new run with start.checkpoint"
        )
    return point


def _check_nothing_there(order: Order, shelf: Shelf, mirror: Mirror | None) -> None:
    if newest := shelf.newest():
        raise InvalidValueError(
            f"{order.folder} holds a run with the checkpoint {newest.name}; go on with it by --resume,"
            " or choose another --output"
        )
    checkpoints = [name for name in mirror.names() if name.startswith("checkpoints/")] if mirror else []
    if checkpoints:
        raise InvalidValueError(
            f"{order.mirror} holds a run with {checkpoints[0]}; go on with it by --resume,"
            " or choose another --mirror"
        )


def _check_devices(point: Savepoint, learner: Learner) -> None:
    if point.devices != learner.world.size:
        raise InvalidValueError(
            f"the run was on {point.devices} devices and is resumed on {learner.world.size}; allowed are as many,"
            " or a new run with start.checkpoint"
        )


def _evaluation(recipe: Recipe, network: Network, pictures: Dataset) -> Dataset | None:
    if recipe.data.format != "synthetic" and not recipe.data.evaluation:
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
