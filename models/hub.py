"""Load a network for code that wants the object: name, framework, weights -> a module or cell that answers."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from models.checkpoints import Wish
from models.checkpoints.source import trained
from models.errors import InvalidValueError
from models.initial import REFERENCE_INITIALISATIONS, initial_weights
from models.networks import Network, describe
from models.preprocessing import Preprocessing, standard_preprocessing
from models.unfolding import unfold
from models.weights import Weights

Framework: TypeAlias = Literal["torch", "mindspore"]
Pool: TypeAlias = Literal["ceil", "padded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A network in evaluation mode: PyTorch's module or MindSpore's cell, and how it takes pictures.

    `module` answers logits (n, classes) to normalised planes (n, 3, side, side), which `preprocessing` makes;
    `labels` are those of the bundle, or of the training, that it comes from.
    """

    network: Network
    module: Any
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    network: Network
    weights: Weights
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None = None


def load(  # noqa: PLR0913 - as in the hubs of the frameworks, what is not the usual is told by name
    name: str,
    *,
    framework: Framework = "torch",
    weights: str | Path | None = None,
    classes: int | None = None,
    width: float | None = None,
    stem_pool: Pool | None = None,
) -> Loaded:
    """Return a network with the weights of a checkpoint file of any format, or of a bundle's folder.

    Without `weights` they are those that the network's reference begins with. A bundle and a checkpoint of our
    trainer tell the preprocessing; where nothing does it is the standard of ImageNet. The weights fit, all of
    them, or InvalidValueError tells what does not; as it does for a name or a framework that is none.
    """
    describe(name)  # before a framework is imported, which takes seconds
    if framework not in _BUILDERS:
        raise InvalidValueError(f"framework is {framework!r}; allowed are {', '.join(map(repr, _BUILDERS))}")
    wish = Wish(network=name, classes=classes, width=width)
    found = _begun(name, wish, stem_pool) if weights is None else _stored(Path(weights), wish, stem_pool)
    return Loaded(
        network=found.network,
        module=_BUILDERS[framework](found.network, found.weights),
        preprocessing=found.preprocessing,
        labels=found.labels,
    )


def _begun(name: str, wish: Wish, pool: Pool | None) -> _Found:
    width = 1.0 if wish.width is None else wish.width
    network = describe(name, classes=wish.classes, width=width)
    network = replace(network, stem_pool=pool or network.stem_pool)
    weights = initial_weights(network, REFERENCE_INITIALISATIONS[name], seed=1)
    return _Found(network=network, weights=weights, preprocessing=standard_preprocessing(224))


def _stored(path: Path, wish: Wish, pool: Pool | None) -> _Found:
    if not path.is_dir():
        checkpoint = trained(path, wish, stem_pool=pool)
        origin = checkpoint.origin
        return _Found(
            network=checkpoint.network,
            weights=checkpoint.source.weights,
            preprocessing=origin.recipe.preprocessing.build() if origin else standard_preprocessing(224),
            labels=origin.labels if origin else None,
        )
    held = unfold(path)
    asked = {"name": wish.network, "classes": wish.classes, "width": wish.width, "stem_pool": pool}
    for field, value in asked.items():
        if value not in (None, of_bundle := getattr(held.network, field)):
            raise InvalidValueError(f"{field} is {value!r}; allowed is that of bundle {path}, {of_bundle!r}")
    return _Found(
        network=held.network, weights=held.weights, preprocessing=held.preprocessing, labels=held.labels
    )


def _torch(network: Network, weights: Weights) -> Any:
    from models.frameworks import torch_network  # noqa: PLC0415 - torch is not always there, and starts slowly

    module = torch_network.build(network)
    torch_network.load(module, weights)
    return module.eval()


def _mindspore(network: Network, weights: Weights) -> Any:
    from models.frameworks import mindspore_network  # noqa: PLC0415 - as torch

    cell = mindspore_network.build(network)
    mindspore_network.load(cell, weights)
    return cell.set_train(False)


_BUILDERS = {"torch": _torch, "mindspore": _mindspore}
