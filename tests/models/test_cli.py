import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.cli import main

PUBLISH = [
    "publish",
    "--network",
    "sknet50",
    "--untrained",
    "--width",
    "0.0625",
    "--input-size",
    "64",
    "--lite-gears",
    "none",
]


def test_info_prints_one_aligned_column_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["network", "se_resnext50", "resnext101", "sknet50"]
    assert {len(line) for line in lines} == {len(heading)}
    figures = dict(line.split(maxsplit=1) for line in lines)
    assert figures["parameters"].split() == ["27,559,896", "83,455,272", "25,480,874"]
    assert figures["multiply-adds"].split() == ["4.233", "G", "15.460", "G", "4.461", "G"]


def test_info_of_a_variant_counts_the_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "sknet50", "--classes", "1000", "--width", "1", "--input-size", "224"]) == 0
    assert "27,509,384" in capsys.readouterr().out


def test_publish_numbers_classes_that_have_no_names(tmp_path: Path) -> None:
    words = [*PUBLISH, "--repository", str(tmp_path), "--classes", "3", "--model", "cats", "--seed", "7"]
    assert main(words) == 0
    bundle = tmp_path / "cats/1"
    assert (bundle / "labels.txt").read_text() == "class 0\nclass 1\nclass 2\n"
    manifest = json.loads((bundle / "model.json").read_text())
    assert (manifest["input_size"], manifest["classes"]) == (64, 3)
    assert (manifest["preprocessing"]["size"], manifest["provenance"]["seed"]) == (73, 7)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: info|inspect|convert|export"),
        (["info", "vgg"], "network is 'vgg'; allowed are se_resnext50, resnext101, sknet50"),
        (["info", "--width", "wide"], "argument --width: invalid float value: 'wide'"),
        (["info", "--wid", "1"], "unrecognized arguments: --wid"),
        (["info", "sknet50", "--classes", "0"], "classes is 0; allowed is at least 2"),
        (["info", "--input-size", "225"], "input size is 225; allowed are multiples of 4 from 32 up"),
        (["publish", "--network", "sknet50", "--repository", "."], "--untrained --checkpoint is required"),
        ([*PUBLISH, "--repository", ".", "--seed", "-1"], "seed is -1; allowed is at least 0"),
        ([*PUBLISH, "--repository", ".", "--model", "a/b"], "model is 'a/b'; allowed is"),
        ([*PUBLISH, "--repository", ".", "--version", "0"], "version is 0; allowed is at least 1"),
        ([*PUBLISH, "--repository", ".", "--labels", "/no/such"], "No such file or directory: '/no/such'"),
        (
            [*PUBLISH, "--repository", ".", "--mean", "1,2"],
            "argument --mean: '1,2'; allowed are three numbers",
        ),
        (
            [*PUBLISH, "--repository", ".", "--std", "1,1,0"],
            "std is (1.0, 1.0, 0.0); allowed are three numbers above",
        ),
        ([*PUBLISH, "--repository", ".", "--size", "60"], "size is 60; allowed is at least the crop, 64"),
        ([*PUBLISH, "--repository", ".", "--labels", "x", "--classes", "3"], "not allowed with argument"),
    ],
)
def test_a_fault_is_one_sentence_and_exit_code_2(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("cardinal-models: ")
    assert output.err.count("\n") == 1
    assert sentence in output.err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "classes is 0; allowed is at least 2"),
        (b"cat\n\ndog\n", "label 1 is ''; allowed is one line of text"),
        (b"cat\xff\ndog\n", "is not UTF-8 text"),
    ],
)
def test_a_labels_file_that_cannot_be_used_is_refused(
    content: bytes, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes(content)
    assert main([*PUBLISH, "--repository", str(tmp_path / "models"), "--labels", str(file)]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_version_that_exists_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*PUBLISH, "--repository", str(tmp_path), "--version", "1"]
    assert main(words) == 0
    assert main(words) == 2
    assert "version 1 of sknet50 exists already" in capsys.readouterr().err


def test_without_its_packages_the_command_says_how_to_get_them() -> None:
    program = "import sys; sys.modules['onnx'] = None; from models.__main__ import main; sys.exit(main())"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith(
        "cardinal-models: onnx is not installed: pip install 'cardinal-serving[models]'"
    )
