"""The command that evaluates checkpoints and served models on one dataset, and counts both alike."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from models.checkpoints import Wish
from models.checkpoints.source import Trained, trained
from models.commands.arguments import add_preprocessing, preprocessing_of
from models.commands.command import Command
from models.errors import InvalidValueError
from models.networks import Network, describe
from models.training.datasets import Dataset, open_dataset
from models.training.evaluation import MANY, Evaluation, evaluate
from models.training.learner import Learner, LossScale, State
from models.training.progress import CountedPictures
from models.training.recipe import DataChoice, NetworkChoice, Recipe, read_recipe
from models.training.report import Report, report_page
from models.training.run import Framework, build_learner
from models.training.savepoints import read_origin
from models.training.schedules import Linear
from models.training.served import ServedModel, Service, evaluate_served, find_served
from models.training.watching import evaluation_document

_SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt")
_TRAINERS: dict[Framework, str] = {"torch": "pytorch", "mindspore": "mindspore"}  # -> its name in checkpoints
_HEADINGS = ("", "top-1", "top-5", "loss", "right", "of", "")
_BATCH = 64  # of a checkpoint without a recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A checkpoint or a served model, what ran it, and what was counted."""

    name: str
    run_by: str
    evaluation: Evaluation
    is_served: bool = False


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "checkpoint",
        type=Path,
        nargs="?",
        metavar="CHECKPOINT",
        help="a file, or a folder of them or of a run",
    )
    command.add_argument(
        "--url", metavar="URL", help="of a server whose model is evaluated, beside or instead"
    )
    command.add_argument("--model", metavar="NAME", help="the model at URL")
    command.add_argument(
        "--version", metavar="N", help="of the model at URL; the one that is served by default"
    )
    command.add_argument("--connections", type=int, default=4, metavar="N", help="to URL, 4 by default")
    command.add_argument(
        "--recipe",
        metavar="RECIPE",
        help="whose network, pictures and preprocessing; CHECKPOINT's by default",
    )
    command.add_argument("--data", metavar="PATH", help="pictures of evaluation, in place of the recipe's")
    command.add_argument("--format", choices=["folder", "cifar10"], help="of PATH; the recipe's, or folder")
    add_preprocessing(command)
    command.add_argument(
        "--framework",
        choices=get_args(Framework),
        help="by default the one that trained, or one that is installed",
    )
    command.add_argument(
        "--device",
        choices=["auto", "cpu", "gpu", "npu"],
        default="auto",
        help="by default an NPU if there is one, else a GPU, else the CPU",
    )
    command.add_argument("--batch", type=int, metavar="N", help="pictures at once; the recipe's by default")
    command.add_argument("--json", action="store_true", help="print JSON, with the confusion matrix")
    command.add_argument(
        "--report", type=Path, metavar="FILE", help="write the best one's page, an HTML file"
    )


def _evaluate(arguments: argparse.Namespace) -> str:
    if not arguments.checkpoint and not arguments.url:
        raise InvalidValueError("there is nothing to evaluate; allowed are CHECKPOINT, --url, or both")
    if bool(arguments.url) != bool(arguments.model):
        raise InvalidValueError("a served model is --url and --model; one of them is missing")
    if arguments.batch is not None and arguments.batch < 1:
        raise InvalidValueError(f"batch is {arguments.batch}; allowed is at least 1")
    paths = checkpoints_at(arguments.checkpoint) if arguments.checkpoint else []
    served = _served(arguments) if arguments.url else None
    recipe = _recipe(arguments, paths, served)
    classes = recipe.network.classes
    dataset = open_dataset(recipe.data, "evaluation", seed=recipe.seed, classes=classes)
    shown = CountedPictures(dataset, sys.stderr)
    judged = _in_framework(arguments, recipe, shown, paths) if paths else []
    if paths and not judged:
        return ""  # this process is not the first one, which tells
    if served:
        judged.append(_on_server(served, shown))
    return _told(arguments, recipe, dataset, judged)


def _on_server(served: ServedModel, dataset: Dataset) -> _Judged:
    service = served.service
    return _Judged(
        name=f"{service.url}, {service.model} {service.version}",
        run_by=served.engine,
        evaluation=evaluate_served(served, dataset),
        is_served=True,
    )


def checkpoints_at(path: Path) -> list[Path]:
    """Return a file, or the checkpoints of a folder or of a run's folder, newest first.

    Those of a training go by the epochs and steps that they were trained for, others by the time of the file.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InvalidValueError(f"checkpoint is {path}, which is not there; allowed is a file or a folder")
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    files = [
        file
        for file in folder.iterdir()
        if file.suffix in _SUFFIXES and not file.is_symlink() and not file.name.startswith(".")
    ]
    if not files:
        raise InvalidValueError(
            f"{folder} has no checkpoints; allowed is a folder with files of {', '.join(_SUFFIXES)}"
        )
    return sorted(files, key=_age, reverse=True)


def _age(path: Path) -> tuple[int, int, int, str]:
    origin = read_origin(path)
    position = (origin.position.epoch, origin.position.step) if origin else (0, 0)
    return *position, path.stat().st_mtime_ns, path.name


def _served(arguments: argparse.Namespace) -> ServedModel:
    return find_served(
        Service(
            url=arguments.url.rstrip("/"),
            model=arguments.model,
            version=arguments.version,
            connections=arguments.connections,
        )
    )


def _recipe(arguments: argparse.Namespace, paths: Sequence[Path], served: ServedModel | None) -> Recipe:
    """Return what to evaluate with: the recipe that was named, or the first checkpoint's, with what was given."""
    if arguments.recipe:
        recipe = read_recipe(arguments.recipe)
    elif paths:
        origin = read_origin(paths[0])
        recipe = origin.recipe if origin else _without_recipe(trained(paths[0], Wish()).network)
    elif served:
        recipe = _without_recipe(describe(served.network, classes=len(served.labels)))
    data = _data(arguments, recipe.data)
    preprocessing = preprocessing_of(arguments, recipe.preprocessing)
    return replace(recipe, data=data, preprocessing=preprocessing, batch=arguments.batch or recipe.batch)


def _without_recipe(network: Network) -> Recipe:
    choice = NetworkChoice(
        name=network.name, classes=network.classes, width=network.width, stem_pool=network.stem_pool
    )
    return Recipe(
        name=network.name,
        network=choice,
        data=DataChoice(format="folder"),
        epochs=1,
        batch=_BATCH,
        schedule=Linear(rate=1),
    )


def _data(arguments: argparse.Namespace, choice: DataChoice) -> DataChoice:
    if arguments.data:
        kind: Literal["folder", "cifar10"] = "cifar10" if choice.format == "cifar10" else "folder"
        kind = arguments.format or kind
        return replace(choice, format=kind, train=arguments.data, evaluation=arguments.data)
    if arguments.format:
        raise InvalidValueError("--format is the form of --data, which is not given")
    if choice.format == "folder" and not choice.evaluation:
        raise InvalidValueError("it is not said on which pictures; allowed are --data, or --recipe with such")
    return choice


def _in_framework(
    arguments: argparse.Namespace, recipe: Recipe, dataset: Dataset, paths: Sequence[Path]
) -> list[_Judged]:
    """Return each checkpoint's evaluation, in the first process alone; the others have helped."""
    learner = _learner(arguments, recipe, _trained(paths[0], recipe, dataset))
    judged = []
    try:
        for path in paths:
            weights = _trained(path, recipe, dataset).source.weights
            learner.restore(State(weights=weights, raw={}, velocities={}, loss_scale=LossScale()))
            evaluation = evaluate(
                learner.logits,
                dataset,
                recipe.preprocessing.build(),
                learner.world,
                batch=min(recipe.batch, len(dataset)),
                workers=recipe.data.workers,
            )
            if learner.world.rank == 0:
                judged.append(_Judged(name=str(path), run_by=learner.framework, evaluation=evaluation))
    finally:
        learner.world.close()
    return judged


def _trained(path: Path, recipe: Recipe, dataset: Dataset) -> Trained:
    network = recipe.network.describe()
    wish = Wish(network=network.name, classes=network.classes, width=network.width)
    found = trained(path, wish, stem_pool=network.stem_pool)
    if found.origin and found.origin.labels != dataset.names:
        raise InvalidValueError(
            f"checkpoint {path} was trained on the classes {_first(found.origin.labels)};"
            f" the pictures are of {_first(dataset.names)}"
        )
    return found


def _learner(arguments: argparse.Namespace, recipe: Recipe, found: Trained) -> Learner:
    framework = arguments.framework or _framework(found.source.provenance.framework)
    return build_learner(framework, recipe, found.source.weights, device=arguments.device)


def _framework(trained_by: str | None) -> Framework:
    """Return the framework that trained, where it is installed, or else one that is."""
    first = (trained_by or "").split()[:1]
    for framework in sorted(_TRAINERS, key=lambda known: [_TRAINERS[known]] != first):
        if find_spec(framework):
            return framework
    raise InvalidValueError(
        "no framework is installed; PyTorch or MindSpore is needed: see README.md, To train"
    )


def _told(arguments: argparse.Namespace, recipe: Recipe, dataset: Dataset, judged: Sequence[_Judged]) -> str:
    checkpoints = [each for each in judged if not each.is_served]
    # Of equals the oldest, as a training has it.
    best = max(reversed(checkpoints or judged), key=lambda each: each.evaluation.top1)
    if arguments.report:
        page = report_page(
            Report(
                title=best.name,
                facts={"Run by": best.run_by, "Pictures": recipe.data.evaluation_name},
                labels=dataset.names,
                evaluation=best.evaluation,
                recipe=recipe.text(),
            )
        )
        arguments.report.write_text(page, encoding="utf-8")
    if arguments.json:
        return json.dumps(
            {
                "data": recipe.data.evaluation_name,
                "labels": dataset.names,
                "evaluations": [_document(each, is_best=each is best) for each in judged],
            },
            indent=1,
            allow_nan=False,
        )
    rows = [_HEADINGS, *(_row(each, is_best=len(checkpoints) > 1 and each is best) for each in judged)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    run_by = ", ".join(dict.fromkeys(each.run_by for each in judged))
    return "\n".join(
        [
            *(
                "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
                for row in rows
            ),
            f"pictures of {recipe.data.evaluation_name}, answered by {run_by}",
        ]
    )


def _row(judged: _Judged, *, is_best: bool) -> Sequence[str]:
    counted = judged.evaluation
    return (
        judged.name,
        f"{counted.top1:.2%}",
        f"{counted.top5:.2%}",
        "-" if math.isnan(counted.loss) else f"{counted.loss:.4f}",
        f"{counted.right:,}",
        f"{counted.n:,}",
        "best" if is_best else "",
    )


def _document(judged: _Judged, *, is_best: bool) -> dict[str, Any]:
    return {
        "name": judged.name,
        "run_by": judged.run_by,
        "is_best": is_best,
        "is_served": judged.is_served,
        "right": judged.evaluation.right,
        **evaluation_document(judged.evaluation),
    }


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" if len(names) > MANY else "")


EVALUATE = Command(
    name="evaluate",
    help="count how often checkpoints, or a served model, are right",
    add_arguments=_add_evaluate,
    run=_evaluate,
)
