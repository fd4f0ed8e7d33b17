"""Files that the real frameworks wrote, and our own, are read to the bit."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from models.checkpoints import read_checkpoint, write_checkpoint
from models.checkpoints.ckpt import read_ckpt
from models.checkpoints.tensors import Tensors
from models.errors import InvalidValueError
from models.networks import NETWORKS, Network, describe
from models.weights import random_weights

FIXTURES = Path(__file__).parent / "fixtures"
WIDTHS = {"se_resnext50": 1 / 16, "resnext101": 1 / 32, "sknet50": 1 / 16}


def _small(name: str) -> Network:
    return describe(name, classes=7, width=WIDTHS[name])


def _expected(file: str) -> Tensors:
    with np.load(FIXTURES / file) as arrays:
        return dict(arrays)


def _assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize(
    ("file", "kind", "expected"),
    [
        ("pytorch-odd-zip.pth", "pth", "pytorch-odd.npz"),
        ("pytorch-odd-legacy.pth", "legacy pth", "pytorch-odd.npz"),
        ("pytorch-odd-protocol4.pth", "pth", "pytorch-odd.npz"),
        ("pytorch-training-zip.pth.tar", "pth", "pytorch-training.npz"),
        ("pytorch-training-legacy.pth.tar", "legacy pth", "pytorch-training.npz"),
        ("mindspore-crc.ckpt", "ckpt", "mindspore-odd.npz"),
        ("mindspore-training.ckpt", "ckpt", "mindspore-training.npz"),
    ],
)
def test_what_a_framework_wrote_is_read_to_the_bit(file: str, kind: str, expected: str) -> None:
    checkpoint = read_checkpoint(FIXTURES / file)
    assert checkpoint.format == kind
    _assert_same(checkpoint.tensors, _expected(expected))


def test_numbers_appended_to_a_mindspore_checkpoint_are_tensors_and_text_is_left_out() -> None:
    tensors = read_checkpoint(FIXTURES / "mindspore-odd.ckpt").tensors
    assert tensors.pop("epoch_num") == 3
    _assert_same(tensors, _expected("mindspore-odd.npz"))


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("mindspore-encrypted.ckpt", "it is encrypted"),
        ("pytorch-module.pth", "asks for 'torch.nn.modules.linear.Linear'"),
        ("mindspore-odd.npz", "it is a zip file, but none that torch.save has written"),
        ("make_pytorch.py", "it is no MindSpore, PyTorch or safetensors file"),
    ],
)
def test_a_file_of_another_kind_is_refused(file: str, sentence: str) -> None:
    with pytest.raises(InvalidValueError, match=sentence):
        read_checkpoint(FIXTURES / file)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_trip_through_all_formats_keeps_every_bit(name: str, tmp_path: Path) -> None:
    weights = random_weights(_small(name), seed=1)
    tensors: Tensors = dict(weights)
    for ending in ("ckpt", "pth", "safetensors", "ckpt"):
        write_checkpoint(tmp_path / f"weights.{ending}", tensors)
        tensors = read_checkpoint(tmp_path / f"weights.{ending}").tensors
        _assert_same(tensors, dict(weights))


@pytest.mark.parametrize("ending", ["ckpt", "pth", "pt", "safetensors"])
def test_the_same_weights_make_the_same_file(ending: str, tmp_path: Path) -> None:
    weights = random_weights(_small("sknet50"), seed=1)
    for name in ("a", "b"):
        write_checkpoint(tmp_path / f"{name}.{ending}", weights)
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "weights.ckpt"
    target.write_bytes(b"old")
    with pytest.raises(UnicodeEncodeError):
        write_checkpoint(target, {"a": np.zeros(3, np.float32), "\ud800": np.zeros(3, np.float32)})
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_ending_that_names_no_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidValueError, match=r"ends in '.onnx'; allowed are .ckpt, .pth, .pt, .safetensors"
    ):
        write_checkpoint(tmp_path / "weights.onnx", {})


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def _entry(name: bytes, dims: bytes, content: bytes, kind: bytes = b"Float32") -> bytes:
    return _field(1, _field(1, name) + _field(2, dims + _field(2, kind) + _field(3, content)))


FLOATS = np.arange(6, dtype=np.float32).tobytes()


@pytest.mark.parametrize("dims", [b"\x08\x02\x08\x03", b"\x0a\x02\x02\x03"], ids=["plain", "packed"])
def test_a_tensor_in_several_entries_is_joined(dims: bytes) -> None:
    parts = [FLOATS[:8], FLOATS[8:12], FLOATS[12:]]
    file = b"".join(_entry(b"w", dims, part) for part in parts) + _entry(b"v", b"\x08\x01", FLOATS[:4])
    tensors = read_ckpt(io.BytesIO(file))
    assert tensors["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["v"].tolist() == [0]


@pytest.mark.parametrize(
    ("dims", "content", "shape"),
    [(b"", FLOATS[:4], ()), (b"\x08\x00", FLOATS[:4], ()), (b"\x08\x00", b"", (0,))],
)
def test_scalars_of_old_and_new_versions_are_read(
    dims: bytes, content: bytes, shape: tuple[int, ...]
) -> None:
    assert read_ckpt(io.BytesIO(_entry(b"s", dims, content)))["s"].shape == shape


def test_map_tensors_are_left_out() -> None:
    assert read_ckpt(io.BytesIO(_field(1, _field(1, b"map") + _field(3, b"anything")))) == {}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (_entry(b"w", b"\x08\x02", FLOATS), r"'w' has 24 bytes, where its shape \(2,\) needs 8"),
        (_entry(b"w", b"\x08\x06", FLOATS) * 2, r"'w' has 48 bytes, where its shape \(6,\) needs 24"),
        (_entry(b"w", b"\x08\x06", FLOATS) + _entry(b"w", b"\x08\x01", FLOATS), "'w' is there twice"),
        (_entry(b"w", b"", FLOATS, b"Quaternion"), "'w' has the type 'Quaternion'"),
        (_field(2, b"x"), "it has a field 2"),
        (b"\x08\x01", "a number where text or bytes belong"),
        (b"\x0b", "it is not made of the fields"),
        (b"\x0a" + b"\xff" * 10, "a number of more than ten bytes"),
        (b"\x0a\x05w", "it ends in the middle of a tensor"),
        (b"\x0a", "it ends in the middle of a number"),
        (_entry(b"w", b"", FLOATS[:4]) + b"crc_num" + bytes(10), "does not have the checksum"),
    ],
)
def test_a_mindspore_file_that_contradicts_itself_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidValueError, match=sentence):
        read_ckpt(io.BytesIO(content))


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    with pytest.raises(InvalidValueError, match="it is compressed"):
        read_checkpoint(bomb)


def test_a_compiled_program_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "program.pt"
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("program/data.pkl", b"")
        archive.writestr("program/constants.pkl", b"")
    with pytest.raises(InvalidValueError, match="it is a TorchScript program"):
        read_checkpoint(program)


@pytest.mark.parametrize("kind", ["F8_E4M3", "C64"])
def test_a_type_of_safetensors_that_is_no_weight_is_refused(kind: str, tmp_path: Path) -> None:
    size = {"F8_E4M3": 1, "C64": 8}[kind]
    header = f'{{"w":{{"dtype":"{kind}","shape":[1],"data_offsets":[0,{size}]}}}}'.encode()
    file = tmp_path / "odd.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    with pytest.raises(InvalidValueError, match=f"'w' has the type {kind}"):
        read_checkpoint(file)


@pytest.mark.parametrize("length", [0x280, 0x10A])
def test_safetensors_are_told_whatever_the_length_of_their_header(length: int, tmp_path: Path) -> None:
    """A length of 0x280 begins as a pickle does, one of 0x10a as MindSpore's files."""
    header = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'.ljust(length)
    path = tmp_path / "a.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header + np.float32(5).tobytes())
    found = read_checkpoint(path)
    assert (found.format, found.tensors["a"]) == ("safetensors", 5)


def test_bfloat16_of_safetensors_becomes_float32(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    file = tmp_path / "brain.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\x20\xc0")
    tensor = read_checkpoint(file).tensors["w"]
    assert (tensor.dtype, tensor.tolist()) == (np.float32, [1.0, -2.5])
