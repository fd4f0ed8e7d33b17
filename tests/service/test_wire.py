import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engines.child import wire

unhurried = settings(deadline=None)  # the machine may be busy with other tests

kinds = st.integers(min_value=wire.HELLO, max_value=wire.FAIL)
packets = st.builds(
    wire.Packet,
    kind=kinds,
    rows=st.integers(min_value=0, max_value=2**32 - 1),
    nanoseconds=st.integers(min_value=0, max_value=2**64 - 1),
    text=st.text(max_size=200),
)


@unhurried
@given(packets)
def test_a_packet_comes_out_as_it_went_in(packet: wire.Packet) -> None:
    assert wire.unpack(wire.pack(packet)) == packet


def test_the_layout_of_a_packet_is_the_documented_one() -> None:
    packet = wire.Packet(wire.DONE, rows=3, nanoseconds=5, text="ab")
    assert wire.pack(packet) == b"\5\0\0\0" + struct.pack("<IQI", 3, 5, 2) + b"ab"


@unhurried
@given(packets, st.data())
def test_a_packet_that_was_cut_is_a_protocol_error(packet: wire.Packet, data: st.DataObject) -> None:
    whole = wire.pack(packet)
    cut = data.draw(st.integers(min_value=0, max_value=len(whole) - 1))
    with pytest.raises(wire.ProtocolError, match="a packet of"):
        wire.unpack(whole[:cut])


@unhurried
@given(packets, st.binary(min_size=1, max_size=50))
def test_a_packet_with_bytes_behind_it_is_a_protocol_error(packet: wire.Packet, extra: bytes) -> None:
    with pytest.raises(wire.ProtocolError, match="bytes of text"):
        wire.unpack(wire.pack(packet) + extra)


@unhurried
@given(packets, st.integers(min_value=0, max_value=255).filter(lambda kind: not 1 <= kind <= 6))
def test_a_packet_of_an_unknown_kind_is_a_protocol_error(packet: wire.Packet, kind: int) -> None:
    with pytest.raises(wire.ProtocolError, match=f"kind {kind} "):
        wire.unpack(bytes([kind]) + wire.pack(packet)[1:])


@unhurried
@given(st.binary(max_size=60))
def test_any_bytes_are_a_packet_or_a_protocol_error(data: bytes) -> None:
    try:
        packet = wire.unpack(data)
    except wire.ProtocolError:
        return
    assert len(wire.pack(packet)) >= len(data)  # replaced letters only grow


def test_a_text_that_is_no_utf_8_is_read_with_replacements() -> None:
    packed = wire.pack(wire.Packet(wire.FAIL, text="ab"))
    assert wire.unpack(packed[:-2] + b"\xff!").text == "\N{REPLACEMENT CHARACTER}!"


@pytest.mark.parametrize("letter", ["x", "\N{EURO SIGN}"])
def test_a_text_that_is_too_long_is_cut_and_still_a_packet(letter: str) -> None:
    packed = wire.pack(wire.Packet(wire.FAIL, text=letter * 70_000))
    assert len(packed) == wire.LONGEST_PACKET
    assert wire.unpack(packed).text.startswith(letter * 21_000)


def test_an_error_that_names_a_file_of_undecodable_bytes_can_be_told() -> None:
    packed = wire.pack(wire.Packet(wire.FAIL, text="no such file: caf\udce9.onnx"))
    assert wire.unpack(packed).text.startswith("no such file: caf")


@unhurried
@given(
    st.integers(min_value=1, max_value=512),
    st.integers(min_value=1, max_value=4096).map(lambda side: side * side * 3),
)
def test_answers_lie_behind_the_largest_batch_on_a_page_of_their_own(max_rows: int, row_bytes: int) -> None:
    offset = wire.output_offset(max_rows, row_bytes)
    assert offset % 4096 == 0
    assert 0 <= offset - max_rows * row_bytes < 4096
