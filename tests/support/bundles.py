"""What a bundle on disk holds, for tests of those that are committed."""

import hashlib
import json
from pathlib import Path
from typing import Any


def manifest_of(bundle: Path) -> dict[str, Any]:
    """Read the manifest."""
    return dict(json.loads((bundle / "model.json").read_text()))


def size_of(folder: Path) -> int:
    """Add up all files, in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def assert_every_file_is_declared(bundle: Path) -> None:
    """Compare the files with those of the manifest, by their digests."""
    manifest = manifest_of(bundle)
    entries = [manifest["labels"], *manifest["artifacts"], *manifest["golden"]["samples"]]
    files = [path for path in bundle.rglob("*") if path.is_file() and path.name != "model.json"]
    assert {entry["file"]: entry["sha256"] for entry in entries} == {
        path.relative_to(bundle).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
