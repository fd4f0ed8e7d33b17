"""The loop: recipe, learner and pictures -> steps, evaluations and checkpoints, until the last epoch.

Every process of a training runs it; the first one writes, and tells the watchers.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.errors import TrainingFailedError
from models.training.datasets import Dataset
from models.training.evaluation import Evaluation, evaluate
from models.training.feeding import Feed
from models.training.learner import Learner, Step
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

    Raises TrainingFailedError for a loss that is no number; InvalidValueError for a damaged picture and OSError for a
    full disk. Checkpoints that were written before stay.
    """
    recipe, learner, feed = training.recipe, training.learner, training.feed
    rate_of = rates(recipe.schedule, steps_per_epoch=feed.steps, epochs=recipe.epochs)
    for epoch in range(position.epoch, recipe.epochs):
        clock = time.monotonic()
        for batches in feed.epoch(epoch, position.step):
            number = epoch * feed.steps + position.step
            step = learner.step(batches, rate_of[number])
            _check(training, step, number)
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
        position = _end_epoch(training, position)
    return position


def _check(training: Training, step: Step, number: int) -> None:
    if math.isfinite(step.loss) and not (step.is_skipped and training.learner.loss_scale.factor <= 1):
        return
    if step.is_skipped and training.learner.loss_scale.factor > 1:
        return  # a smaller loss scale may help, and the weights are as they were
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
    is_best = evaluation is not None and (ended.best_top1 is None or evaluation.top1 > ended.best_top1)
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
    for (
        watcher
    ) in training.watchers:  # before the checkpoint: what follows the last one is told again on resuming
        watcher.epoch_ended(record)
    if is_saved:
        _save(training, ended, evaluation=evaluation, is_best=is_best)
    return ended


def _save(training: Training, position: Position, *, evaluation: Evaluation | None, is_best: bool) -> None:
    """Write a checkpoint in the first process."""
    learner = training.learner
    if learner.world.rank:
        return
    point = Savepoint(
        recipe=training.recipe,
        framework=learner.framework,
        labels=training.labels,
        devices=learner.world.size,
        position=position,
        accuracy=_accuracy(evaluation) if evaluation else None,
        state=learner.state(),
    )
    training.shelf.put(point, is_best=is_best)


def _accuracy(evaluation: Evaluation) -> Accuracy:
    return Accuracy(top1=evaluation.top1, top5=evaluation.top5, n=evaluation.n)
