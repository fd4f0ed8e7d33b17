"""Carry weights between a file's dialect and our grammar: Checkpoint -> Imported; Weights -> Weights.

Whatever does not fit is told in one error, and nothing is taken over partially.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from models.checkpoints.dialects import DIALECT_NAMES, DIALECTS, Dialect, Stored, stored_tensors
from models.checkpoints.files import Checkpoint
from models.checkpoints.tensors import Tensor, Tensors, printable
from models.errors import InvalidValueError
from models.layers import topology
from models.networks import STEM_CHANNELS, Network, describe
from models.weights import Array, Weights, mismatches

# Put before every name by what wraps a network: data parallel, compilation, MindSpore's training cells.
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.|network\.)+")

# Beside the weights of the same network: states of optimizers and averages, counters, schedules.
_NO_WEIGHTS = re.compile(
    r"(?:raw|moments?|moment[12]|accum|stat|vhat|mean_square|mean_gradient|prev_gradient|ema)\..*"
    r"|(?:.*\.)?num_batches_tracked"
    r"|(?:global|current|epoch|step)_(?:step|epoch|num)|epoch|step|momentum|learning_rate|lr"
    r"|beta[12]_power|loss_scale|scale_sense|scale|current_iterator_step|last_overflow_iterator_step"
)
_FLOATS = ("float16", "float32", "float64")
_MAX_LISTED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the caller knows of a file's network; None is left to the file."""

    network: str | None = None
    classes: int | None = None
    width: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The weights of a file in our grammar; several dialects when they name this network alike."""

    network: Network
    dialects: tuple[Dialect, ...]
    weights: dict[str, Array]
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A network and a dialect, and how many of its tensors a file has by name, and by shape too, and how many not."""

    network: Network
    dialect: Dialect
    named: int
    shaped: int
    missing: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """What fits are compared by: of networks that have all of a file's tensors, the less deep one fits."""
        return self.named, self.shaped, -self.missing


def recognise(tensors: Tensors, wish: Wish) -> tuple[Fit, ...]:
    """Return the fits that are best, and equally good; none when fewer than half of the names are known."""
    fits = [fit for dialect in DIALECTS for fit in _fit(dialect, tensors, wish)]
    best = max((fit.rank for fit in fits), default=(0, 0, 0))
    named, *_ = best
    if 2 * named < len(tensors) or not named:
        return ()
    return tuple(fit for fit in fits if fit.rank == best)


def weights_only(tensors: Tensors) -> Tensors:
    """Return the tensors without wrappers' prefixes, and without those that are known to be no weights."""
    kept: Tensors = {}
    for full_name, tensor in tensors.items():
        name = _WRAPPERS.sub("", full_name)
        if _NO_WEIGHTS.fullmatch(name):
            continue
        if name in kept:
            raise InvalidValueError(f"{name!r} is there twice, with and without a prefix")
        kept[name] = tensor
    return kept


def import_weights(checkpoint: Checkpoint, wish: Wish) -> Imported:
    """Return a file's weights in our grammar, as float32.

    Raises InvalidValueError for names of no known dialect, and with a list of all that is missing, surplus
    or misshapen.
    """
    if wish.network is not None:
        describe(wish.network)
    try:
        return _imported(checkpoint.tensors, wish)
    except InvalidValueError as error:
        raise InvalidValueError(f"checkpoint {checkpoint.path} cannot be used: {error}") from error


def _imported(tensors: Tensors, wish: Wish) -> Imported:
    kept = weights_only(tensors)
    fits = recognise(kept, wish)
    if not fits:
        first = ", ".join(map(printable, list(kept)[:3]))
        raise InvalidValueError(
            f"its names, such as {first}, fit {wish.network or 'a network'} in no dialect;"
            f" known are {', '.join(DIALECT_NAMES)}"
        )
    network, dialect = fits[0].network, fits[0].dialect
    stored = stored_tensors(network, dialect)
    faults = list(_faults(stored, kept))
    if faults:
        raise InvalidValueError(
            f"it does not fit {network.name} ({network.classes} classes, width {network.width:g}) in"
            f" {dialect.name} names: {'; '.join(faults)}"
        )
    return Imported(
        network=network,
        dialects=tuple(fit.dialect for fit in fits),
        weights=_joined(kept, stored, network),
        dropped=len(tensors) - len(kept),
    )


def export_weights(network: Network, weights: Weights, dialect: Dialect) -> dict[str, Array]:
    """Return weights of our grammar in another; the arrays are views."""
    exported: dict[str, Array] = {}
    for name, stored in stored_tensors(network, dialect).items():
        pieces = np.split(weights[name], len(stored.names))
        exported |= {
            theirs: piece.reshape(stored.shape) for theirs, piece in zip(stored.names, pieces, strict=True)
        }
    return exported


def _fit(dialect: Dialect, tensors: Tensors, wish: Wish) -> Iterator[Fit]:
    if wish.network not in (None, dialect.network):
        return
    network = _network(dialect, tensors, wish)
    shapes = {name: how.shape for how in stored_tensors(network, dialect).values() for name in how.names}
    named = shapes.keys() & tensors.keys()
    shaped = sum(tensors[name].shape == shapes[name] for name in named)
    missing = len(shapes) - len(named)
    yield Fit(network=network, dialect=dialect, named=len(named), shaped=shaped, missing=missing)


def _network(dialect: Dialect, tensors: Tensors, wish: Wish) -> Network:
    """Describe the network with the classes and the width that the file's first and last tensor show."""
    stored = stored_tensors(describe(dialect.network), dialect)
    stem, head = (tensors.get(stored[name].names[0]) for name in ("conv1.weight", "fc.weight"))
    width, classes = wish.width, wish.classes
    if width is None and stem is not None and stem.shape:
        width = stem.shape[0] / STEM_CHANNELS
    if classes is None and head is not None and head.shape:
        classes = head.shape[0]
    with suppress(InvalidValueError):
        return describe(dialect.network, classes=classes, width=1.0 if width is None else width)
    # What the file shows is impossible; the faults are then told against what was asked for.
    return describe(dialect.network, classes=wish.classes, width=1.0 if wish.width is None else wish.width)


def _faults(stored: Mapping[str, Stored], tensors: Tensors) -> Iterator[str]:
    """Yield one sentence for each kind of fault."""
    shapes = {name: how.shape for how in stored.values() for name in how.names}
    for kind, found in mismatches(shapes, tensors, floats=_FLOATS).items():
        names = [printable(name) for name in found] if kind == "surplus" else found
        yield f"{len(found)} {kind}: {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_LISTED
    listed = ", ".join(names[:_MAX_LISTED])
    return f"{listed} and {more} more" if more > 0 else listed


def _joined(tensors: Tensors, stored: Mapping[str, Stored], network: Network) -> dict[str, Array]:
    shapes = topology(network).shapes()
    weights = {
        name: _float32([tensors[piece] for piece in how.names], shapes[name]) for name, how in stored.items()
    }
    infinite = [name for name, array in weights.items() if not np.isfinite(array).all()]
    if infinite:
        raise InvalidValueError(f"{len(infinite)} with values that are no numbers: {_listed(infinite)}")
    return weights


def _float32(pieces: Sequence[Tensor], shape: tuple[int, ...]) -> Array:
    with np.errstate(over="ignore"):  # what is too big for float32 becomes infinite, and is refused as that
        return np.concatenate(pieces, axis=0, dtype=np.float32, casting="same_kind").reshape(shape)
