"""A checkpoint is never run: what would do anything else than name tensors is refused, and does nothing."""

import copyreg
import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.checkpoints import read_checkpoint
from models.checkpoints.pickles import Call, evaluate
from models.checkpoints.pth import MAGIC, PROTOCOL
from models.errors import InvalidValueError

EXTENSION = 240


class _Touch:
    """Pickles as a call that makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.marker}",)


def _text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _call(module: str, name: str, argument: str) -> bytes:
    return b"\x80\x02" + _global(module, name) + _text(argument) + b"\x85R."


def _legacy(pickled: bytes, keys: bytes = b"\x80\x02].") -> bytes:
    system = {"protocol_version": PROTOCOL, "little_endian": True}
    heads = [pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, system)]
    return b"".join(heads) + pickled + keys


def _zipped(pickled: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    return file.getvalue()


def _attacks(marker: Path) -> dict[str, bytes]:
    shell, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    attacks = {
        f"reduce of protocol {protocol}": pickle.dumps(_Touch(marker), protocol) for protocol in range(6)
    }
    calls = {
        "eval": ("builtins", "eval", code),
        "exec": ("builtins", "exec", code),
        "old eval": ("__builtin__", "eval", code),
        "popen": ("subprocess", "getoutput", shell),
        "pty": ("pty", "spawn", shell),
        "torch.load": ("torch", "load", str(marker)),
        "torch.serialization.load": ("torch.serialization", "load", str(marker)),
        "torch.hub": ("torch.hub", "load", str(marker)),
        "pickle in pickle": ("pickle", "loads", str(marker)),
        "numpy's runner": ("numpy.testing._private.utils", "runstring", code),
        "import": ("importlib", "import_module", "antigravity"),
        "attribute of a name": ("collections", "OrderedDict.__init__.__globals__", ""),
        "a name with a space": ("torch._utils _rebuild_tensor_v2", "x", ""),
    }
    attacks |= {title: _call(*call) for title, call in calls.items()}
    system = _text("os") + _text("system")
    return attacks | {
        "stack global": b"\x80\x04" + system + b"\x93" + _text(shell) + b"\x85R.",
        "stack global of the memo": b"\x80\x04"
        + _text("os")
        + b"\x94"
        + _text("system")
        + b"\x94h\x00h\x01\x93"
        + _text(shell)
        + b"\x85R.",
        "stack global of no text": b"\x80\x04" + b"K\x01K\x02\x93.",
        "inst": b"(S'" + shell.encode() + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + shell.encode() + b"'\no.",
        "newobj": b"\x80\x02cos\nsystem\n" + _text(shell) + b"\x85\x81.",
        "newobj_ex": b"\x80\x04" + system + b"\x93" + _text(shell) + b"\x85}\x92.",
        "extension of one byte": b"\x80\x02\x82" + bytes([EXTENSION]) + _text(shell) + b"\x85R.",
        "extension of two bytes": b"\x80\x02\x83" + bytes([EXTENSION, 0]) + _text(shell) + b"\x85R.",
        "extension of four bytes": b"\x80\x02\x84" + bytes([EXTENSION, 0, 0, 0]) + _text(shell) + b"\x85R.",
        "persistent id of text": b"Pstorage\n.",
        "persistent id of a module": b"\x80\x02("
        + _text("module")
        + b"cos\nsystem\n"
        + _text(shell)
        + b"tQ.",
        "persistent id of a call": b"\x80\x02("
        + _text("storage")
        + _call("os", "system", shell)[2:-1]
        + b"tQ.",
        "state of a name": b"\x80\x02"
        + _global("collections", "OrderedDict")
        + b"}"
        + _text("fromkeys")
        + _text(shell)
        + b"sb.",
        "call of a text": b"\x80\x02" + _text("os.system") + _text(shell) + b"\x85R.",
        "call of a call": b"\x80\x02" + _global("_codecs", "encode") + b")R" + _text(shell) + b"\x85R.",
        "call without a tuple": b"\x80\x02" + _global("_codecs", "encode") + _text(shell) + b"R.",
        "nested zip": _zipped(pickle.dumps(_Touch(marker))),
        "buffers": b"\x80\x05\x97.",
        "stack of another mark": b"\x80\x02K\x01(\x85.",
    }


ATTACKS = tuple(_attacks(Path()))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register an extension and fill its cache, which a subclass of Unpickler does not get to see."""
    copyreg.add_extension("os", "system", EXTENSION)
    pickle.loads(b"\x80\x02\x82" + bytes([EXTENSION]) + b".")
    yield
    copyreg.remove_extension("os", "system", EXTENSION)


@pytest.mark.parametrize(
    "attack", ["reduce of protocol 2", "stack global", "inst", "extension of one byte", "eval"]
)
def test_the_attacks_are_real(attack: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(_attacks(marker)[attack])
    assert marker.exists()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("wrap", [_legacy, _zipped, bytes], ids=["legacy", "zip", "bare"])
def test_nothing_in_a_file_runs(wrap: type[bytes], attack: str, tmp_path: Path) -> None:
    marker, file = tmp_path / "marker", tmp_path / "file.pth"
    file.write_bytes(wrap(_attacks(marker)[attack]))
    with pytest.raises(InvalidValueError, match=r"checkpoint .* (cannot be used|is damaged)"):
        read_checkpoint(file)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("attack", "dotted"),
    [
        ("eval", "builtins.eval"),
        ("stack global", "os.system"),
        ("torch.load", "torch.load"),
        ("newobj", "os.system"),
    ],
)
def test_the_refusal_names_what_the_file_asked_for(attack: str, dotted: str, tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    file.write_bytes(_zipped(_attacks(tmp_path / "marker")[attack]))
    with pytest.raises(
        InvalidValueError, match=f"asks for '{dotted}', which no weights need; nothing was run"
    ):
        read_checkpoint(file)


def test_a_class_beside_the_weights_stays_a_name() -> None:
    found = evaluate(io.BytesIO(pickle.dumps({1, 2}, 2))).value
    assert found == Call("__builtin__.set", ([1, 2],))


def test_a_longer_pickle_than_weights_need_is_refused() -> None:
    text = b"X" + (17 << 20).to_bytes(4, "little") + bytes(17 << 20)
    with pytest.raises(InvalidValueError, match="its pickle is longer than allowed"):
        evaluate(io.BytesIO(b"\x80\x02" + text + b"N."))


STORAGE = b"(" + _text("storage") + _global("torch", "FloatStorage") + _text("0") + _text("cpu") + b"K\x04tQ"


def _tensor_file(body: bytes, records: dict[str, bytes] | None = None) -> bytes:
    """Return a file whose state dict has one tensor `w`, made of these arguments."""
    tensor = _global("torch._utils", "_rebuild_tensor_v2") + b"(" + body + b"tR"
    file = io.BytesIO(_zipped(b"\x80\x02}" + _text("w") + tensor + b"s."))
    with zipfile.ZipFile(file, "a") as archive:
        for name, content in ({"archive/data/0": bytes(16)} if records is None else records).items():
            archive.writestr(name, content)
    return file.getvalue()


HUGE = b"\x8a\x06" + (10**12).to_bytes(6, "little")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (STORAGE + b"K\x00K\x05\x85K\x01\x85", "'w' reaches beyond its storage"),
        (STORAGE + b"K\x01K\x04\x85K\x01\x85", "'w' reaches beyond its storage"),
        (STORAGE + b"K\x00K\x02\x85" + HUGE + b"\x85", "'w' reaches beyond its storage"),
        (STORAGE + b"J\xff\xff\xff\xffK\x02\x85K\x01\x85", "'w' is not made as tensors are"),
        (STORAGE + b"K\x00K\x02\x85J\xff\xff\xff\xff\x85", "'w' is not made as tensors are"),
        (STORAGE + b"K\x00K\x02\x85)", "'w' is not made as tensors are"),
        (
            STORAGE + b"K\x00(" + b"K\x01" * 17 + b"t(" + b"K\x01" * 17 + b"t",
            "'w' is not made as tensors are",
        ),
        (b"K\x00K\x00K\x04\x85K\x01\x85", "'w' is not made as tensors are"),
        (STORAGE + b"K\x00" + HUGE + b"\x85K\x00\x85", "'w' repeats its storage"),
        (
            STORAGE.replace(b"tQ", b"(" + _text("view") + b"K\x00K\x01ttQ") + b"K\x00K\x04\x85K\x01\x85",
            "'0' is a view",
        ),
        (STORAGE.replace(b"K\x04tQ", b"K\x05tQ") + b"K\x00K\x04\x85K\x01\x85", "'0' is not as long"),
        (STORAGE.replace(b"storage", b"sturage") + b"K\x00K\x04\x85K\x01\x85", "that is no storage"),
        (STORAGE.replace(_text("0"), _text("../../x")) + b"K\x00K\x04\x85K\x01\x85", "no item named"),
    ],
)
def test_a_tensor_that_is_not_in_its_file_is_refused(body: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    file.write_bytes(_tensor_file(body))
    with pytest.raises(InvalidValueError, match=sentence):
        read_checkpoint(file)


@pytest.mark.parametrize(
    ("pickled", "sentence"),
    [
        (
            b"\x80\x02" + _global("collections", "OrderedDict") + b"N\x85R.",
            "an ordered dict of what is no list",
        ),
        (b"\x80\x02}" + _text("epoch") + b"K\x03s.", "it holds no tensors by name; allowed are a state dict"),
        (b"\x80\x02]K\x01a.", "it holds no tensors by name; allowed are a state dict"),
        (b"\x80\x02NNa.", "appends to what is no list"),
        (b"\x80\x02NNNs.", "puts items into what is no dict"),
        (
            b"\x80\x02}" + _text("w") + _global("torch._utils", "_rebuild_parameter") + b"N\x89N\x87Rs.",
            "the parameter 'w' is made of what is no tensor",
        ),
    ],
)
def test_a_pickle_of_something_else_is_refused(pickled: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    file.write_bytes(_zipped(pickled))
    with pytest.raises(InvalidValueError, match=sentence):
        read_checkpoint(file)


# A tuple of two of a tuple of two, and so on: short in memory, endless in writing.
LAUGHS = b")" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(100))
DEEP = b")" + b"\x85" * 1_000_000


@pytest.mark.parametrize(
    ("body", "keys", "sentence"),
    [
        (STORAGE, b"\x80\x02]" + _text("1") + b"a.", "lists a storage that its pickle does not name"),
        (STORAGE, b"\x80\x02]" + DEEP + b"a.", "lists a storage that its pickle does not name"),
        (STORAGE, b"\x80\x02N.", "damaged"),
        (STORAGE, b"\x80\x02]" + _text("0") + b"a." + bytes(8), "'0' is not as long as its pickle says"),
        (STORAGE, b"\x80\x02]" + _text("0") + b"a.\x04" + bytes(7 + 15), "ends in the middle of a storage"),
        (STORAGE + STORAGE.replace(b"FloatS", b"HalfS"), b"\x80\x02].", "'0' has two types or lengths"),
    ],
)
def test_legacy_storages_that_are_not_there_are_refused(
    body: bytes, keys: bytes, sentence: str, tmp_path: Path
) -> None:
    tensor = _global("torch._utils", "_rebuild_tensor_v2") + b"(" + body + b"K\x00K\x04\x85K\x01\x85tR"
    file = tmp_path / "file.pth"
    file.write_bytes(_legacy(b"\x80\x02}" + _text("w") + tensor + b"s.", keys))
    with pytest.raises(InvalidValueError, match=sentence):
        read_checkpoint(file)


@pytest.mark.parametrize("system", [{"little_endian": False}, {}, None])
def test_a_legacy_file_of_another_machine_is_refused(system: object, tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    file.write_bytes(b"".join(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, system)))
    with pytest.raises(InvalidValueError, match="not written by a little-endian machine"):
        read_checkpoint(file)


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ({"archive/byteorder": b"big"}, "not written by a little-endian machine"),
        ({"other/data.pkl": b""}, "none that torch.save has written"),
    ],
)
def test_records_that_torch_does_not_write_are_refused(
    records: dict[str, bytes], sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "file.pth"
    file.write_bytes(_tensor_file(STORAGE + b"K\x00K\x04\x85K\x01\x85", records))
    with pytest.raises(InvalidValueError, match=sentence):
        read_checkpoint(file)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"K\x01s.",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x02Nr\xff\xff\xff\x7f.",
        b"\x80\x04" + LAUGHS + b"K\x01\x93.",
        b"\x80\x04\x8d" + (1 << 62).to_bytes(8, "little") + b"x.",
        b"\x80\x02\x8b" + ((1 << 31) - 1).to_bytes(4, "little") + b"x.",
        b"",
    ],
    ids=["deep key", "deep list", "far memo", "laughs", "long text", "long number", "nothing"],
)
def test_a_pickle_cannot_exhaust_stack_or_memory(pickled: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    file.write_bytes(_legacy(pickled))
    with pytest.raises(InvalidValueError):
        read_checkpoint(file)
