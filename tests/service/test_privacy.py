"""Nothing that we use reports to anybody."""

import subprocess
import sys

from serving import ROOT, UNTRAINED

PROGRAM = """
import sys
sys.path.insert(0, "service/engines/child")
from engine_openvino import Engine
options = {"precision": "f32", "cache_folder": None}
Engine({"files": [{"path": sys.argv[1], "gears": None}], "options": options, "threads": 1, "pins_threads": None})
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
"""


def test_openvino_sends_no_telemetry() -> None:
    """Its own stub stands in for the package that would send."""
    graph = str(UNTRAINED / "sknet50" / "1" / "model.onnx")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, graph], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
