"""Add a finished file to a bundle: a version and a file that was compiled from it -> the next version, with it."""

from pathlib import Path
from typing import Any

from models.content import Content, sha256_of
from models.errors import InvalidValueError
from models.manifest import MANIFEST_FILE, ArtifactSection, manifest_text, read_manifest, with_artifacts
from models.publish import newest_version, publish


def add_artifact(bundle: Path, file: Path, artifact: ArtifactSection) -> Path:
    """Publish the next version of a bundle's model: the same files, and this one; return its folder.

    It takes the place of what the bundle had for the same engine and target. Versions never change, so that a
    server can go back to the one before. Raises InvalidValueError when the bundle is not whole, or is no longer
    the newest: its weights would replace those of the newest.
    """
    bundle = bundle.absolute()
    newest = newest_version(bundle.parent)
    if bundle.name != str(newest):
        raise InvalidValueError(f"bundle is {bundle}; allowed is the newest version of its model, {newest}")
    document = with_artifacts(read_manifest(bundle), [artifact])
    files: dict[str, Content] = {MANIFEST_FILE: manifest_text(document).encode(), artifact.file: file}
    for name, sha256 in _digests(document).items():
        if name in files:
            continue
        files[name] = bundle / name
        if sha256_of(bundle / name) != sha256:
            raise InvalidValueError(f"{bundle / name} is not the file that {MANIFEST_FILE} names")
    return publish(files, repository=bundle.parent.parent, model=bundle.parent.name, version=newest + 1)


def _digests(document: dict[str, Any]) -> dict[str, str]:
    entries = [document["labels"], *document["artifacts"], *document["golden"]["samples"]]
    return {entry["file"]: entry["sha256"] for entry in entries}
