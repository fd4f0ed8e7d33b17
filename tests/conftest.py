"""For all tests: OpenVINO, imported here for comparison, reports nothing to its vendor."""

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
