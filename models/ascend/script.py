"""Write the script that compiles a bundle for an Ascend NPU: Compilation -> text of a shell script.

Nothing here has met an NPU or its compiler: the calls are those of the vendor's documents and sources.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from models.ascend.planes import Normalisation
from models.errors import InvalidValueError
from models.manifest import GRAPH_FILE, check_gears

_SOC_VERSIONS = {"ascend310": "Ascend310", "ascend310p": "Ascend310P3", "ascend910": "Ascend910A"}
_CONVERTER_PRECISIONS = {"f16": "enforce_fp16", "mixed": "preferred_optimal", "f32": "enforce_fp32"}
_ATC_PRECISIONS = {"f16": "force_fp16", "mixed": "allow_mix_precision", "f32": "force_fp32"}
_MAX_GEARS = 100  # of both compilers


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """What is compiled, for which chip, and how.

    `through` is the compiler: "converter" is converter_lite, which calls CANN itself; "atc" is CANN's own,
    whose OM file converter_lite then wraps. With a `normalisation` the NPU's image stage does it (AIPP) and the
    graph's first nodes are left out; without, they are compiled like all others.
    """

    model: str
    version: int
    side: int
    classes: int
    target: str
    gears: tuple[int, ...]
    precision: Literal["f32", "f16", "mixed"]
    through: Literal["converter", "atc"]
    soc_version: str | None = None
    normalisation: Normalisation | None = None

    def __post_init__(self) -> None:
        check_gears(self.gears)
        if len(self.gears) > _MAX_GEARS:
            raise InvalidValueError(f"gears are {len(self.gears)}; allowed are at most {_MAX_GEARS}")
        if self.soc_version is None and self.target not in _SOC_VERSIONS:
            raise InvalidValueError(
                f"target is {self.target!r}; allowed are {', '.join(_SOC_VERSIONS)},"
                " or any chip whose name for CANN is given as well (--soc-version, see npu-smi info)"
            )

    @property
    def soc(self) -> str:
        """Return the chip's name as CANN spells it."""
        return self.soc_version or _SOC_VERSIONS[self.target]

    @property
    def tools(self) -> list[str]:
        """Return the programs that the script runs."""
        return [*(["atc"] if self.through == "atc" else []), "converter_lite", "cardinal-models"]

    @property
    def script_name(self) -> str:
        """Return the name of the script, which lies beside the bundle."""
        return f"{self.version}.{self.target}.sh"

    @property
    def batch(self) -> int:
        """Return the first dimension of every shape: -1 leaves it to the gears, of which one alone is none."""
        return -1 if len(self.gears) > 1 else self.gears[0]

    @property
    def input_format(self) -> str:
        """Return the layout of the graph's own input; ND is any, as that of pixels is before it is transposed."""
        return "NCHW" if self.normalisation else "ND"

    @property
    def input_shape(self) -> str:
        """Return the shape of the graph's own input, without the stage before it."""
        sides = [3, self.side, self.side] if self.normalisation else [self.side, self.side, 3]
        return ",".join(map(str, [self.batch, *sides]))


def compile_script(order: Compilation) -> str:
    """Return the script; run from anywhere, it publishes the next version of its bundle with the compiled file."""
    return "\n\n".join(_parts(order)) + "\n"


def _parts(order: Compilation) -> Iterator[str]:
    yield _opening(order)
    if order.normalisation:
        yield _file("aipp.cfg", _aipp(order.side, order.normalisation))
        yield 'cardinal-models strip "$graph" stripped.onnx\ngraph=stripped.onnx'
    if order.through == "atc":
        yield _atc_call(order)
        yield _file("converter.cfg", _om_config(order))
        yield _converter_call(order, "OM", f"{order.target}.om")
    else:
        yield _file("converter.cfg", _converter_config(order))
        yield _converter_call(order, "ONNX", "$graph")
    yield _call(
        f'cardinal-models add-artifact "$bundle" {order.target}.mindir',
        f"--target {order.target}",
        f"--gears {','.join(map(str, order.gears))}",
        f"--precision {order.precision}",
    )


def _opening(order: Compilation) -> str:
    return f"""\
#!/bin/sh
# Compiles version {order.version} of {order.model}, which lies beside this file, for {order.target} ({order.soc}),
# and publishes the next version, which has the compiled file too.
# Run it in CANN's environment (its set_env.sh), with these on PATH: {", ".join(order.tools)}.
set -eu

for tool in {" ".join(order.tools)}; do
    command -v $tool >/dev/null || {{ echo "$0: $tool is not on PATH" >&2; exit 127; }}
done
bundle=$(cd "$(dirname "$0")/{order.version}" && pwd)
graph=$bundle/{GRAPH_FILE}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"\
"""


def _aipp(side: int, normalisation: Normalisation) -> str:
    lines = [
        "aipp_mode: static",
        "input_format: RGB888_U8",
        f"src_image_size_w: {side}",
        f"src_image_size_h: {side}",
        *(f"min_chn_{index}: {value:.9g}" for index, value in enumerate(normalisation.mean)),
        *(f"var_reci_chn_{index}: {value:.9g}" for index, value in enumerate(normalisation.reciprocal)),
    ]
    return "\n".join(["aipp_op {", *(f"    {line}" for line in lines), "}"])


def _atc_call(order: Compilation) -> str:
    return _call(
        'atc --framework=5 --model="$graph"',
        f"--output={order.target}",
        f"--soc_version={order.soc}",
        f"--input_format={order.input_format}",
        f"--input_shape=images:{order.input_shape}",
        *([f"--dynamic_batch_size={','.join(map(str, order.gears))}"] if order.batch == -1 else []),
        f"--precision_mode={_ATC_PRECISIONS[order.precision]}",
        "--output_type=FP32",
        *(["--insert_op_conf=aipp.cfg"] if order.normalisation else []),
    )


def _om_config(order: Compilation) -> str:
    """Return what an OM file does not tell converter_lite; an AIPP stage has made the input pixels again."""
    return f"""\
[om_converter]
input_name_vector=images
input_shape_vector={order.batch},{order.side},{order.side},3
input_data_type_vector=UINT8
output_name_vector=logits
output_shape_vector={order.batch},{order.classes}
output_data_type_vector=FLOAT32"""


def _converter_config(order: Compilation) -> str:
    lines = [
        "[ascend_context]",
        f"input_format={order.input_format}",
        *(_gear_lines(order) if order.batch == -1 else []),
        f"precision_mode={_CONVERTER_PRECISIONS[order.precision]}",
        "output_type=FP32",
        *(["insert_op_config_file_path=aipp.cfg"] if order.normalisation else []),
        "",
        "[acl_init_options]",
        f"ge.socVersion={order.soc}",
    ]
    return "\n".join(lines)


def _gear_lines(order: Compilation) -> list[str]:
    gears = ",".join(f"[{gear}]" for gear in order.gears)
    return [f"input_shape=images:[{order.input_shape}]", f"dynamic_dims={gears}"]


def _converter_call(order: Compilation, kind: str, file: str) -> str:
    is_fixed = order.through == "converter" and order.batch != -1
    return _call(
        f'converter_lite --fmk={kind} --modelFile="{file}"',
        f"--outputFile={order.target}",
        "--saveType=MINDIR",
        "--optimize=ascend_oriented",
        *([f"--inputShape=images:{order.input_shape}"] if is_fixed else []),
        "--configFile=converter.cfg",
    )


def _file(name: str, content: str) -> str:
    return f"cat >{name} <<'END'\n{content}\nEND"


def _call(*words: str) -> str:
    return " \\\n    ".join(words)
