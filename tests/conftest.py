"""For all tests: OpenVINO, imported here for comparison, reports nothing to its vendor.

PyTorch and MindSpore compute in one thread each: on a busy machine more of them only wait for each other, and spin.
"""

import os
import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
os.environ.setdefault("OMP_NUM_THREADS", "1")
