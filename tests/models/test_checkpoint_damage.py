"""Whatever becomes of a file on its way, it is read, or refused in our own words; nothing else happens."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.checkpoints import read_checkpoint, write_checkpoint
from models.checkpoints.tensors import Tensors
from models.errors import InvalidValueError

FIXTURES = Path(__file__).parent / "fixtures"
FILES = (
    "mindspore-odd.ckpt",
    "mindspore-crc.ckpt",
    "pytorch-odd-zip.pth",
    "pytorch-odd-legacy.pth",
    "pytorch-odd-protocol4.pth",
    "pytorch-training-legacy.pth.tar",
    "odd.safetensors",
)
MAX_VALUES = 1 << 20


def _content(file: str, folder: Path) -> bytes:
    if file == "odd.safetensors":
        tensors = read_checkpoint(FIXTURES / "pytorch-odd-zip.pth").tensors
        write_checkpoint(
            folder / file, {name: tensors[name].astype("<f4") for name in ("plain", "row", "half")}
        )
        return (folder / file).read_bytes()
    return (FIXTURES / file).read_bytes()


def _tensors_or_none(path: Path, content: bytes) -> Tensors | None:
    path.write_bytes(content)
    try:
        tensors = read_checkpoint(path).tensors
    except InvalidValueError as error:
        _check_sentence(str(error), path)
        return None
    for tensor in tensors.values():
        if tensor.size < MAX_VALUES:
            tensor.tobytes()  # every value that a tensor promises is there
    return tensors


def _check_sentence(sentence: str, path: Path) -> None:
    assert sentence.startswith(f"checkpoint {path} ")
    assert "\n" not in sentence


@pytest.mark.parametrize("file", FILES)
def test_a_truncated_file_is_refused(file: str, tmp_path: Path) -> None:
    content = _content(file, tmp_path)
    whole = _tensors_or_none(tmp_path / "whole", content)
    assert whole
    for length in range(0, len(content), max(1, len(content) // 200)):
        cut = _tensors_or_none(tmp_path / "cut", content[:length])
        # The entries of a MindSpore file know nothing of one another: cut between two, the first are whole.
        assert cut is None or (file.endswith(".ckpt") and len(cut) < len(whole))


@pytest.mark.parametrize("file", FILES)
def test_a_file_with_one_wrong_byte_is_read_or_refused(file: str, tmp_path: Path) -> None:
    content = _content(file, tmp_path)
    for position in range(0, len(content), max(1, len(content) // 300)):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[position] ^= mask
            _tensors_or_none(tmp_path / "damaged", bytes(damaged))


def test_a_checksum_finds_every_wrong_byte(tmp_path: Path) -> None:
    content = (FIXTURES / "mindspore-crc.ckpt").read_bytes()
    for position in range(len(content) - 17):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        assert _tensors_or_none(tmp_path / "damaged", bytes(damaged)) is None


HEADS = (
    b"\x0a",
    b"\x80\x02",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
    b"PK\x03\x04",
    b"",
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=300))
def test_noise_is_read_or_refused(head: bytes, tail: bytes) -> None:
    with TemporaryDirectory() as folder:
        _tensors_or_none(Path(folder) / "noise", head + tail)


@settings(max_examples=150, deadline=None)
@given(
    file=st.sampled_from(FILES[:-1]),
    edits=st.lists(st.tuples(st.integers(0), st.binary(max_size=4)), max_size=4),
)
def test_an_edited_file_is_read_or_refused(file: str, edits: list[tuple[int, bytes]]) -> None:
    content = bytearray((FIXTURES / file).read_bytes())
    for position, replacement in edits:
        start = position % len(content)
        content[start : start + 2] = replacement
    with TemporaryDirectory() as folder:
        _tensors_or_none(Path(folder) / "edited", bytes(content))
