"""Evaluate a pickle without running it: file -> plain values and inert markers.

`pickletools` splits the bytes into opcodes and does nothing else. What an opcode means is written here, for
the few that a checkpoint needs. A class or function becomes a `Name`, calling it a `Call`, an object outside
the pickle an `Outside`: none of them can be called, so nothing in a file can run.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias

from models.errors import InvalidValueError

MAX_PICKLE_BYTES = 16 << 20

STORAGES = {
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
PARAMETER = "torch._utils._rebuild_parameter"

# Found beside the weights in training checkpoints: arguments, metrics, states of schedulers.
_BYSTANDERS = {
    "__builtin__.set",
    "_codecs.encode",
    "argparse.Namespace",
    "builtins.set",
    "collections.Counter",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "torch.Size",
    "torch.device",
    "torch.float16",
    "torch.float32",
    "torch.float64",
}
_ORDERED_DICT = "collections.OrderedDict"
_NAMES = {_ORDERED_DICT, PARAMETER, *TENSORS, *STORAGES, *_BYSTANDERS}


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the file names, module and all."""

    dotted: str


@dataclass(frozen=True, slots=True)
class Call:
    """What the file wants called; nobody calls it."""

    name: str
    arguments: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Outside:
    """The id of an object that lies outside the pickle: a storage."""

    key: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickle:
    """The value of a pickle, and everything outside of it that it names."""

    value: object
    outside: list[object]


def evaluate(file: BinaryIO) -> Pickle:
    """Return the content of the pickle that starts here and leave the file behind its end.

    Raises InvalidValueError for a name or opcode that is not on the lists of this module. On damaged bytes
    other exceptions can occur, all of them of type Exception.
    """
    start = file.tell()
    machine = _Machine()
    for opcode, argument, position in pickletools.genops(file):
        if position is not None and position - start > MAX_PICKLE_BYTES:
            raise InvalidValueError(
                f"its pickle is longer than allowed, {MAX_PICKLE_BYTES} bytes; it is none of weights"
            )
        machine.step(opcode.name, argument)
    return Pickle(value=machine.pop(), outside=machine.outside)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_EMPTY: dict[str, Callable[[], object]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SILENT = {"PROTO", "FRAME", "STOP"}

_Argument: TypeAlias = object


@dataclass(slots=True)
class _Machine:
    """The stack and the memo of one pickle."""

    stack: list[object] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[object, object] = field(default_factory=dict)
    outside: list[object] = field(default_factory=list)

    def step(self, opcode: str, argument: _Argument) -> None:
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            self.stack.append(_EMPTY[opcode]())
        elif opcode in _SHORT_TUPLES:
            count = _SHORT_TUPLES[opcode]
            self.stack.append(tuple(reversed([self.pop() for _ in range(count)])))
        elif opcode not in _SILENT:
            self._act(opcode, argument)

    def pop(self) -> object:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise InvalidValueError("its pickle takes more from the stack than is there")
        return self.stack.pop()

    def _act(self, opcode: str, argument: _Argument) -> None:
        match opcode:
            case "MARK":
                self.marks.append(len(self.stack))
            case "TUPLE":
                self.stack.append(tuple(self._pop_marked()))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "APPEND":
                self._extend([self.pop()])
            case "APPENDS":
                self._extend(self._pop_marked())
            case "SETITEM":
                self._update(list(reversed([self.pop(), self.pop()])))
            case "SETITEMS":
                self._update(self._pop_marked())
            case _:
                self._name(opcode, argument)

    def _name(self, opcode: str, argument: _Argument) -> None:
        """Act on what real unpicklers would import, call or fill: here it only becomes a marker."""
        match opcode:
            case "GLOBAL":
                self.stack.append(_allowed(str(argument).replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                if not isinstance(attribute, str) or not isinstance(module, str):
                    raise InvalidValueError("its pickle asks for a name that is no text")
                self.stack.append(_allowed(f"{module}.{attribute}"))
            case "REDUCE" | "NEWOBJ":
                arguments = self.pop()
                self.stack.append(_called(self.pop(), arguments))
            case "BUILD":
                self.pop()  # attributes, such as the versions that a state dict carries: of no use here
                if not isinstance(self.stack[-1], dict | Call):
                    raise InvalidValueError("its pickle sets attributes on what can have none")
            case "BINPERSID":
                self.outside.append(self.pop())
                self.stack.append(Outside(self.outside[-1]))
            case _:
                raise InvalidValueError(f"its pickle has the opcode {opcode}, which no weights need")

    def _pop_marked(self) -> list[object]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _extend(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise InvalidValueError("its pickle appends to what is no list")
        target.extend(items)

    def _update(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise InvalidValueError("its pickle puts items into what is no dict")
        target.update(_pairs(items[::2], items[1::2]))


def _allowed(dotted: str) -> Name:
    if dotted not in _NAMES:
        raise InvalidValueError(
            f"its pickle asks for {dotted[:200]!r}, which no weights need; nothing was run"
        )
    return Name(dotted)


def _called(name: object, arguments: object) -> object:
    if not isinstance(name, Name) or not isinstance(arguments, tuple):
        raise InvalidValueError("its pickle calls what is no name")
    if name.dotted != _ORDERED_DICT:
        return Call(name.dotted, arguments)
    items = arguments[0] if arguments else []
    if not isinstance(items, list):
        raise InvalidValueError("its pickle makes an ordered dict of what is no list")
    return _pairs([key for key, _ in items], [value for _, value in items])


def _pairs(keys: list[object], values: list[object]) -> dict[object, object]:
    # Plain keys alone: to hash a tuple that is nested a million deep would overflow the stack of C.
    if not all(isinstance(key, str | int | float) for key in keys):
        raise InvalidValueError("its pickle has a key that is neither text nor number")
    return dict(zip(keys, values, strict=True))
