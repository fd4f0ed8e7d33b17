"""What models/REFERENCES.md says can be done here can be done."""

import re
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest

from models import cli, hub
from models.commands import COMMANDS
from models.errors import InvalidValueError
from models.networks import DESCRIPTIONS
from models.storage import CACHE_VARIABLE
from models.training.recipe import BUNDLED, Recipe, read_recipe
from recipe_keys import keys_of

TABLES, PITFALLS = (Path(cli.__file__).parent / "REFERENCES.md").read_text().split("## Pitfalls")
ROWS = [line.strip("| ").split(" | ") for line in TABLES.splitlines() if line.startswith("|")]
CODES = sorted(
    {code for part in [*(row[-1] for row in ROWS), PITFALLS] for code in re.findall("`(.+?)`", part)}
)
COMMAND_LINES = [code for code in CODES if re.match(r"cardinal-models |torchrun ", code)]
SERVER_LINES = [code for code in CODES if code.startswith("cardinal ")]
SETTINGS = [code for code in CODES if re.fullmatch(r"[a-z_.]+=\S+", code)]
FLAGS = [code for code in CODES if code.startswith("--")]
WORDS = sorted(set(CODES) - {*COMMAND_LINES, *SERVER_LINES, *SETTINGS, *FLAGS})

VARIABLES = {
    CACHE_VARIABLE,
    "ASCEND_RT_VISIBLE_DEVICES",
    "CUDA_VISIBLE_DEVICES",
    "RANK_TABLE_FILE",
    "RANK_ID",
    "DEVICE_ID",
}
MISTAKES = {"ploy", "module."}  # of the references, which the pitfalls quote


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_each_command_is_one_that_the_parser_takes(line: str) -> None:
    words = shlex.split(
        re.sub(r"^(cardinal-models|torchrun --nproc-per-node \d+ --module models) ", "", line)
    )
    arguments = cli.parser().parse_args(words)
    if arguments.command == "train":
        recipe = read_recipe(arguments.recipe, arguments.overrides)
        assert recipe.name == arguments.recipe
        if recipe.data.format == "folder":  # of which both parts lie somewhere else, or neither
            keys = {override.partition("=")[0] for override in arguments.overrides}
            assert ("data.train" in keys) == ("data.evaluation" in keys)


@pytest.mark.parametrize("setting", SETTINGS)
def test_each_value_of_a_recipe_is_one_that_it_may_have(setting: str) -> None:
    key, value = setting.split("=")
    needed = {"multi_step": ", milestones: [1]"}
    if key == "schedule.kind":
        setting = f"schedule={{kind: {value}, rate: 0.1{needed.get(value, '')}}}"
    read_recipe("sknet50_cifar10", [setting])


@pytest.mark.parametrize("flag", FLAGS)
def test_each_flag_is_one_of_a_command(flag: str) -> None:
    flags = set()
    for command in COMMANDS:
        parser = ArgumentParser()
        command.add_arguments(parser)
        flags |= {option for action in parser._actions for option in action.option_strings}
    assert flag in flags


@pytest.mark.parametrize("word", WORDS)
def test_each_word_is_that_of_something_that_there_is(word: str) -> None:
    names = {command.name for command in COMMANDS} | {path.stem for path in BUNDLED.glob("*.yaml")}
    assert (
        word in names | {*DESCRIPTIONS, *keys_of(Recipe)} | VARIABLES | MISTAKES or word == "models.hub.load"
    )
    assert hub.load


def test_every_row_says_how_or_that_it_is_not_done_and_why() -> None:
    rows = [
        row for row in ROWS if row[-1] not in ("here", "where") and len(row) == 2 and "---" not in row[-1]
    ]
    assert len(rows) > 100
    for _, here in rows:
        assert "`" in here or re.match(r"none: \w+|as \w+|the same", here), here


@pytest.mark.parametrize("override", ["schedule.kind=ploy", "schedule.final=1e-5", "schedule.rat=0.1"])
def test_what_the_references_took_without_a_word_is_refused(override: str) -> None:
    with pytest.raises(InvalidValueError):
        read_recipe("sknet50_cifar10", [override])


def test_the_pitfalls_are_all_there_in_order() -> None:
    lines = re.findall(r"^(\d+)\. (.+)$", PITFALLS, re.MULTILINE)
    assert [int(number) for number, _ in lines] == list(range(1, 49))
    assert all(text.count(". ") >= 1 for _, text in lines)


def test_the_server_has_the_commands_that_are_named() -> None:
    from service.cli import _parser  # noqa: PLC0415 - models and service are joined in tests alone

    for line in SERVER_LINES:
        _parser().parse_args(shlex.split(line)[1:])
