"""Compiling for Ascend, with stand-ins for the vendor's programs: the calls are right, nothing has met an NPU."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from models.ascend import normalisation_of, without_normalisation
from models.cli import main
from models.golden import evaluate
from patience import PATIENCE_S
from service.repository.bundle import load_bundle
from serving import ROOT, UNTRAINED

TOOLS = Path(sys.executable).parent  # cardinal-models and shellcheck

# Writes down its words and configuration, checks that its inputs exist, and writes what it was asked for.
STAND_IN = """\
#!/bin/sh
set -eu
echo "$(basename "$0") $*" >>"$CALLS"
for word in "$@"; do
    case $word in
    --model=* | --modelFile=*) [ -s "${word#*=}" ] ;;
    --configFile=*) cat "${word#*=}" >>"$CALLS" ;;
    --insert_op_conf=*) cat "${word#*=}" >>"$CALLS" ;;
    --output=*) echo compiled >"${word#*=}.om" ;;
    --outputFile=*) echo compiled >"${word#*=}.mindir" ;;
    esac
done
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    copy = tmp_path / "models" / "sknet50" / "1"
    shutil.copytree(UNTRAINED / "sknet50" / "1", copy)
    return copy


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put stand-ins on PATH; give the file of their calls."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("atc", "converter_lite"):
        (tools / name).write_text(STAND_IN)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("PATH", f"{tools}:{TOOLS}:/usr/bin:/bin")
    return tmp_path / "calls"


def _compile(bundle: Path, *words: str) -> int:
    return main(["compile", str(bundle), *words])


def test_without_the_tools_the_script_is_printed_and_written_beside_the_bundle(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert _compile(bundle, "--target", "ascend310p") == 0
    script = bundle.parent / "1.ascend310p.sh"
    printed = capsys.readouterr().out
    assert printed.startswith(script.read_text())
    assert "converter_lite" in printed.rpartition("# ")[2]
    assert [path.name for path in bundle.parent.iterdir() if path.is_dir()] == ["1"]


def test_the_converter_is_called_with_gears_and_precision(bundle: Path, calls: Path) -> None:
    assert _compile(bundle, "--target", "ascend310p", "--gears", "1,4,32") == 0
    graph = bundle / "model.onnx"
    assert calls.read_text() == (
        f"converter_lite --fmk=ONNX --modelFile={graph} --outputFile=ascend310p --saveType=MINDIR"
        " --optimize=ascend_oriented --configFile=converter.cfg\n"
        "[ascend_context]\n"
        "input_format=ND\n"
        "input_shape=images:[-1,224,224,3]\n"
        "dynamic_dims=[1],[4],[32]\n"
        "precision_mode=enforce_fp16\n"
        "output_type=FP32\n"
        "\n"
        "[acl_init_options]\n"
        "ge.socVersion=Ascend310P3\n"
    )


def test_an_om_file_of_atc_is_wrapped(bundle: Path, calls: Path) -> None:
    words = ["--target", "ascend910", "--through", "atc", "--gears", "1,8", "--precision", "mixed"]
    assert _compile(bundle, *words) == 0
    graph = bundle / "model.onnx"
    assert calls.read_text() == (
        f"atc --framework=5 --model={graph} --output=ascend910 --soc_version=Ascend910A --input_format=ND"
        " --input_shape=images:-1,224,224,3 --dynamic_batch_size=1,8 --precision_mode=allow_mix_precision"
        " --output_type=FP32\n"
        "converter_lite --fmk=OM --modelFile=ascend910.om --outputFile=ascend910 --saveType=MINDIR"
        " --optimize=ascend_oriented --configFile=converter.cfg\n"
        "[om_converter]\n"
        "input_name_vector=images\n"
        "input_shape_vector=-1,224,224,3\n"
        "input_data_type_vector=UINT8\n"
        "output_name_vector=logits\n"
        "output_shape_vector=-1,10\n"
        "output_data_type_vector=FLOAT32\n"
    )


def test_with_aipp_the_compiler_gets_the_graph_without_its_normalisation(bundle: Path, calls: Path) -> None:
    assert _compile(bundle, "--target", "ascend310", "--through", "atc", "--gears", "1,4", "--aipp") == 0
    said = calls.read_text()
    assert said.startswith(
        "atc --framework=5 --model=stripped.onnx --output=ascend310 --soc_version=Ascend310"
        " --input_format=NCHW --input_shape=images:-1,3,224,224 --dynamic_batch_size=1,4"
        " --precision_mode=force_fp16 --output_type=FP32 --insert_op_conf=aipp.cfg\n"
        "aipp_op {\n"
        "    aipp_mode: static\n"
        "    input_format: RGB888_U8\n"
        "    src_image_size_w: 224\n"
        "    src_image_size_h: 224\n"
        "    min_chn_0: 123.675003\n"
    )
    assert "    var_reci_chn_2: 0.0174291935\n}\n" in said
    assert "input_shape_vector=-1,224,224,3\ninput_data_type_vector=UINT8\n" in said


@pytest.mark.parametrize("through", ["converter", "atc"])
def test_a_single_gear_is_a_fixed_batch(bundle: Path, calls: Path, through: str) -> None:
    assert _compile(bundle, "--target", "ascend310p", "--gears", "8", "--through", through) == 0
    said = calls.read_text()
    assert "images:8,224,224,3" in said
    assert "dynamic" not in said


def test_the_compiled_file_is_in_the_next_version(bundle: Path, calls: Path) -> None:
    assert _compile(bundle, "--target", "ascend310p", "--gears", "1,4") == 0
    assert calls.exists()
    before, after = load_bundle(bundle), load_bundle(bundle.parent / "2")
    *kept, new = after.manifest.artifacts
    assert tuple(kept) == before.manifest.artifacts
    assert (new.engine, new.target, new.file) == ("mindspore_lite", "ascend310p", "ascend310p.mindir")
    assert (new.gears, new.precision) == ((1, 4), "f16")
    assert after.golden_pictures == before.golden_pictures


def test_what_is_compiled_again_takes_the_place_of_the_first(bundle: Path, calls: Path) -> None:
    assert _compile(bundle, "--target", "ascend310p", "--gears", "1,4") == 0
    assert _compile(bundle.parent / "2", "--target", "ascend310p", "--gears", "16") == 0
    assert calls.exists()
    artifacts = load_bundle(bundle.parent / "3").manifest.artifacts
    assert [artifact.gears for artifact in artifacts] == [None, (16,)]


def test_a_script_can_run_from_anywhere_later(bundle: Path, calls: Path, tmp_path: Path) -> None:
    assert _compile(bundle, "--target", "ascend310p") == 0
    shutil.rmtree(bundle.parent / "2")
    calls.unlink()
    subprocess.run([bundle.parent / "1.ascend310p.sh"], cwd=tmp_path, check=True, timeout=PATIENCE_S)
    assert calls.exists()
    load_bundle(bundle.parent / "2")


def test_a_compiler_that_fails_publishes_nothing(
    bundle: Path, calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tools" / "converter_lite").write_text("#!/bin/sh\nexit 3\n")
    assert _compile(bundle, "--target", "ascend310p") == 2
    assert "1.ascend310p.sh failed with exit code 3" in capsys.readouterr().err
    assert not calls.exists()
    assert [path.name for path in bundle.parent.iterdir() if path.is_dir()] == ["1"]


def test_a_chip_that_is_not_known_needs_its_name(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _compile(bundle, "--target", "ascend910b") == 2
    assert "target is 'ascend910b'; allowed are ascend310, ascend310p, ascend910," in capsys.readouterr().err
    assert _compile(bundle, "--target", "ascend910b", "--soc-version", "Ascend910B4") == 0
    assert "--soc" not in (script := (bundle.parent / "1.ascend910b.sh").read_text())
    assert "ge.socVersion=Ascend910B4" in script


def _add(bundle: Path, file: Path, *words: str) -> int:
    file.write_text("compiled")
    given = ["--target", "ascend310p", "--gears", "1,4", "--precision", "f16", *words]
    return main(["add-artifact", str(bundle), str(file), *given])


def test_a_bundle_that_is_no_longer_the_newest_gets_no_file(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bundle, bundle.parent / "7")
    assert _add(bundle, tmp_path / "x.mindir") == 2
    assert "allowed is the newest version of its model, 7" in capsys.readouterr().err


def test_a_damaged_bundle_gets_no_file(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "labels.txt").write_text("other\n")
    assert _add(bundle, tmp_path / "x.mindir") == 2
    assert "labels.txt is not the file that model.json names" in capsys.readouterr().err
    assert not (bundle.parent / "2").exists()


def test_a_target_that_is_none_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _add(bundle, tmp_path / "x.mindir", "--target", "gpu") == 2
    assert "target is 'gpu'; allowed is cpu, or a chip such as ascend310p" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["se_resnext50", "resnext101", "sknet50"])
def test_a_stripped_graph_answers_the_same_on_what_aipp_makes_of_pixels(name: str) -> None:
    model = onnx.load(UNTRAINED / name / "1" / "model.onnx")
    normalisation = normalisation_of(model)
    stripped = without_normalisation(model)
    onnx.checker.check_model(stripped, full_check=True)
    rows = np.random.default_rng(2).integers(0, 256, (1, 224, 224, 3), np.uint8)
    planes = (rows.astype(np.float32) - np.array(normalisation.mean, np.float32)) * np.array(
        normalisation.reciprocal, np.float32
    )
    logits = evaluate(stripped, planes.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(logits, evaluate(model, rows))


def test_a_graph_that_begins_otherwise_is_not_stripped() -> None:
    model = onnx.load(UNTRAINED / "sknet50" / "1" / "model.onnx")
    with pytest.raises(ValueError, match="the graph begins with"):
        without_normalisation(without_normalisation(model))


def test_shellcheck_has_nothing_to_say(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for words in (["--aipp"], ["--through", "atc", "--aipp"], ["--gears", "8"]):
        assert _compile(bundle, "--target", "ascend310p", *words) == 0
        _check(bundle.parent / "1.ascend310p.sh")
    _check(ROOT / "models" / "lite" / "make-environment")


def _check(script: Path) -> None:
    checked = subprocess.run([TOOLS / "shellcheck", script], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_manifest_of_the_new_version_reads_like_the_old(bundle: Path, tmp_path: Path) -> None:
    assert _add(bundle, tmp_path / "x.mindir") == 0
    old, new = (bundle / "model.json").read_text(), (bundle.parent / "2" / "model.json").read_text()
    shared = old.split('"artifacts": [')[0]
    assert new.startswith(shared)
    assert json.loads(new)["golden"] == json.loads(old)["golden"]
    assert '      "gears": [1, 4],\n' in new


def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _compile(tmp_path, "--target", "ascend310p") == 2
    assert f"bundle is {tmp_path}; allowed is the folder of a version" in capsys.readouterr().err
    (tmp_path / "model.json").write_text("{}")
    assert _compile(tmp_path, "--target", "ascend310p") == 2
    assert "model.json is of another format than 1" in capsys.readouterr().err
    shutil.copytree(UNTRAINED / "sknet50" / "1", tmp_path / "latest")
    assert _compile(tmp_path / "latest", "--target", "ascend310p") == 2
    assert "latest; allowed is the folder of a version, whose name is a number" in capsys.readouterr().err


def test_a_file_that_is_no_graph_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.onnx").write_bytes(b"nonsense")
    assert main(["strip", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")]) == 2
    assert "a.onnx is no ONNX file" in capsys.readouterr().err
