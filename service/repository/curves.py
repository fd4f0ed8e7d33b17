"""Keeps measured curves between starts: what they depend on -> the curve, in a file of the state folder."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile

from service.engines import Curve, GearTime
from service.logs import fields

_log = logging.getLogger("cardinal.curves")


class CurveStore:
    """Curves in a folder, or nowhere. A file that cannot be read or written costs a measurement, nothing else."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def kept(self, depends_on: Mapping[str, str]) -> Curve | None:
        """Find the curve that was measured under the very same circumstances."""
        if self._folder is None:
            return None
        try:
            text = self._path(self._folder, depends_on).read_text()
        except OSError:
            return None
        try:
            times = json.loads(text)["gears"]
            return Curve(
                {
                    int(gear): GearTime(p50_s=each["p50_s"], p99_s=each["p99_s"])
                    for gear, each in times.items()
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("kept_curve_unreadable", extra=fields(error=str(error), **depends_on))
            return None

    def keep(self, curve: Curve, depends_on: Mapping[str, str]) -> None:
        """Write a curve; it appears whole or not at all."""
        if self._folder is None:
            return
        times = {str(gear): {"p50_s": each.p50_s, "p99_s": each.p99_s} for gear, each in curve.times.items()}
        path = self._path(self._folder, depends_on)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
                json.dump({"depends_on": dict(depends_on), "gears": times}, file, indent=1)
            os.replace(file.name, path)  # noqa: PTH105 - a string, not a path
        except OSError as error:
            _log.warning("curve_not_kept", extra=fields(error=str(error), **depends_on))

    def _path(self, folder: Path, depends_on: Mapping[str, str]) -> Path:
        digest = hashlib.sha256(json.dumps(dict(depends_on), sort_keys=True).encode()).hexdigest()
        return folder / "curves" / f"{digest[:32]}.json"
