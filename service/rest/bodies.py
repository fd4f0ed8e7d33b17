"""Reads the body of a classification request: raw bytes, multipart or JSON -> encoded images and top_k."""

import base64
import binascii
import re
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from anyio.to_thread import run_sync
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from service.errors import ClientGone, InvalidInput, TooLarge, UnsupportedMedia, quoted
from service.inference import DEFAULT_TOP_K
from service.rest.schemas import ClassifyBody
from service.uploads import Upload

IMAGE_FIELD = "image"
BODY_DOCUMENTATION: dict[str, Any] = {
    "parameters": [
        {
            "name": "top_k",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "default": DEFAULT_TOP_K},
        },
        {"name": "X-Request-Timeout-Ms", "in": "header", "schema": {"type": "integer", "minimum": 1}},
        {"name": "X-Priority", "in": "header", "schema": {"enum": ["high", "normal", "low"]}},
        {"name": "X-Caller", "in": "header", "schema": {"type": "string"}},
        {"name": "X-Request-Id", "in": "header", "schema": {"type": "string"}},
    ],
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [IMAGE_FIELD],
                    "properties": {
                        IMAGE_FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "top_k": {"type": "integer", "minimum": 1},
                    },
                }
            },
            "application/json": {"schema": ClassifyBody.model_json_schema()},
        },
    },
}

_QUERY = ("top_k",)
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_MOST_VALUES = 8192  # commas and brackets; the most images that can be allowed need 2 each
_FAULTS_SHOWN = 5
_LONGEST_FAULT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What was sent to be classified."""

    images: list[bytes]
    top_k: int | None


async def read_body(request: Request, upload: Upload) -> Body:
    """Read the whole body, by its content type; whatever is no form and no JSON is one image.

    Raises:
        TooLarge: more bytes than are allowed, which are never held.
        Overloaded: too many bytes of other requests are held.
        InvalidInput: anything else that cannot be understood.
    """
    top_k = _top_k_of_query(request)
    if (coding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise UnsupportedMedia(f"content-encoding is {quoted(coding)}; only identity is allowed")
    data = await _read(request, upload)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _form(request, data, top_k, upload.limits.max_images)
    if kind == "application/json":
        return await run_sync(_json, data, top_k)
    return Body(images=[data], top_k=top_k)


async def _read(request: Request, upload: Upload) -> bytes:
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > upload.limits.max_bytes:
        raise TooLarge(f"the body is {declared} bytes; allowed are {upload.limits.max_bytes}")
    try:
        async for chunk in request.stream():
            upload.take(chunk)
    except ClientDisconnect:
        raise ClientGone("the client left before its request was complete") from None
    return upload.whole()


def _top_k_of_query(request: Request) -> int | None:
    for name in request.query_params:
        if name not in _QUERY:
            raise InvalidInput(f"there is no query parameter {quoted(name)}; there is {', '.join(_QUERY)}")
    return _top_k_of(request.query_params.getlist("top_k"))


def _top_k_of(texts: list[str]) -> int | None:
    """Read a top_k that came as text, once or not at all."""
    if len(texts) > 1:
        raise InvalidInput(f"top_k is given {len(texts)} times; allowed is once")
    if not texts:
        return None
    if not _INTEGER.fullmatch(texts[0]):
        raise InvalidInput(f"top_k is {quoted(texts[0])}; allowed are integers from 1")
    return int(texts[0])


def _json(data: bytes, top_k: int | None) -> Body:
    # Counted before they are parsed: millions of small values would take gigabytes. Base64 has none of these bytes.
    if sum(map(data.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise InvalidInput(f"the JSON body has more than {_MOST_VALUES} values")
    try:
        body = ClassifyBody.model_validate_json(data)
    except ValidationError as error:
        raise InvalidInput("the JSON body: " + "; ".join(_faults(error))) from None
    images = [_from_base64(image.b64, place) for place, image in enumerate(body.images)]
    return Body(images=images, top_k=top_k if body.top_k is None else body.top_k)


def _faults(error: ValidationError) -> list[str]:
    return [
        f"{_cut('.'.join(str(part) for part in fault['loc'])) or 'as a whole'}: {_cut(fault['msg'])}"
        for fault in error.errors(include_url=False, include_input=False)[:_FAULTS_SHOWN]
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_FAULT else text[:_LONGEST_FAULT] + "..."


def _from_base64(text: str, place: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
        raise InvalidInput(f"images.{place}.b64 is not base64: {error}") from None


class _InMemory(MultiPartParser):
    spool_max_size = sys.maxsize  # the body is in memory already, and bounded; the disk may be read-only


async def _form(request: Request, data: bytes, top_k: int | None, max_images: int) -> Body:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield data

    parser = _InMemory(request.headers, stream(), max_files=max_images, max_fields=max_images)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidInput(f"the multipart body: {_cut(error.message)}") from None
    except UnicodeError as error:  # of a charset that no text is in
        raise InvalidInput(f"the multipart body: {_cut(str(error))}") from None
    try:
        return await _of_form(form, top_k)
    finally:
        await form.close()


async def _of_form(form: FormData, top_k: int | None) -> Body:
    images = []
    for name, value in form.multi_items():
        if name == "top_k" and isinstance(value, str):
            continue
        if name == IMAGE_FIELD and isinstance(value, UploadFile):
            images.append(await value.read())
        else:
            kind = "file" if isinstance(value, UploadFile) else "text"
            raise InvalidInput(
                f"the {kind} field {quoted(name)} is not known; allowed are files {IMAGE_FIELD!r} and text 'top_k'"
            )
    if not images:
        raise InvalidInput(f"the multipart body has no file field {IMAGE_FIELD!r}")
    asked = _top_k_of([str(value) for value in form.getlist("top_k")])
    return Body(images=images, top_k=top_k if asked is None else asked)
