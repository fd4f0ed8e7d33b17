"""Loads a version's directory: path -> Bundle, every byte of it as its manifest says.

Errors name file, key and value, so that whoever made the bundle can mend it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from service.repository.manifest import FILE_NAME, BundleFile, Manifest, ManifestError


class BundleError(Exception):
    """The bundle cannot be served; the message says which file, which key, which value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A checked bundle. The big artifacts stay on disk; labels and golden pictures are here."""

    model: str
    version: int
    directory: Path
    digest: str  # sha256 of the manifest, and so of all that it names
    manifest: Manifest
    labels: tuple[str, ...]
    golden_pictures: tuple[bytes, ...]


def load_bundle(directory: Path) -> Bundle:
    """Read and check the bundle in `<repository>/<model>/<version>`.

    Raises:
        BundleError: on the first thing that is not as the manifest says.
    """
    try:
        document = _read(directory, FILE_NAME)
        manifest = Manifest.parse(document)
    except ManifestError as error:
        raise BundleError(f"{FILE_NAME}: {error}") from error
    for file in manifest.files:
        check_digest(directory, file)
    return Bundle(
        model=directory.parent.name,
        version=int(directory.name),
        directory=directory,
        digest=hashlib.sha256(document).hexdigest(),
        manifest=manifest,
        labels=_labels(directory, manifest),
        golden_pictures=tuple(_read(directory, sample.file) for sample in manifest.golden.samples),
    )


def check_digest(directory: Path, file: BundleFile) -> None:
    """Raise BundleError unless the file is, byte for byte, the one that its bundle names."""
    try:
        with _inside(directory, file.file).open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{file.file}: {error.strerror}, but {FILE_NAME} names it") from error
    if found != file.sha256:
        raise BundleError(f"{file.file}: its sha256 is {found}, but {FILE_NAME} says {file.sha256}")


def _labels(directory: Path, manifest: Manifest) -> tuple[str, ...]:
    name = manifest.labels.file
    try:
        text = _read(directory, name).decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"{name}: is not UTF-8: {error}") from error
    labels = tuple(line.rstrip("\r") for line in text.removesuffix("\n").split("\n"))
    if len(labels) != manifest.classes:
        raise BundleError(f"{name}: has {len(labels)} lines, but {FILE_NAME} says classes {manifest.classes}")
    return labels


def _read(directory: Path, name: str) -> bytes:
    try:
        return _inside(directory, name).read_bytes()
    except OSError as error:
        raise BundleError(f"{name}: {error.strerror}") from error


def _inside(directory: Path, name: str) -> Path:
    """Refuse a link that leads out of the bundle."""
    path = directory / name
    try:
        target = path.resolve()
    except RuntimeError as error:  # what Python 3.11 and 3.12 make of links in a circle
        raise BundleError(f"{name}: is a link in a circle") from error
    if not target.is_relative_to(directory.resolve()):
        raise BundleError(f"{name}: leads out of the bundle, to {target}")
    return path
