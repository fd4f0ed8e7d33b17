import hashlib
import json
from pathlib import Path

import pytest

from models.checkpoints import dialect_of, export_weights, read_checkpoint, write_checkpoint
from models.cli import main
from models.networks import describe
from models.weights import random_weights

FIXTURES = Path(__file__).parent / "fixtures"
WIDTHS = {"se_resnext50": 1 / 16, "resnext101": 1 / 32, "sknet50": 1 / 16}


def _written(folder: Path, name: str, *, network: str = "se_resnext50", dialect: str = "cardinal") -> Path:
    small = describe(network, classes=7, width=WIDTHS[network])
    weights = random_weights(small, seed=1)
    write_checkpoint(folder / name, export_weights(small, weights, dialect_of(dialect, small)))
    return folder / name


def test_inspect_tells_what_a_file_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(_written(tmp_path, "a.ckpt", dialect="mindspore-split"))]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["format"] == "ckpt"
    assert lines["dialect"] == "mindspore-split"
    assert lines["network"] == "se_resnext50, width 0.0625"
    assert lines["tensors"] == "347, of which 347 weights"
    assert lines["first"].startswith("backbone.conv.weight (4, 3, 7, 7), backbone.bn.gamma (4,)")


def test_inspect_tells_of_unknown_networks_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(FIXTURES / "pytorch-training-legacy.pth.tar")]) == 0
    output = capsys.readouterr().out
    assert "legacy pth" in output
    assert "none that is known" in output
    assert "6, of which 5 weights" in output


def test_convert_writes_another_format_in_other_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _written(tmp_path, "a.ckpt", dialect="mindspore-split")
    assert main(["convert", str(source), str(tmp_path / "b.pth"), "--dialect", "cadene"]) == 0
    assert (
        "se_resnext50, 7 classes, width 0.0625, mindspore-split names to cadene names"
        in capsys.readouterr().out
    )
    assert "layer0.conv1.weight" in read_checkpoint(tmp_path / "b.pth").tensors
    words = [
        "--network",
        "se_resnext50",
        "--classes",
        "7",
        "--width",
        "0.0625",
        "--dialect",
        "mindspore-split",
    ]
    assert main(["convert", str(tmp_path / "b.pth"), str(tmp_path / "c.ckpt"), *words]) == 0
    assert (tmp_path / "c.ckpt").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("trip", "note"),
    [
        ("se_resnext50 timm cardinal", "its stem pools padded: publish it with --stem-pool padded\n"),
        ("se_resnext50 timm cadene", "its stem pools padded, networks of cadene ceil: answers differ\n"),
        ("resnext101 mindspore torchvision", "pools ceil, networks of torchvision padded: answers differ\n"),
        ("se_resnext50 cadene mindspore", "0 other tensors dropped\n"),
        ("sknet50 cardinal mindspore", "0 other tensors dropped\n"),
    ],
)
def test_convert_tells_what_the_new_names_do_not_say(
    trip: str, note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, source, target = trip.split()
    file = _written(tmp_path, "a.ckpt", network=network, dialect=source)
    assert main(["convert", str(file), str(tmp_path / "b.safetensors"), "--dialect", target]) == 0
    assert capsys.readouterr().out.endswith(note)


def _publish(checkpoint: Path, repository: Path, *words: str, network: str = "se_resnext50") -> int:
    command = [
        "publish",
        "--network",
        network,
        "--checkpoint",
        str(checkpoint),
        "--input-size",
        "32",
        "--lite-gears",
        "none",
    ]
    return main([*command, "--repository", str(repository), *words])


def test_publish_takes_a_checkpoint_and_says_so_in_the_manifest(tmp_path: Path) -> None:
    checkpoint = _written(tmp_path, "a.safetensors", dialect="mindspore")
    assert _publish(checkpoint, tmp_path / "models") == 0
    manifest = json.loads((tmp_path / "models/se_resnext50/1/model.json").read_text())
    assert manifest["network"] == {"name": "se_resnext50", "width": 0.0625}
    assert manifest["classes"] == 7
    assert manifest["provenance"] == {
        "untrained": False,
        "recipe": None,
        "framework": "mindspore",
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "seed": None,
    }


def test_the_same_weights_make_the_same_graph_as_untrained_ones(tmp_path: Path) -> None:
    checkpoint = _written(tmp_path, "a.pth")
    assert _publish(checkpoint, tmp_path / "models", "--classes", "7", "--width", "0.0625") == 0
    words = [
        "publish",
        "--network",
        "se_resnext50",
        "--untrained",
        "--classes",
        "7",
        "--width",
        "0.0625",
        "--lite-gears",
        "none",
    ]
    assert main([*words, "--input-size", "32", "--repository", str(tmp_path / "models")]) == 0
    first, second = (tmp_path / f"models/se_resnext50/{version}" for version in (1, 2))
    assert (first / "model.onnx").read_bytes() == (second / "model.onnx").read_bytes()
    golden = [json.loads((folder / "model.json").read_text())["golden"] for folder in (first, second)]
    assert golden[0] == golden[1]


def test_the_stem_pools_as_the_names_or_the_caller_say(tmp_path: Path) -> None:
    models = tmp_path / "models"
    timm = _written(tmp_path, "timm.pth", dialect="timm")
    cardinal = _written(tmp_path, "cardinal.pth")
    for version, (file, *words) in enumerate(
        [[timm], [cardinal, "--stem-pool", "padded"], [cardinal]], start=1
    ):
        assert _publish(Path(file), models, *map(str, words), "--version", str(version)) == 0
    timms, padded, ceil = ((models / f"se_resnext50/{n}/model.onnx").read_bytes() for n in (1, 2, 3))
    assert timms == padded != ceil


def test_names_that_do_not_tell_the_stems_pool_need_the_caller(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = _written(tmp_path, "a.pth", network="resnext101")
    assert _publish(checkpoint, tmp_path / "models", network="resnext101") == 2
    assert (
        "are those of cardinal or torchvision or timm, whose stems pool differently"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "models").exists()
    assert _publish(checkpoint, tmp_path / "models", "--stem-pool", "ceil", network="resnext101") == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["inspect"], "the following arguments are required: FILE"),
        (["inspect", "/no/such"], "No such file or directory: '/no/such'"),
        (["inspect", str(FIXTURES / "pytorch-module.pth")], "'torch.nn.modules.linear.Linear'"),
        (
            ["convert", str(FIXTURES / "mindspore-odd.ckpt"), "x.pth"],
            "fit a network in no dialect; known are",
        ),
        (
            ["convert", "{own}", "x.onnx"],
            "x.onnx ends in '.onnx'; allowed are .ckpt, .pth, .pt, .safetensors",
        ),
        (["convert", "{own}", "x.pth", "--dialect", "keras"], "dialect is 'keras'; allowed are cardinal"),
        (
            ["convert", "{own}", "x.pth", "--dialect", "torchvision"],
            "'torchvision' has no names for se_resnext50",
        ),
        (["convert", "{own}", "x.pth", "--classes", "9"], "not float (9, 128)"),
        (["publish", "--network", "sknet50", "--checkpoint", "{own}", "--repository", "."], "256 missing"),
        (["publish", "--network", "sknet50", "--repository", "."], "--untrained --checkpoint is required"),
    ],
)
def test_a_fault_of_a_checkpoint_is_one_sentence_and_exit_code_2(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = str(_written(tmp_path, "own.ckpt"))
    assert main([own if word == "{own}" else word for word in words]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("cardinal-models: ")
    assert output.err.count("\n") == 1
    assert sentence in output.err
    assert not Path("x.pth").exists()
