"""Arguments that several commands share, and what becomes of them."""

import argparse
from dataclasses import replace

from models.errors import InvalidValueError
from models.manifest import check_gears
from models.networks import DESCRIPTIONS
from models.preprocessing import PREPROCESSINGS
from models.training.recipe import PreprocessingChoice

NETWORK_NAMES = ", ".join(DESCRIPTIONS)


def add_preprocessing(command: argparse.ArgumentParser) -> None:
    """Add a name for the whole preprocessing, and a flag for each of its values that is to be another."""
    command.add_argument(
        "--input-size", type=int, metavar="SIDE", help="what the network was trained with, or 224 by default"
    )
    command.add_argument(
        "--preprocessing",
        choices=list(PREPROCESSINGS),
        help="the training's or standard by default; mindspore and cifar10 are those of the MindSpore references",
    )
    command.add_argument("--mode", choices=["shortest", "exact"], help="resize the shortest side, or both")
    command.add_argument("--size", type=int, metavar="SIDE", help="side to resize to, before the centre crop")
    command.add_argument("--interpolation", choices=["bilinear", "bicubic"], help="of the resize")
    command.add_argument("--antialias", action=argparse.BooleanOptionalAction, help="in the resize")
    command.add_argument("--mean", type=_channels, metavar="R,G,B", help="of pixels from 0 to 255")
    command.add_argument("--std", type=_channels, metavar="R,G,B", help="of pixels from 0 to 255")


def _channels(text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = map(float, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are three numbers parted by commas") from error
    return red, green, blue


def preprocessing_of(
    arguments: argparse.Namespace, trained: PreprocessingChoice | None = None
) -> PreprocessingChoice:
    """Return the preprocessing that was named, or the training's, with the values that were given in place of its own.

    One that is named is taken whole: nothing of the training's is left but the size of its input.
    """
    names = ("mode", "size", "interpolation", "antialias", "mean", "std")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    begun = trained or PreprocessingChoice()
    if arguments.preprocessing:
        begun = PreprocessingChoice(name=arguments.preprocessing, input_size=begun.input_size)
    if arguments.input_size is not None:
        given["input_size"] = arguments.input_size
    return replace(begun, **given)


def gears_of(text: str) -> tuple[int, ...]:
    """Return the batch sizes of `1,4,8`."""
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise InvalidValueError(f"gears are {text!r}; allowed are numbers parted by commas")
    gears = tuple(map(int, words))
    check_gears(gears)
    return gears
