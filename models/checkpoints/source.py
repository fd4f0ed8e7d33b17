"""Take a checkpoint as the source of a bundle: file -> network, weights and what the manifest says of them."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from models.bundle import Source
from models.checkpoints.convert import Imported, Wish, import_weights
from models.checkpoints.files import Format, read_checkpoint
from models.errors import InvalidValueError
from models.manifest import AccuracySection, ProvenanceSection
from models.networks import Network
from models.training.savepoints import Origin, read_origin

_FRAMEWORKS: dict[Format, str | None] = {
    "ckpt": "mindspore",
    "pth": "pytorch",
    "legacy pth": "pytorch",
    "safetensors": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A network and the source of its bundle; the origin of what our own trainer has trained."""

    network: Network
    source: Source
    origin: Origin | None


def trained(path: Path, wish: Wish, *, stem_pool: Literal["ceil", "padded"] | None = None) -> Trained:
    """Return what a checkpoint holds; what it does not say of itself is seen in its names and its format.

    Raises InvalidValueError where the file fits no network, or does not tell how its stem pools.
    """
    checkpoint = read_checkpoint(path)
    origin = read_origin(path)
    imported = import_weights(checkpoint, _completed(wish, origin))
    provenance = ProvenanceSection(
        untrained=False,
        recipe=origin.recipe.name if origin else None,
        framework=origin.framework
        if origin
        else imported.dialects[0].framework or _FRAMEWORKS[checkpoint.format],
        checkpoint_sha256=_sha256(path),
        seed=origin.recipe.seed if origin else None,
    )
    pool = stem_pool or (origin.recipe.network.describe().stem_pool if origin else _stem_pool(imported, path))
    return Trained(
        network=replace(imported.network, stem_pool=pool),
        source=Source(
            weights=imported.weights, provenance=provenance, accuracy=_accuracy(origin) if origin else None
        ),
        origin=origin,
    )


def _completed(wish: Wish, origin: Origin | None) -> Wish:
    if origin is None:
        return wish
    trained = origin.recipe.network
    return Wish(
        network=wish.network or trained.name,
        classes=wish.classes or trained.classes,
        width=wish.width or trained.width,
    )


def _accuracy(origin: Origin) -> AccuracySection | None:
    if origin.accuracy is None:
        return None
    return AccuracySection(dataset=origin.recipe.data.evaluation_name, **asdict(origin.accuracy))


def _stem_pool(imported: Imported, path: Path) -> Literal["ceil", "padded"] | None:
    pools = {dialect.stem_pool or imported.network.stem_pool for dialect in imported.dialects}
    if len(pools) > 1:
        names = " or ".join(dialect.name for dialect in imported.dialects)
        raise InvalidValueError(
            f"the names in checkpoint {path} are those of {names}, whose stems pool differently;"
            " say which by --stem-pool ceil (MindSpore) or --stem-pool padded (torchvision, timm)"
        )
    return pools.pop()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
