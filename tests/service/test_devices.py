import pytest

from service.devices import CPU, Device, parse_devices


def spelt(text: str) -> list[str]:
    return [str(device) for device in parse_devices(text)]


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("cpu:0", ["cpu:0"]),
        ("cpu:0x2", ["cpu:0", "cpu:0#1"]),
        ("ascend:3", ["ascend:3"]),
        ("ascend:0-2", ["ascend:0", "ascend:1", "ascend:2"]),
        ("ascend:6-7x2", ["ascend:6", "ascend:6#1", "ascend:7", "ascend:7#1"]),
        ("ascend:0, cpu:0", ["ascend:0", "cpu:0"]),
    ],
)
def test_devices_are_read_as_documented(text: str, devices: list[str]) -> None:
    assert spelt(text) == devices


def test_a_device_knows_its_parts() -> None:
    assert parse_devices("cpu:0") == (CPU,)
    assert parse_devices("ascend:4x2")[1] == Device(kind="ascend", number=4, instance=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cpu",
        "gpu:0",
        "ascend:",
        "ascend:x",
        "ascend:3-1",
        "cpu:1",
        "cpu:0-1",
        "cpu:0x0",
        "ascend:0;1",
        "ascend:0,1",
    ],
)
def test_what_is_no_device_is_told_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is no device"):
        parse_devices(text)


@pytest.mark.parametrize("text", ["ascend:0,ascend:0", "ascend:0-3,ascend:2", "cpu:0x2,cpu:0"])
def test_a_device_that_is_named_twice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="named twice"):
        parse_devices(text)


def test_more_engines_than_anybody_means_are_refused() -> None:
    with pytest.raises(ValueError, match="they are 65 engines; at most 64"):
        parse_devices("ascend:0-64")
