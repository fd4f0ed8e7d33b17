"""The model repository: a directory of bundles -> models that are loaded, verified and served.

manifest.py    model.json -> a checked Manifest
bundle.py      a version's directory -> a Bundle whose every file has its sha256
model.py       a Bundle -> engine and queue, verified on its golden samples
repository.py  the directory -> the models, whatever state each is in
"""

from service.repository.bundle import BundleError
from service.repository.model import ServedModel, ServingOptions
from service.repository.repository import Repository, RepositoryError, Slot

__all__ = ["BundleError", "Repository", "RepositoryError", "ServedModel", "ServingOptions", "Slot"]
