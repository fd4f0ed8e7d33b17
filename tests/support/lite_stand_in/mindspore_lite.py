"""Stands in for the package mindspore_lite, with its documented signatures and the traps that it is known for.

A model is a file: a line that may say CustomAscend, then JSON with its gears, side and classes, and what is odd about
it. STAND_IN_VERSION chooses the API of 2.0.0 or a newer one; what is called is printed.
"""

import json
import os
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

__version__ = os.environ.get("STAND_IN_VERSION", "2.7.0")
DEVICES = 2


class ModelType(Enum):
    MINDIR = 0
    MINDIR_LITE = 4


class DataType(Enum):
    UINT8 = 37
    FLOAT16 = 42
    FLOAT32 = 43


class ModelGroupFlag(Enum):
    SHARE_WEIGHT = 1
    SHARE_WORKSPACE = 2
    SHARE_WEIGHT_WORKSPACE = 3


NUMPY = {DataType.UINT8: np.uint8, DataType.FLOAT16: np.float16, DataType.FLOAT32: np.float32}


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class Settable:
    """Takes the properties that it was declared with, in their types, and no others."""

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.__dict__:
            raise AttributeError(name)
        if not isinstance(value, type(self.__dict__[name])):
            raise TypeError(name)
        self.__dict__[name] = value


class Context:
    def __init__(self) -> None:
        precision = "enforce_fp32"
        self.cpu: Any = Settable(thread_num=0, thread_affinity_mode=0, precision_mode=precision)
        self.ascend: Any = Settable(device_id=0, precision_mode="")
        self.target = ["cpu"]


class Tensor:
    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array
        self.dtype = next(kind for kind, of_numpy in NUMPY.items() if of_numpy == array.dtype)
        self.shape = list(array.shape)
        self.data_size = array.nbytes

    def set_data_from_numpy(self, array: np.ndarray[Any, Any]) -> None:
        if array.nbytes != self.data_size or array.dtype != NUMPY[self.dtype]:
            raise RuntimeError("data size not equal")
        if array.flags.c_contiguous:  # of any other the old contents are kept, silently
            self._array = array

    def get_data_to_numpy(self) -> np.ndarray[Any, Any]:
        return self._array


class AnyModel:
    def __init__(self) -> None:
        self._inputs: list[Tensor] = []
        self._graph: dict[str, Any] = {}

    def _build(self, path: str, kind: ModelType, context: Context, config_path: str) -> None:
        if not isinstance(path, str) or kind is not ModelType.MINDIR:
            raise TypeError("model_path or model_type")
        if config_path and not Path(config_path).exists():
            raise RuntimeError("build_from_file failed, config_path does not exist!")
        if "ascend" in context.target and context.ascend.device_id >= DEVICES:
            context.ascend.device_id = 0  # as the real one does, with a warning
        ascend, cpu = context.ascend, context.cpu
        say("built", Path(path).name, "for", *context.target, vars(ascend), vars(cpu), config_path or "-")
        try:
            self._graph = json.loads(Path(path).read_bytes().partition(b"\n")[2])
        except ValueError:
            raise RuntimeError("build_from_file failed! Error is Common error code.") from None
        rows, classes = max(self._graph["gears"]), self._graph["classes"]
        self._answers = np.zeros((rows, classes), self._graph.get("answers", "f4"))
        self._take(self._graph["gears"][0])

    def _take(self, rows: int) -> None:
        shape = (rows, self._graph["side"], self._graph["side"], 3)
        taken, count = self._graph.get("takes", "u1"), self._graph.get("inputs", 1)
        self._inputs = [Tensor(np.zeros(shape, taken)) for _ in range(count)]

    def get_inputs(self) -> list[Tensor]:
        return self._inputs

    def resize(self, _inputs: list[Tensor], dims: list[list[int]]) -> None:
        if len(self._graph["gears"]) == 1:
            os.abort()  # as 2.0.0 does on the CPU for grouped convolutions
        if dims[0][0] not in self._graph["gears"]:
            raise RuntimeError("resize failed! Error is Common error code.")
        say("resized to", dims[0][0])
        self._take(dims[0][0])

    def _answer(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        if self._graph.get("fails"):
            raise RuntimeError("predict failed!")
        images = inputs[0].get_data_to_numpy()
        answers = self._answers[: len(images)]  # one buffer, which the next call overwrites
        for image, answer in zip(images, answers, strict=True):
            answer[:] = np.random.RandomState(int(image.sum(dtype=np.uint64))).randn(len(answer))
        return [Tensor(answers)]


class ModelOf20(AnyModel):
    def build_from_file(
        self, model_path: str, model_type: ModelType, context: Context, config_path: str = ""
    ) -> None:
        self._build(model_path, model_type, context, config_path)

    def predict(self, inputs: list[Tensor]) -> list[Tensor]:
        if not isinstance(inputs, list):
            raise TypeError("inputs must be list")
        return self._answer(inputs)


class ModelOf27(AnyModel):
    def build_from_file(  # noqa: PLR0917 - as documented
        self,
        model_path: str,
        model_type: ModelType,
        context: Context,
        config_path: str = "",
        config_dict: dict[str, dict[str, str]] | None = None,
        dec_key: bytes | None = None,
        dec_mode: str = "AES-GCM",
        dec_num_parallel: int = 0,
    ) -> None:
        if config_dict or dec_key or dec_num_parallel or dec_mode != "AES-GCM":
            raise NotImplementedError
        self._build(model_path, model_type, context, config_path)

    def predict(self, inputs: Sequence[Tensor], outputs: list[Tensor] | None = None) -> list[Tensor]:
        if outputs:
            raise NotImplementedError
        return self._answer(inputs)


class ModelGroup:
    def __init__(self, flags: ModelGroupFlag = ModelGroupFlag.SHARE_WORKSPACE) -> None:
        self._flags, self._paths = flags, list[str]()

    def add_model(self, models: Sequence[str]) -> None:
        if not all(isinstance(each, str) for each in models):
            raise TypeError("models")
        self._paths += models

    def cal_max_size_of_workspace(self, model_type: ModelType, context: Context) -> None:
        if not isinstance(context, Context) or model_type is not ModelType.MINDIR:
            raise TypeError("context or model_type")
        say(self._flags.name, "of", len(self._paths), "models on", context.ascend.device_id)


Model = ModelOf20 if __version__ == "2.0.0" else ModelOf27
if __version__ == "2.0.0":
    del ModelGroup, ModelGroupFlag
