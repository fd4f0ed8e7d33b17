"""Parses a request message that may be anything: bytes -> ClassifyRequest, or InvalidInput."""

from google.protobuf.message import DecodeError

from service.errors import InvalidInput
from service.stubs.cardinal.v1 import classifier_pb2 as wire

_FIELDS_BESIDE_IMAGES = 16
_LONGEST_VARINT = 10


def parsed(message: bytes, *, max_images: int) -> wire.ClassifyRequest:
    """Parse a message.

    Its fields are counted first, and no further than allowed: the millions that fit into one would keep the event
    loop busy for a third of a second, and take 300 MB.
    """
    most = max_images + _FIELDS_BESIDE_IMAGES
    if _has_more_fields(message, most):
        raise InvalidInput(f"the message has more than {most} fields; allowed are {max_images} images")
    try:
        return wire.ClassifyRequest.FromString(message)
    except DecodeError as error:
        raise InvalidInput(f"the message is no cardinal.v1.ClassifyRequest: {error}") from error


def _has_more_fields(message: bytes, most: int) -> bool:
    position = 0
    for _ in range(most):
        if position >= len(message):
            return False
        tag, position = _varint(message, position)
        match tag & 7:  # the wire type
            case 0:
                _, position = _varint(message, position)
            case 1:
                position += 8
            case 2:
                length, position = _varint(message, position)
                position += length
            case 5:
                position += 4
            case _:
                return False  # the parser will say it
    return position < len(message)


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte; where the message ends in it, so does the count."""
    value = 0
    for place, byte in enumerate(message[position : position + _LONGEST_VARINT]):
        value |= (byte & 127) << 7 * place
        if byte <= 127:  # noqa: PLR2004 - the top bit says that more follows
            return value, position + place + 1
    return value, len(message)
