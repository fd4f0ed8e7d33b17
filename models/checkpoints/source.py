"""Take a checkpoint as the source of a bundle: file -> network, weights and what the manifest says of them."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from models.bundle import Source
from models.checkpoints.convert import Imported, Wish, import_weights
from models.checkpoints.files import Format, read_checkpoint
from models.errors import InvalidValueError
from models.manifest import ProvenanceSection
from models.networks import Network

_FRAMEWORKS: dict[Format, str | None] = {
    "ckpt": "mindspore",
    "pth": "pytorch",
    "legacy pth": "pytorch",
    "safetensors": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A network and the source of its bundle."""

    network: Network
    source: Source


def trained(path: Path, wish: Wish, *, stem_pool: Literal["ceil", "padded"] | None = None) -> Trained:
    """Return what a checkpoint holds; the framework is that of its names or, where they are ours, of its format.

    Raises InvalidValueError where the file fits no network, or does not tell how its stem pools.
    """
    checkpoint = read_checkpoint(path)
    imported = import_weights(checkpoint, wish)
    provenance = ProvenanceSection(
        untrained=False,
        recipe=None,
        framework=imported.dialects[0].framework or _FRAMEWORKS[checkpoint.format],
        checkpoint_sha256=_sha256(path),
        seed=None,
    )
    network = replace(imported.network, stem_pool=stem_pool or _stem_pool(imported, path))
    return Trained(network=network, source=Source(weights=imported.weights, provenance=provenance))


def _stem_pool(imported: Imported, path: Path) -> Literal["ceil", "padded"]:
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
