"""The learning rate of every step: Schedule, steps an epoch, epochs -> (steps,) floats. Pure functions.

Those of the references are here with their formulas: i is the step and e the epoch, from 0; of T steps W warm up.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

Rates: TypeAlias = NDArray[np.floating]
Amount: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The steps of a training, and how many of them are an epoch, and warm up."""

    total: int
    epoch: int
    warmup: int

    def progress(self, i: NDArray[np.integer]) -> Rates:
        """Return how far each step is after the warm-up: 0, to less than 1."""
        return np.clip((i - self.warmup) / self.rest, 0, 1)

    @property
    def rest(self) -> int:
        """Return the steps after the warm-up."""
        return max(self.total - self.warmup, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Schedule:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    rate: Annotated[Positive, Field(le=1e6)]
    warmup_epochs: Amount = 0

    def faults(self, epochs: int) -> list[str]:
        """Return what contradicts itself, or the number of epochs."""
        if self.warmup_epochs <= epochs:
            return []
        return [
            f"schedule.warmup_epochs: allowed is at most epochs, {epochs}, and not {self.warmup_epochs:g}"
        ]

    def warming(self, i: NDArray[np.integer], span: Span) -> Rates:
        """Return the rates of the steps that warm up, the last of which has the whole rate."""
        return np.asarray(self.rate * (i + 1) / span.warmup)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochCosine(_Schedule):
    """Constant within an epoch: minimum + (rate - minimum) (1 + cos(pi e / cycle_epochs)) / 2.

    The phase counts from epoch 0, through the warm-up; `cycle_epochs` is the number of epochs by default.
    """

    kind: Literal["epoch_cosine"] = "epoch_cosine"
    cycle_epochs: Positive | None = None
    minimum: Amount = 0.0

    def after(self, i: NDArray[np.integer], span: Span) -> Rates:
        """Return the rates of the steps after the warm-up."""
        wave = 1 + np.cos(np.pi * (i // span.epoch) / (self.cycle_epochs or span.total / span.epoch))
        return np.asarray(self.minimum + (self.rate - self.minimum) * wave / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiStep(_Schedule):
    """The rate times gamma from each of these epochs on, whether or not it falls into the warm-up."""

    kind: Literal["multi_step"] = "multi_step"
    gamma: Positive = 0.1
    milestones: tuple[Positive, ...]

    def faults(self, epochs: int) -> list[str]:
        """Return what contradicts itself, or the number of epochs."""
        told = _Schedule.faults(self, epochs)
        if not self.milestones or list(self.milestones) != sorted(set(self.milestones)):
            told.append(f"schedule.milestones: allowed are rising epochs, and not {self.milestones}")
        elif self.milestones[-1] >= epochs:
            told.append(
                f"schedule.milestones: allowed is less than epochs, {epochs}, and not {self.milestones[-1]:g}"
            )
        return told

    def after(self, i: NDArray[np.integer], span: Span) -> Rates:
        """Return the rates of the steps after the warm-up."""
        bounds = [round(milestone * span.epoch) for milestone in self.milestones]
        return np.asarray(self.rate * self.gamma ** np.searchsorted(bounds, i, side="right"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _FromInitial(_Schedule):
    initial: Amount = 0.0

    def warming(self, i: NDArray[np.integer], span: Span) -> Rates:
        """Return the rates of the steps that warm up, the first of which has `initial`."""
        return np.asarray(self.initial + (self.rate - self.initial) * i / span.warmup)


@dataclass(frozen=True, slots=True, kw_only=True)
class Poly(_FromInitial):
    """The rate times (1 - (i - W) / (T - W)) to the power."""

    kind: Literal["poly"] = "poly"
    power: Positive = 2.0

    def after(self, i: NDArray[np.integer], span: Span) -> Rates:
        """Return the rates of the steps after the warm-up."""
        return np.asarray(self.rate * (1 - span.progress(i)) ** self.power)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps(_FromInitial):
    """1, 0.1, 0.01 and 0.001 of the rate, from 0, 0.3, 0.6 and 0.8 of all steps."""

    kind: Literal["steps"] = "steps"

    def after(self, i: NDArray[np.integer], span: Span) -> Rates:
        """Return the rates of the steps after the warm-up."""
        bounds = [math.ceil(share * span.total) for share in (0.3, 0.6, 0.8)]
        return np.asarray(self.rate * 0.1 ** np.searchsorted(bounds, i, side="right"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DampedCosine(_FromInitial):
    """The rate times (T - i) / (T - W) (1 + cos(0.94 pi i / (T - W))) / 2 + 1e-5."""

    kind: Literal["damped_cosine"] = "damped_cosine"

    def warming(self, i: NDArray[np.integer], span: Span) -> Rates:
        """Return the rates of the steps that warm up: a step ahead of the others'."""
        return _FromInitial.warming(self, i + 1, span)

    def after(self, i: NDArray[np.integer], span: Span) -> Rates:
        """Return the rates of the steps after the warm-up."""
        wave = 1 + np.cos(0.94 * np.pi * i / span.rest)
        return np.asarray(self.rate * ((span.total - i) / span.rest * wave / 2 + 1e-5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(_FromInitial):
    """Down to `final` in a straight line."""

    kind: Literal["linear"] = "linear"
    final: Amount = 0.0

    def after(self, i: NDArray[np.integer], span: Span) -> Rates:
        """Return the rates of the steps after the warm-up."""
        return np.asarray(self.rate - (self.rate - self.final) * span.progress(i))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCosine(_FromInitial):
    """Half a wave of the cosine, from the end of the warm-up down to `final`, new at every step."""

    kind: Literal["step_cosine"] = "step_cosine"
    final: Amount = 0.0

    def after(self, i: NDArray[np.integer], span: Span) -> Rates:
        """Return the rates of the steps after the warm-up."""
        wave = 1 + np.cos(np.pi * span.progress(i))
        return np.asarray(self.final + (self.rate - self.final) * wave / 2)


Schedule: TypeAlias = EpochCosine | MultiStep | Poly | Steps | DampedCosine | Linear | StepCosine


def rates(schedule: Schedule, *, steps_per_epoch: int, epochs: int) -> Rates:
    """Return the learning rate of every step of the training."""
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    span = Span(total=steps_per_epoch * epochs, epoch=steps_per_epoch, warmup=warmup)
    i = np.arange(span.total)
    return np.concatenate([schedule.warming(i[:warmup], span), schedule.after(i[warmup:], span)])
