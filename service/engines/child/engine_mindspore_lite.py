"""Runs MindIR files with MindSpore Lite, 2.0.0 and newer, on the CPU or on an Ascend NPU. Lives in the engine process.

The CPU's way is tested with the real library. The NPU's way, which is all below _Npu, has been run only against a
stand-in with the documented signatures: no line of it has met an NPU.
"""

import mmap
import os
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

COMPILED_MARK = b"CustomAscend"  # the name of the one node that a MindIR compiled for NPUs holds
OM_MARK = b"IMOD"  # how the files of Ascend's own compiler begin


class Engine:
    """A loaded model for each file of the order."""

    def __init__(self, order: Dict[str, Any]) -> None:
        os.environ.setdefault("GLOG_v", "3")  # errors only; the library warns of each graph that it loads
        import mindspore_lite as lite

        place = (_Npu if order["device"]["kind"] == "ascend" else _Cpu)(lite, order)
        place.prepare([file["path"] for file in order["files"]])
        self._lanes: Dict[int, _Lane] = {}
        for file in order["files"]:
            lane = _Lane(lite, place.load(file["path"]), file["gears"], order["classes"])
            self._lanes.update((gear, lane) for gear in file["gears"])
        self.about = "mindspore_lite %s %s" % (getattr(lite, "__version__", "?"), place.about)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Answer uint8 (gear, side, side, 3) with float32 (gear, classes)."""
        lane = self._lanes.get(len(images))
        if lane is None:
            gears = ", ".join(map(str, sorted(self._lanes)))
            raise ValueError("a batch of %d rows; the gears are %s" % (len(images), gears))
        return lane.run(images)


class _Lane:
    """One loaded model. It is resized where its file holds several gears, never else: 2.0.0 dies of it."""

    def __init__(self, lite: Any, model: Any, gears: List[int], classes: int) -> None:
        self._lite, self._model, self._classes = lite, model, classes
        self._has_gears = len(gears) > 1
        inputs = model.get_inputs()
        if len(inputs) != 1:
            raise ValueError("the model has %d inputs; one is needed" % len(inputs))

    def run(self, images: np.ndarray) -> np.ndarray:
        images = np.ascontiguousarray(
            images
        )  # of any other layout the library keeps the old contents, silently
        tensor = self._input_for(images)
        if tensor.dtype != self._lite.DataType.UINT8 or tensor.data_size != images.nbytes:
            raise ValueError(
                "the model takes %s of %d bytes, not %d bytes of uint8"
                % (tensor.dtype, tensor.data_size, images.nbytes)
            )
        tensor.set_data_from_numpy(images)  # not copied: `images` must live until the answer is there
        outputs = self._model.predict([tensor])
        if len(outputs) != 1 or outputs[0].dtype != self._lite.DataType.FLOAT32:
            raise ValueError("the model answers %s" % ", ".join(str(each.dtype) for each in outputs))
        answer = np.array(
            outputs[0].get_data_to_numpy()
        )  # a copy: the next batch overwrites what it was made of
        return answer.reshape(len(images), self._classes)

    def _input_for(self, images: np.ndarray) -> Any:
        (tensor,) = self._model.get_inputs()
        if self._has_gears and tensor.shape[0] != len(images):
            self._model.resize([tensor], [list(images.shape)])
            (tensor,) = self._model.get_inputs()
        return tensor


class _Cpu:
    """How models are loaded for the CPU."""

    def __init__(self, lite: Any, order: Dict[str, Any]) -> None:
        self._lite, self._order = lite, order
        self.about = "cpu"

    def prepare(self, paths: List[str]) -> None:
        """Do what is to be done once, before any file is loaded."""

    def load(self, path: str) -> Any:
        """Load one file."""
        config = self._order["options"]["config_file"] or ""
        model = self._lite.Model()
        try:
            model.build_from_file(path, self._lite.ModelType.MINDIR, self.context(), config)
        except RuntimeError as error:  # its words name no file
            raise RuntimeError("%s: %s" % (Path(path).name, error)) from error
        return model

    def context(self) -> Any:
        """Make a context; the library forbids that models share one."""
        context = self._lite.Context()
        context.target = ["cpu"]
        context.cpu.precision_mode = "enforce_fp32"
        self.set_threads(context)
        return context

    def set_threads(self, context: Any) -> None:
        """Set the threads of the CPU, which an NPU's models use as well."""
        if self._order["threads"]:
            context.cpu.thread_num = self._order["threads"]
        if self._order["pins_threads"] is not None:
            context.cpu.thread_affinity_mode = 1 if self._order["pins_threads"] else 0


class _Npu(_Cpu):
    """How models are loaded for an NPU."""

    def __init__(self, lite: Any, order: Dict[str, Any]) -> None:
        super().__init__(lite, order)
        self._number = order["device"]["number"]
        self.about = "ascend:%d" % self._number

    def prepare(self, paths: List[str]) -> None:
        """Refuse what the library would accept to its harm; have the files share their working memory."""
        self._check_there()
        for path in paths:
            self._check_compiled(Path(path))
        if len(paths) > 1 and hasattr(self._lite, "ModelGroup"):  # 2.1.0 and newer
            group = self._lite.ModelGroup()
            group.add_model(paths)
            group.cal_max_size_of_workspace(self._lite.ModelType.MINDIR, self.context())

    def context(self) -> Any:
        """Make a context for the NPU, with the CPU for what the NPU cannot do."""
        context = self._lite.Context()
        context.target = ["ascend"]
        context.ascend.device_id = self._number
        context.ascend.precision_mode = self._order["options"]["precision"]
        self.set_threads(context)
        return context

    def _check_there(self) -> None:
        """Refuse a number past the last: the library takes the first device instead, with a warning."""
        nodes = Path(self._order["options"]["device_folder"]).glob("davinci[0-9]*")
        there = sum(node.name[7:].isdigit() for node in nodes)
        if self._number >= there:
            raise ValueError("%s is not there: this machine shows %d NPUs" % (self.about, there))

    def _check_compiled(self, path: Path) -> None:
        """Refuse a graph that the library would compile for minutes at each start, and what it cannot read."""
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[: len(OM_MARK)] == OM_MARK:
                raise ValueError("%s is an OM; converter_lite --fmk=OM wraps it into a MindIR" % path.name)
            if content.find(COMPILED_MARK) < 0 and not self._order["options"]["allows_uncompiled"]:
                raise ValueError(
                    "%s was not compiled for NPUs; ascend_uncompiled=allow has that done at each start"
                    % path.name
                )
