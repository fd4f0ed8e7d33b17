"""The words between the server and an engine process, one fixed layout on a SOCK_SEQPACKET pair.

Runs under Python 3.7 and newer, in the child under whichever interpreter the engine needs: standard library only.

    child             server
    HELLO json   ->              protocol, python
                 <-  LOAD json   engine, artifact, shapes, options
    LOADED json  ->              a line about what runs the model
                 <-  RUN         `rows` rows lie in the shared memory
    DONE         ->              as many rows of answers lie there
    FAIL text    ->              in place of LOADED or DONE; after LOADED the child goes on
                 <-  (close)     the child ends

A packet is kind (1 byte), three zero bytes, rows (4), nanoseconds (8), length of the text (4), then the text.
Rows themselves travel through shared memory: inputs from offset 0, answers from `output_offset`.
"""

import struct
from typing import NamedTuple

PROTOCOL = 1
HELLO, LOAD, LOADED, RUN, DONE, FAIL = range(1, 7)
LONGEST_TEXT = 65536

_HEAD = struct.Struct("<B3xIQI")
SHORTEST_PACKET = _HEAD.size
LONGEST_PACKET = _HEAD.size + LONGEST_TEXT


class Packet(NamedTuple):
    """One message in either direction."""

    kind: int
    rows: int = 0
    nanoseconds: int = 0
    text: str = ""


class ProtocolError(Exception):
    """Bytes that are no packet."""


def pack(packet: Packet) -> bytes:
    """Lay a packet out as bytes; a text that is too long is cut."""
    text = packet.text.encode("utf-8", "replace")[:LONGEST_TEXT] if packet.text else b""
    return _HEAD.pack(packet.kind, packet.rows, packet.nanoseconds, len(text)) + text


def unpack(data: bytes) -> Packet:
    """Read a packet back, or raise ProtocolError."""
    if len(data) < _HEAD.size:
        raise ProtocolError("a packet of %d bytes" % len(data))
    kind, rows, nanoseconds, length = _HEAD.unpack_from(data)
    there = len(data) - _HEAD.size
    if not HELLO <= kind <= FAIL or there != length:
        raise ProtocolError("a packet of kind %d with %d of %d bytes of text" % (kind, there, length))
    text = data[_HEAD.size :].decode("utf-8", "replace") if length else ""
    return Packet(kind, rows, nanoseconds, text)


def output_offset(max_rows: int, row_bytes: int) -> int:
    """Tell where answers begin: behind the largest batch, on a page of their own."""
    page = 4096
    return (max_rows * row_bytes + page - 1) // page * page
