"""The networks at full size: published from random weights, asked for by both doors, and computed by PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.bundle import untrained_source
from models.frameworks.forward import forward_of
from models.golden import softmax
from models.networks import Network
from models.preprocessing import standard_preprocessing
from pictures import encoded
from service.client import Client
from serving import RunningServer

NAMES = ("se_resnext50", "resnext101", "sknet50")

Scores = NDArray[np.float64]  # (photos, classes)

_LONGEST_S = 120.0


@dataclass(frozen=True)
class Answered:
    """What a server answered by one door."""

    engine: str
    scores: Scores
    best: list[list[int]]  # of each photo


def publish_words(name: str, repository: Path, lite_gears: str) -> list[str]:
    """Spell the command that publishes a network with the weights that by_pytorch() computes with."""
    golden = ["--golden", "onnx", "--lite-gears", lite_gears]
    return [
        "publish",
        "--network",
        name,
        "--untrained",
        "--seed",
        "1",
        *golden,
        "--repository",
        str(repository),
    ]


def by_rest(server: RunningServer, model: str, photos: Sequence[Image.Image]) -> Answered:
    """Ask for the photos one by one."""
    url = f"{server.rest}/v1/models/{model}/classify?top_k=1000"
    replies = [
        httpx.post(url, content=encoded(photo, "PNG"), timeout=_LONGEST_S).raise_for_status().json()
        for photo in photos
    ]
    classes = [
        [(each["index"], each["score"]) for each in reply["results"][0]["classes"]] for reply in replies
    ]
    return _answered(", ".join({reply["engine"] for reply in replies}), classes)


def by_grpc(server: RunningServer, model: str, photos: Sequence[Image.Image]) -> Answered:
    """Ask for all photos at once."""
    with Client(server.grpc, timeout_s=_LONGEST_S) as client:
        reply = client.classify(*(encoded(photo, "PNG") for photo in photos), model=model, top_k=1000)
    return _answered(reply.engine, [[(each.index, each.score) for each in row] for row in reply.results])


def by_pytorch(network: Network, photos: Sequence[Image.Image]) -> Scores:
    """Have PyTorch compute the scores, from the weights that were published."""
    preprocessing = standard_preprocessing(224)
    planes = preprocessing.planes(np.stack([preprocessing.rows(photo) for photo in photos]))
    weights = untrained_source(network, seed=1).weights
    return softmax(forward_of("pytorch").logits(network, weights, planes))


def best_five(scores: Scores) -> list[list[int]]:
    """List the five best classes of each photo."""
    return np.argsort(-scores, axis=1)[:, :5].tolist()


def _answered(engine: str, classes: Sequence[Sequence[tuple[int, float]]]) -> Answered:
    scores = np.zeros((len(classes), len(classes[0])))
    for row, pairs in zip(scores, classes, strict=True):
        for index, score in pairs:
            row[index] = score
    return Answered(engine, scores, [[index for index, _ in pairs[:5]] for pairs in classes])
