"""The commands of `cardinal-models`: one file a group of them, in the order in which help lists them."""

from models.commands.checkpoints import CONVERT, EXPORT, INSPECT
from models.commands.command import Command
from models.commands.compilation import ADD_ARTIFACT, COMPILE, STRIP
from models.commands.evaluation import EVALUATE
from models.commands.networks import INFO
from models.commands.offline import (
    INFO_FILE,
    LABEL_FILE,
    RAW_TENSORS,
    SCORE_RAW,
    SCORE_RESULTS,
    UNPACK_CIFAR10,
)
from models.commands.publishing import PUBLISH
from models.commands.training import TRAIN

COMMANDS = (
    *(INFO, INSPECT, CONVERT, EXPORT, TRAIN, EVALUATE, PUBLISH, COMPILE, ADD_ARTIFACT, STRIP),
    *(RAW_TENSORS, UNPACK_CIFAR10, LABEL_FILE, INFO_FILE, SCORE_RESULTS, SCORE_RAW),
)

__all__ = ["COMMANDS", "Command"]
