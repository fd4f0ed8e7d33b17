import pytest

from service.latency_tables import TABLES


def test_every_table_gives_seconds_for_each_published_batch_size() -> None:
    for table in TABLES.values():
        assert list(table) == [1, 4, 8, 16, 32, 64]
        assert all(0.0005 < seconds < 0.1 for seconds in table.values())


def test_a_batch_takes_as_long_as_its_published_throughput_says() -> None:
    milliseconds = {gear: 1000 * seconds for gear, seconds in TABLES["310p/se_resnext50"].items()}
    expected = {1: 0.994, 4: 2.216, 8: 5.306, 16: 11.458, 32: 15.986, 64: 53.404}
    assert milliseconds == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("device", ["310", "310p", "t4"])
def test_each_device_has_a_table_for_se_resnext50(device: str) -> None:
    assert f"{device}/se_resnext50" in TABLES
