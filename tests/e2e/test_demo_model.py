"""The demo model answers real pictures through a server as well as its manifest promises."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bundles import manifest_of
from serving import ROOT, running

pytestmark = pytest.mark.e2e

DEMO = ROOT / "models" / "demo"
PICTURES = ROOT.parent / "shared" / "data" / "cifar10-jpeg.tar.xz"
EVERY = 20  # of the 10,000 of the test set
MARGIN = 0.04  # about three times what so few pictures differ by


def pictures(file: Path) -> Iterator[tuple[str, bytes]]:
    """Read some pictures of each class, with its name."""
    with tarfile.open(file) as archive:
        number = 0
        for member in archive:
            if member.name.startswith("train"):
                return  # the training set comes behind the other
            if member.isfile():
                number += 1
                if number % EVERY == 0 and (content := archive.extractfile(member)):
                    yield member.name.split("/")[1], content.read()


def test_the_share_of_pictures_that_it_knows_is_that_of_its_manifest() -> None:
    if not PICTURES.exists():
        pytest.skip(f"{PICTURES} is missing: the demo model is not tried on real pictures")
    promised = manifest_of(DEMO / "cifar10/1")["accuracy"]["top1"]
    with running(DEMO) as server, httpx.Client(base_url=f"{server.rest}/v1/models/cifar10") as client:
        found = [
            client.post("/classify?top_k=1", content=body).json()["results"][0]["classes"][0]["label"] == name
            for name, body in pictures(PICTURES)
        ]
    assert len(found) == 10_000 // EVERY
    assert sum(found) / len(found) == pytest.approx(promised, abs=MARGIN)
