"""The model repository: a directory of bundles -> models that are loaded, verified and served.

manifest.py    model.json -> a checked Manifest
bundle.py      a version's directory -> a Bundle whose every file has its sha256
lineup.py      a Bundle and the settings -> which engine runs it on which device
model.py       a Bundle -> engines and queue, verified on its golden samples
repository.py  the directory -> the models, whatever state each is in
"""

from service.repository.bundle import BundleError, load_bundle
from service.repository.lineup import ServingOptions, line_up
from service.repository.model import ServedModel
from service.repository.repository import Repository, RepositoryError, Slot

__all__ = [
    "BundleError",
    "Repository",
    "RepositoryError",
    "ServedModel",
    "ServingOptions",
    "Slot",
    "line_up",
    "load_bundle",
]
