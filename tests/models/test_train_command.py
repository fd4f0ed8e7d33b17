import pytest
import yaml

from models.cli import main

CHECK = ["train", "demo", "--check"]


def test_overrides_stand_before_flags_and_behind_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "demo", "epochs=37", "--check", "--device", "cpu", "schedule.rate=0.3"]) == 0
    recipe = yaml.safe_load(capsys.readouterr().out)
    assert (recipe["epochs"], recipe["schedule"]["rate"]) == (37, 0.3)


@pytest.mark.parametrize(
    "words", [[*CHECK, "--epochs=7"], [*CHECK, "seven"], ["info", "sknet50", "epochs=7"]]
)
def test_what_is_no_override_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == f"cardinal-models: unrecognized arguments: {words[-1]}\n"


def test_a_recipe_that_cannot_be_used_is_told_with_each_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CHECK, "epochs=0", "sede=1"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in told[1:]] == ["  epochs", "  sede"]
