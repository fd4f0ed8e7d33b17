"""The command that trains."""

import argparse
from pathlib import Path
from typing import get_args

from models.commands.command import Command
from models.training.recipe import BUNDLED, read_recipe
from models.training.run import Framework, Order, run

_BUNDLED = ", ".join(sorted(path.stem for path in BUNDLED.glob("*.yaml")))


def _add_train(train: argparse.ArgumentParser) -> None:
    train.add_argument("recipe", metavar="RECIPE", help=f"a YAML file, or one of {_BUNDLED}")
    train.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="in place of what the recipe says, such as schedule.rate=0.1",
    )
    train.add_argument(
        "--framework",
        choices=get_args(Framework),
        default="torch",
        help="torch by default; mindspore-split makes each group of a convolution one of its own",
    )
    train.add_argument(
        "--device",
        choices=["auto", "cpu", "gpu", "npu"],
        default="auto",
        help="by default an NPU if there is one, else a GPU, else the CPU",
    )
    train.add_argument(
        "--output", type=Path, metavar="FOLDER", help="of the run; runs/ and the recipe's name by default"
    )
    train.add_argument("--mirror", metavar="URL", help="where the run is sent to at each checkpoint")
    train.add_argument(
        "--resume", action="store_true", help="go on with the run in FOLDER or, if it is not there, at URL"
    )
    train.add_argument("--check", action="store_true", help="print the whole recipe, and do not train")


def _train(arguments: argparse.Namespace) -> str:
    recipe = read_recipe(arguments.recipe, arguments.overrides)
    if arguments.check:
        return recipe.text().rstrip()
    folder = arguments.output or Path("runs", recipe.name)
    ended = run(
        Order(
            recipe=recipe,
            framework=arguments.framework,
            device=arguments.device,
            folder=folder,
            is_resumed=arguments.resume,
            mirror=arguments.mirror,
        )
    )
    if ended.rank:
        return ""
    measured = "" if ended.top1 is None else f", top-1 {ended.top1:.2%} at best"
    best = ended.best or ended.newest
    return (
        f"trained {recipe.name}{measured}: {folder}\n"
        f"publish it: cardinal-models publish --checkpoint {best} --model {recipe.name} --repository FOLDER"
    )


TRAIN = Command(name="train", help="train a network, as a recipe says", add_arguments=_add_train, run=_train)
