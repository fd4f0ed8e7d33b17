"""The loop: recipe, learner and pictures -> steps, evaluations and checkpoints, until the last epoch.

Every process of a training runs it; the first one writes, and tells the watchers.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.errors import InvalidValueError, TrainingFailedError
from models.training.datasets import Dataset
from models.training.evaluation import Evaluation, evaluate
from models.training.feeding import Feed
from models.training.learner import Learner, State, Step
from models.training.recipe import Recipe
from models.training.savepoints import Accuracy, Position, Savepoint, Shelf
from models.training.schedules import rates
from models.training.watching import EpochRecord, StepRecord, Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Everything that takes part in a training; `evaluation` is None where nothing is measured."""

    recipe: Recipe
    learner: Learner
    feed: Feed
    labels: tuple[str, ...]
    evaluation: Dataset | None
    shelf: Shelf
    watchers: Sequence[Watcher]


def train(training: Training, position: Position) -> Position:
    """Train from a position to the end of the recipe, and return the last position.

    Raises TrainingFailedError for a loss that is no number, a damaged picture or a full disk, with the step.
    Checkpoints that were written before stay.
    """
    reached = position
    try:
        for reached in _positions(training, position):  # noqa: B007 - it says where a fault was met
            pass
    except (InvalidValueError, OSError) as error:
        step = reached.epoch * training.feed.steps + reached.step + 1
        raise TrainingFailedError(f"{error}, at step {step}; {training.shelf.kept()}") from error
    return reached


def _positions(training: Training, position: Position) -> Iterator[Position]:
    """Train, and yield each position that is reached."""
    recipe, learner, feed = training.recipe, training.learner, training.feed
    rate_of = rates(recipe.schedule, steps_per_epoch=feed.steps, epochs=recipe.epochs)
    for epoch in range(position.epoch, recipe.epochs):
        clock = time.monotonic()
        for batches in feed.epoch(epoch, position.step):
            number = epoch * feed.steps + position.step
            scale = learner.loss_scale.factor
            step = learner.step(batches, rate_of[number])
            _check(training, step, number, scale)
            position = _moved(position, step)
            began, clock = clock, time.monotonic()
            record = StepRecord(
                epoch=epoch + 1,
                step=number + 1,
                steps=len(rate_of),
                rate=float(rate_of[number]),
                loss=step.loss,
                is_skipped=step.is_skipped,
                loss_scale=learner.loss_scale.factor,
                images_per_s=feed.rows_per_step / (clock - began),
            )
            for watcher in training.watchers:
                watcher.stepped(record)
            every = recipe.checkpoints.every_steps
            if every and position.step % every == 0 and position.step < feed.steps:
                learner.agree()
                _save(training, position, evaluation=None, is_best=False)
            yield position
        position = _end_epoch(training, position)
        yield position


def _check(training: Training, step: Step, number: int, scale: float) -> None:
    """Refuse a step that came to no number, unless a smaller loss scale than this one may help."""
    if step.is_skipped and scale > 1:
        return  # the weights are as they were
    if math.isfinite(step.loss) and not step.is_skipped:
        return
    what = "the gradients overflow at a loss scale of 1" if step.is_skipped else f"the loss is {step.loss}"
    raise TrainingFailedError(f"{what} at step {number + 1}; {training.shelf.kept()}")


def _moved(position: Position, step: Step) -> Position:
    if not math.isfinite(step.loss):
        return replace(position, step=position.step + 1)
    return replace(
        position, step=position.step + 1, losses=position.losses + step.loss, counted=position.counted + 1
    )


def _end_epoch(training: Training, position: Position) -> Position:
    """Measure and save where it is time to, and tell the watchers."""
    recipe, learner = training.recipe, training.learner
    loss = position.losses / position.counted if position.counted else math.nan
    ended = Position(epoch=position.epoch + 1, best_top1=position.best_top1, best_epoch=position.best_epoch)
    is_last = ended.epoch == recipe.epochs
    learner.agree()
    evaluation = None
    if training.evaluation and (is_last or ended.epoch % recipe.evaluate_every == 0):
        evaluation = evaluate(
            learner.logits,
            training.evaluation,
            recipe.preprocessing.build(),
            learner.world,
            batch=recipe.batch,
            workers=recipe.data.workers,
        )
    if evaluation and is_last and not math.isfinite(evaluation.loss):
        # Not before: in the first epochs norms may still lack statistics.
        raise TrainingFailedError(
            f"the evaluation loss is {evaluation.loss} in the end; {training.shelf.kept()}"
        )
    is_best = (
        evaluation is not None
        and math.isfinite(evaluation.loss)
        and (ended.best_top1 is None or evaluation.top1 > ended.best_top1)
    )
    if evaluation and is_best:
        ended = replace(ended, best_top1=evaluation.top1, best_epoch=ended.epoch)
    is_saved = is_best or is_last or ended.epoch % recipe.checkpoints.every_epochs == 0
    record = EpochRecord(
        epoch=ended.epoch,
        step=ended.epoch * training.feed.steps,
        loss=loss,
        evaluation=evaluation,
        is_best=is_best,
        checkpoint=training.shelf.path(ended) if is_saved else None,
    )
    for watcher in training.watchers:  # before the checkpoint: what follows that is told again on resuming
        watcher.epoch_ended(record)
    if is_saved:
        _save(training, ended, evaluation=evaluation, is_best=is_best)
    return ended


def _save(training: Training, position: Position, *, evaluation: Evaluation | None, is_best: bool) -> None:
    """Write a checkpoint in the first process, unless the last step came to no numbers, which no loss tells of yet."""
    learner = training.learner
    if learner.world.rank:
        return
    state = learner.state()
    if not _is_finite(state):
        step = position.epoch * training.feed.steps + position.step
        raise TrainingFailedError(f"the weights overflow after step {step}; {training.shelf.kept()}")
    point = Savepoint(
        recipe=training.recipe,
        framework=learner.framework,
        labels=training.labels,
        devices=learner.world.size,
        position=position,
        accuracy=_accuracy(evaluation) if evaluation else None,
        pictures=training.feed.pictures,
        state=state,
    )
    training.shelf.put(point, is_best=is_best)


def _is_finite(state: State) -> bool:
    kinds = (state.weights, state.raw, state.velocities)
    return all(np.isfinite(array).all() for arrays in kinds for array in arrays.values())


def _accuracy(evaluation: Evaluation) -> Accuracy:
    return Accuracy(top1=evaluation.top1, top5=evaluation.top5, n=evaluation.n)
