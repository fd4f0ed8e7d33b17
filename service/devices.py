"""Which devices run a model: `ascend:0-7`, `cpu:0x2` -> a tuple of Device."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from service.errors import quoted

DeviceKind = Literal["cpu", "ascend"]

MOST_DEVICES = 64
_RANGE = re.compile(r"(cpu|ascend):([0-9]{1,3})(?:-([0-9]{1,3}))?(?:x([0-9]{1,2}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What one engine runs on; several instances share it."""

    kind: DeviceKind
    number: int = 0
    instance: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}" + (f"#{self.instance}" if self.instance else "")


CPU = Device(kind="cpu")


def parse_devices(text: str) -> tuple[Device, ...]:
    """Read devices parted by commas: `KIND:NUMBER`, `KIND:FIRST-LAST`, either followed by `xINSTANCES`.

    Raises:
        ValueError: naming the part that is wrong, and what is allowed.
    """
    devices = tuple(device for part in text.split(",") for device in _devices_of(part.strip()))
    if len(set(devices)) < len(devices):
        raise ValueError("a device is named twice; KIND:NUMBERxINSTANCES runs several instances on one")
    if len(devices) > MOST_DEVICES:
        raise ValueError(f"they are {len(devices)} engines; at most {MOST_DEVICES} are allowed")
    return devices


def _devices_of(part: str) -> Iterator[Device]:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise ValueError(f"{quoted(part)} is no device; `ascend:0`, `ascend:0-7` or `cpu:0x2` would be")
    kind, first, last, instances = match.groups()
    numbers = range(int(first), int(last or first) + 1)
    if not numbers or instances == "0" or (kind == "cpu" and numbers != range(1)):
        raise ValueError(
            f"{quoted(part)} is no device; ranges rise, instances are 1 or more, the CPU is cpu:0"
        )
    for number in numbers:
        for instance in range(int(instances or 1)):
            yield Device(kind=cast("DeviceKind", kind), number=number, instance=instance)
