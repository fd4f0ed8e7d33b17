"""The command that publishes bundles."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from models.bundle import bundle, untrained_source
from models.checkpoints import Wish
from models.checkpoints.source import Trained, trained
from models.commands.arguments import NETWORK_NAMES, add_preprocessing, gears_of, preprocessing_of
from models.commands.command import Command
from models.errors import InvalidValueError
from models.frameworks.forward import Forward, forward_of, installed_forward
from models.lite import VARIABLE, add_lite, find_interpreter
from models.networks import describe
from models.publish import write_files
from models.storage import drafted_at


def _add_publish(publish: argparse.ArgumentParser) -> None:
    publish.add_argument("--network", help=f"one of {NETWORK_NAMES}; seen in FILE")
    weights = publish.add_mutually_exclusive_group(required=True)
    weights.add_argument("--untrained", action="store_true", help="with random weights")
    weights.add_argument("--checkpoint", type=Path, metavar="FILE", help="with the weights of FILE")
    publish.add_argument("--seed", type=int, default=1, help="of the random weights, 1 by default")
    publish.add_argument(
        "--stem-pool", choices=["ceil", "padded"], help="where the names in FILE do not tell it"
    )
    publish.add_argument(
        "--width", type=float, metavar="W", help="multiplier of channels and groups; 1, or seen in FILE"
    )
    labels = publish.add_mutually_exclusive_group()
    labels.add_argument("--classes", type=int, metavar="N", help="number the classes instead of naming them")
    labels.add_argument("--labels", type=Path, metavar="FILE", help="one label a line, as many as classes")
    add_preprocessing(publish)
    publish.add_argument(
        "--golden",
        choices=["pytorch", "mindspore", "onnx"],
        help="what computes the golden samples; by default the framework that trained, or one that is installed",
    )
    publish.add_argument("--repository", required=True, help="folder of the models, or a URL")
    publish.add_argument("--model", metavar="NAME", help="the network's name by default")
    publish.add_argument("--version", type=int, metavar="N", help="the newest plus one by default")
    publish.add_argument(
        "--lite-gears",
        default="1,4",
        metavar="N,...",
        help="batch sizes for MindSpore Lite on a CPU, where a Python with it is found; 1,4 by default, or none",
    )


def _publish(arguments: argparse.Namespace) -> str:
    lite_gears = () if arguments.lite_gears == "none" else gears_of(arguments.lite_gears)
    labels = None if arguments.labels is None else _read_labels(arguments.labels)
    found = _chosen(arguments, arguments.classes if labels is None else len(labels))
    network, source = found.network, found.source
    choice = preprocessing_of(arguments, found.origin.recipe.preprocessing if found.origin else None)
    files = bundle(
        network,
        source,
        labels=labels or _labels(found, arguments.classes),
        preprocessing=choice.build(),
        forward=_forward(arguments.golden, source.provenance.framework),
    )
    lite = find_interpreter() if lite_gears else None
    model = arguments.model or network.name
    with drafted_at(arguments.repository, model, arguments.version) as draft:
        write_files(draft.folder, files)
        files.clear()  # the graph is on disk now, and its memory needed
        if lite:
            add_lite(draft.folder, lite, lite_gears)
        size_mb = sum(path.stat().st_size for path in draft.folder.rglob("*") if path.is_file()) / 1e6
    origin = "untrained" if arguments.checkpoint is None else f"weights of {arguments.checkpoint}"
    what = f"{network.name}, {origin}, {network.classes} classes, {size_mb:.1f} MB"
    target = f"{arguments.repository.rstrip('/')}/{model}/{draft.target.name}"
    published = f"published {target}: {what}"
    if lite is None and lite_gears:
        return f"{published}; without MindSpore Lite, for which no Python was found: see {VARIABLE}"
    return published


def _chosen(arguments: argparse.Namespace, classes: int | None) -> Trained:
    if arguments.checkpoint is not None:
        wish = Wish(network=arguments.network, classes=classes, width=arguments.width)
        return trained(arguments.checkpoint, wish, stem_pool=arguments.stem_pool)
    if arguments.network is None:
        raise InvalidValueError(f"network is required with --untrained; allowed are {NETWORK_NAMES}")
    width = 1.0 if arguments.width is None else arguments.width
    network = describe(arguments.network, classes=classes, width=width)
    return Trained(network=network, source=untrained_source(network, arguments.seed), origin=None)


def _labels(found: Trained, classes: int | None) -> Sequence[str]:
    if found.origin and classes is None:
        return found.origin.labels
    return [f"class {index}" for index in range(found.network.classes)]


def _forward(wish: Literal["pytorch", "mindspore", "onnx"] | None, trained_by: str | None) -> Forward | None:
    if wish is None:
        return installed_forward(trained_by.split()[0] if trained_by else None)  # without its version
    return None if wish == "onnx" else forward_of(wish)


def _read_labels(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"labels file {file} is not UTF-8 text") from error


PUBLISH = Command(
    name="publish",
    help="write a bundle into a model repository",
    add_arguments=_add_publish,
    run=_publish,
)
