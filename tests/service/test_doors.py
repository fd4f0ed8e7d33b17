"""One table of cases, asked at both doors: they may not differ but in how they spell it."""

import base64
import gc
import io
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import grpc
import httpx
import psutil
import pytest
from PIL import Image

from options import serving_options
from patience import PATIENCE_S
from pictures import encoded, photo
from service import errors
from service.bell import Bell
from service.cache import AnswerCache
from service.client import AsyncClient, CardinalError
from service.decoding import Decoder
from service.gate import Gate
from service.health import Health
from service.inference import Inference
from service.journal import Journal
from service.metrics import Metrics
from service.repository import Repository
from service.rest import RestDoor, build_app
from service.rest import errors as rest_errors
from service.rest.schemas import ClassifyAnswer, ModelDescription, ModelList, Refusal
from service.rpc import Classifier, RpcServer
from service.rpc import errors as rpc_errors
from service.sharing import Sharing
from service.stubs.cardinal.v1 import classifier_pb2, classifier_pb2_grpc
from service.uploads import BodyLimits, Uploads
from serving import ROOT, UNTRAINED

pytestmark = pytest.mark.anyio

MAX_BYTES = 1_000_000
MAX_PIXELS = 1_000_000
MAX_IMAGES = 4
MODEL = "sknet50"


@dataclass(frozen=True)
class Doors:
    """Both doors over one core."""

    rest: httpx.AsyncClient
    client: AsyncClient
    channel: grpc.aio.Channel
    metrics: Metrics


@pytest.fixture(scope="module")
async def doors(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Doors]:
    metrics, bell = Metrics(), Bell()
    folder: Path = tmp_path_factory.mktemp("repository")
    (folder / MODEL).symlink_to(UNTRAINED / MODEL)
    (folder / "broken" / "1").mkdir(parents=True)
    options = replace(
        serving_options("auto"), load_timeout_s=60, max_batch_rows=8, max_image_pixels=MAX_PIXELS
    )
    repository = Repository(folder, options, metrics, bell)
    health = Health(repository, frozenset({MODEL}), bell)
    decoder = Decoder(threads=2, max_pixels=MAX_PIXELS)
    sharing = Sharing(AnswerCache(max_bytes=0, metrics=metrics), metrics)
    inference = Inference(repository, decoder, sharing, max_images=MAX_IMAGES, longest_s=30)
    journal = Journal(metrics, max_requests=64)
    limits = BodyLimits(max_bytes=MAX_BYTES, max_images=MAX_IMAGES, max_upload_bytes=10 * MAX_BYTES)
    uploads = Uploads(limits)
    app = build_app(RestDoor(inference, repository, health, journal, uploads), health, Gate())
    classifier = Classifier(inference, journal, uploads)
    rpc = RpcServer(classifier, health, repository, address="127.0.0.1:0", max_bytes=MAX_BYTES)
    async with anyio.create_task_group() as tasks:
        await tasks.start(repository.run)
        await rpc.start()
        with anyio.fail_after(PATIENCE_S):
            while not health.is_ready:
                await bell.wait()
        transport = httpx.ASGITransport(app)
        address = f"127.0.0.1:{rpc.port}"
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://test") as rest,
            AsyncClient(address) as client,
            grpc.aio.insecure_channel(address) as channel,
        ):
            yield Doors(rest, client, channel, metrics)
        await rpc.close(0)
        repository.close()


def bomb() -> bytes:
    """Make a 30,000 x 30,000 PNG of a few kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000 * 3751), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(photo(), exif=exif)


def animated(form: str) -> bytes:
    file = io.BytesIO()
    frames = [photo(64, 64, seed) for seed in range(3)]
    frames[0].save(file, form, save_all=True, append_images=frames[1:])
    return file.getvalue()


JPEG = encoded(photo())

GOOD = {
    "jpeg": JPEG,
    "png": encoded(photo(), "PNG"),
    "webp": encoded(photo(), "WEBP"),
    "progressive jpeg": encoded(photo(), progressive=True),
    "cmyk jpeg": encoded(photo().convert("CMYK")),
    "grey jpeg": encoded(photo().convert("L")),
    "16-bit grey png": encoded(
        Image.fromarray((__import__("numpy").arange(76800) % 65536).astype("uint16").reshape(240, 320)), "PNG"
    ),
    "palette png": encoded(photo().convert("P"), "PNG"),
    "transparent palette png": encoded(photo().convert("P"), "PNG", transparency=3),
    "alpha png": encoded(photo().convert("RGBA"), "PNG"),
    "grey alpha png": encoded(photo().convert("LA"), "PNG"),
    "1-bit png": encoded(photo().convert("1"), "PNG"),
    "1 x 1 png": encoded(photo(1, 1), "PNG"),
    "thin png": encoded(photo(3000, 2), "PNG"),
} | {f"exif orientation {n}": oriented(n) for n in range(1, 9)}


@dataclass(frozen=True)
class Case:
    """A request that is refused."""

    error: type[errors.ServiceError]
    says: str
    image: bytes = JPEG
    model: str = MODEL
    version: str = ""
    top_k: int = 5
    images: list[bytes] = field(default_factory=list)


BAD = {
    "empty body": Case(errors.InvalidImage, "0 bytes", image=b""),
    "truncated jpeg": Case(errors.InvalidImage, "truncated", image=JPEG[: len(JPEG) // 2]),
    "a jpeg of eight bytes": Case(errors.InvalidImage, "cannot be decoded", image=JPEG[:8]),
    "png bomb": Case(errors.TooLarge, "30000 x 30000 pixels; allowed are 1000000", image=bomb()),
    "text named jpg": Case(
        errors.UnsupportedMedia, "'Dear sir'; allowed are JPEG, PNG or WebP", image=b"Dear sir, ..."
    ),
    "animated gif": Case(errors.UnsupportedMedia, "a GIF", image=animated("GIF")),
    "animated webp": Case(errors.UnsupportedMedia, "animation of 3 frames", image=animated("WEBP")),
    "animated png": Case(errors.UnsupportedMedia, "animation of 3 frames", image=animated("PNG")),
    "body over the limit": Case(errors.TooLarge, f"allowed are {MAX_BYTES}", image=JPEG + bytes(MAX_BYTES)),
    "unknown model": Case(errors.ModelNotFound, "no model 'nope'", model="nope"),
    "unknown version": Case(errors.ModelNotFound, "no version '7'; 1 is served", version="7"),
    "model that is not ready": Case(errors.ModelNotReady, "model.json", model="broken"),
    "top_k of zero": Case(errors.InvalidInput, "top_k is 0; allowed are integers from 1", top_k=0),
    "top_k below zero": Case(errors.InvalidInput, "top_k is -3", top_k=-3),
}


def path(model: str, version: str = "") -> str:
    return f"/v1/models/{model}" + (f"/versions/{version}" if version else "") + "/classify"


@pytest.mark.parametrize("image", GOOD.values(), ids=GOOD.keys())
async def test_both_doors_give_the_same_answer(doors: Doors, image: bytes) -> None:
    response = await doors.rest.post(path(MODEL), content=image, params={"top_k": 4})
    assert response.status_code == 200, response.text
    answer = ClassifyAnswer.model_validate(response.json())
    same = await doors.client.classify(image, model=MODEL, top_k=4)
    classes = [(c.index, c.label, c.score) for c in answer.results[0].classes]
    assert classes == [(c.index, c.label, c.score) for c in same.results[0]]
    assert len(classes) == 4
    assert classes == sorted(classes, key=lambda scored: -scored[2])
    assert (answer.model, answer.version, answer.engine) == (same.model, same.version, same.engine)
    assert response.headers["x-request-id"] == answer.request_id != same.request_id
    assert answer.timing_ms.total >= answer.timing_ms.decode + answer.timing_ms.engine


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
async def test_both_doors_refuse_with_the_same_words(doors: Doors, case: Case) -> None:
    response = await doors.rest.post(
        path(case.model, case.version), content=case.image, params={"top_k": case.top_k}
    )
    refusal = Refusal.model_validate(response.json())
    assert response.status_code == rest_errors.STATUS[case.error]
    assert refusal.code == case.error.code
    assert case.says in refusal.error
    with pytest.raises(CardinalError) as caught:
        await doors.client.classify(case.image, model=case.model, version=case.version, top_k=case.top_k)
    assert caught.value.code == case.error.code
    assert case.says in str(caught.value)
    assert caught.value.request_id
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)
    assert caught.value.__cause__.code() == rpc_errors.STATUS[case.error]


@pytest.mark.parametrize("table", [rest_errors.STATUS, rpc_errors.STATUS], ids=["rest", "rpc"])
def test_each_door_has_a_status_for_every_error(table: dict[type[errors.ServiceError], Any]) -> None:
    every = {
        thing
        for thing in vars(errors).values()
        if isinstance(thing, type) and thing is not errors.ServiceError
    }
    assert table.keys() == {thing for thing in every if issubclass(thing, errors.ServiceError)}


async def test_an_exif_orientation_is_undone_before_the_model_sees_it(doors: Doors) -> None:
    upright = await doors.client.classify(encoded(photo(), "PNG"), model=MODEL)
    turned_pixels = photo().transpose(Image.Transpose.ROTATE_90)  # orientation 6 turns it back by 270
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = await doors.client.classify(encoded(turned_pixels, "PNG", exif=exif), model=MODEL)
    assert turned.results == upright.results


async def test_several_images_are_answered_in_their_order(doors: Doors) -> None:
    images = [encoded(photo(seed=seed), "PNG") for seed in range(3)]
    alone = [(await doors.client.classify(image, model=MODEL)).best for image in images]
    together = await doors.client.classify(*images, model=MODEL)
    assert [classes[0].index for classes in together.results] == [best.index for best in alone]
    assert [classes[0].score for classes in together.results] == pytest.approx(
        [best.score for best in alone], rel=1e-5
    )

    form = await doors.rest.post(
        path(MODEL), files=[("image", (f"{n}.png", image)) for n, image in enumerate(images)]
    )
    body = {"images": [{"b64": base64.b64encode(image).decode()} for image in images]}
    as_json = await doors.rest.post(path(MODEL), json=body)
    for response in (form, as_json):
        answer = ClassifyAnswer.model_validate(response.json())
        assert [result.classes[0].index for result in answer.results] == [best.index for best in alone]


async def test_a_bad_image_among_good_ones_is_named_by_its_place(doors: Doors) -> None:
    with pytest.raises(CardinalError, match=r"images\[1\]: the image is empty"):
        await doors.client.classify(JPEG, b"", JPEG, model=MODEL)


async def test_too_many_images_are_refused_with_the_limit(doors: Doors) -> None:
    with pytest.raises(CardinalError, match=f"has 5 images; allowed are 1 to {MAX_IMAGES}"):
        await doors.client.classify(*[JPEG] * 5, model=MODEL)
    with pytest.raises(CardinalError, match="has 0 images"):
        await doors.client.classify(model=MODEL)


async def test_top_k_beyond_the_classes_gives_all_of_them(doors: Doors) -> None:
    answer = await doors.client.classify(JPEG, model=MODEL, top_k=1000)
    assert len(answer.results[0]) == 10
    assert sum(scored.score for scored in answer.results[0]) == pytest.approx(1)
    response = await doors.rest.post(path(MODEL), content=JPEG, params={"top_k": 1000})
    assert len(response.json()["results"][0]["classes"]) == 10


async def test_without_top_k_five_classes_are_given(doors: Doors) -> None:
    response = await doors.rest.post(path(MODEL), content=JPEG)
    assert len(response.json()["results"][0]["classes"]) == 5
    stub = classifier_pb2_grpc.ClassifierStub(doors.channel)
    message = await stub.Classify(classifier_pb2.ClassifyRequest(model=MODEL, images=[JPEG]))
    assert len(message.results[0].classes) == 5


REST_ONLY = {
    "top_k that is a word": ({"params": {"top_k": "x"}}, 400, "top_k is 'x'; allowed are integers from 1"),
    "top_k with a sign": ({"params": {"top_k": "+1"}}, 400, "top_k is '+1'"),
    "top_k with a space": ({"params": {"top_k": " 3"}}, 400, "top_k is ' 3'"),
    "top_k in other digits": ({"params": {"top_k": "\u0663"}}, 400, "allowed are integers from 1"),
    "top_k with a fraction": ({"params": {"top_k": "1.5"}}, 400, "top_k is '1.5'"),
    "top_k of ten thousand digits": ({"params": {"top_k": "9" * 10_000}}, 400, "9..."),
    "top_k twice": ({"params": {"top_k": ["1", "2"]}}, 400, "top_k is given 2 times; allowed is once"),
    "a version as a query": ({"params": {"version": "1"}}, 400, "no query parameter 'version'"),
    "a timeout of many digits": (
        {"headers": {"x-request-timeout-ms": "9" * 5000}},
        400,
        "allowed are integers from 1",
    ),
    "a form in a charset of nothing": (
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n--b--\r\n',
            "headers": {"content-type": "multipart/form-data; boundary=b; charset=undefined"},
        },
        400,
        "the multipart body",
    ),
    "a misspelt query parameter": (
        {"params": {"topk": "3"}},
        400,
        "no query parameter 'topk'; there is top_k",
    ),
    "a compressed body": ({"headers": {"content-encoding": "gzip"}}, 415, "content-encoding is 'gzip'"),
    "a timeout that is a word": (
        {"headers": {"x-request-timeout-ms": "soon"}},
        400,
        "X-Request-Timeout-Ms is 'soon'",
    ),
    "a timeout of zero": ({"headers": {"x-request-timeout-ms": "0"}}, 400, "allowed are integers from 1"),
    "json that is none": (
        {"content": b"{", "headers": {"content-type": "application/json"}},
        400,
        "Invalid JSON",
    ),
    "json of another shape": ({"json": {"image": "x"}}, 400, "images: Field required"),
    "json without images": ({"json": {"images": []}}, 400, "images: List should have at least 1 item"),
    "json of a million values": (
        {"content": b"[" + b"1," * 100_000, "headers": {"content-type": "application/json"}},
        400,
        "more than 8192 values",
    ),
    "json with a key of a megabyte": ({"json": {"k" * 500_000: 1}}, 400, "..."),
    "json nested too deeply": (
        {"content": b"[" * 5_000, "headers": {"content-type": "application/json"}},
        400,
        "recursion limit",
    ),
    "json with a bad base64": ({"json": {"images": [{"b64": "%%%"}]}}, 400, "images.0.b64 is not base64"),
    "json with top_k as text": (
        {"json": {"images": [{"b64": ""}], "top_k": "2"}},
        400,
        "top_k: Input should be",
    ),
    "a form without a file": ({"files": {"top_k": (None, "3")}}, 400, "no file field 'image'"),
    "a form with an unknown field": (
        {"files": {"photo": ("a.jpg", JPEG)}},
        400,
        "file field 'photo' is not known",
    ),
    "a form with text for a file": (
        {"files": {"image": (None, "text")}},
        400,
        "text field 'image' is not known",
    ),
    "a form with too many files": (
        {"files": [("image", ("a.jpg", JPEG))] * (MAX_IMAGES + 1)},
        400,
        "Too many files",
    ),
    "a form without a boundary": (
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        400,
        "Missing boundary",
    ),
    "a form that is broken": (
        {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        400,
        "the multipart body",
    ),
}


@pytest.mark.parametrize(("request_", "status", "says"), REST_ONLY.values(), ids=REST_ONLY.keys())
async def test_rest_says_what_is_wrong_with_a_request(
    doors: Doors, request_: dict[str, Any], status: int, says: str
) -> None:
    if not request_.keys() & {"content", "json", "files"}:
        request_ = {"content": JPEG} | request_
    response = await doors.rest.post(path(MODEL), **request_)
    assert response.status_code == status, response.text
    assert says in Refusal.model_validate(response.json()).error


@pytest.mark.parametrize(
    ("method", "url", "status", "code"),
    [
        ("GET", "/nothing", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/v1/models/%2e%2e%2fsecret", 404, "ROUTE_NOT_FOUND"),
        ("PUT", "/v1/models", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/models/nope", 404, "MODEL_NOT_FOUND"),
        ("GET", "/v2/models/nope/ready", 404, "MODEL_NOT_FOUND"),
    ],
)
async def test_every_error_of_rest_has_the_same_form(
    doors: Doors, method: str, url: str, status: int, code: str
) -> None:
    response = await doors.rest.request(method, url, headers={"x-request-id": "mine-1"})
    assert response.status_code == status
    assert Refusal.model_validate(response.json()).code == code
    assert response.json()["request_id"] == response.headers["x-request-id"] == "mine-1"


async def test_a_request_id_is_kept_if_it_is_harmless(doors: Doors) -> None:
    kept = await doors.rest.post(path(MODEL), content=JPEG, headers={"x-request-id": "trace/1.2:3"})
    assert kept.json()["request_id"] == "trace/1.2:3"
    replaced = await doors.rest.post(path(MODEL), content=JPEG, headers={"x-request-id": "a b"})
    assert replaced.json()["request_id"] != "a b"


async def test_models_are_described_with_all_that_their_bundle_says(doors: Doors) -> None:
    listed = ModelList.model_validate((await doors.rest.get("/v1/models")).json()).models
    assert [(model.name, model.ready, model.untrained) for model in listed] == [
        ("broken", False, None),
        (MODEL, True, True),
    ]
    assert "model.json" in listed[0].reason
    one = ModelDescription.model_validate((await doors.rest.get(f"/v1/models/{MODEL}")).json())
    assert one.labels is not None
    assert one.labels[0] == "airplane"
    assert one.preprocessing is not None
    assert one.preprocessing.crop == 224


async def test_health_tells_server_and_model_apart(doors: Doors) -> None:
    assert (await doors.rest.get("/v2/health/live")).json() == {"live": True}
    assert (await doors.rest.get("/v2/health/ready")).json() == {"ready": True}
    assert (await doors.rest.get(f"/v2/models/{MODEL}/ready")).status_code == 200
    broken = await doors.rest.get("/v2/models/broken/ready")
    assert broken.status_code == 503
    assert "model.json" in broken.json()["reason"]


async def test_a_deadline_that_passes_is_told_with_what_was_allowed(doors: Doors) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield JPEG[:100]
        await anyio.sleep_forever()

    response = await doors.rest.post(path(MODEL), content=stalling(), headers={"x-request-timeout-ms": "1"})
    assert response.status_code == 504
    assert "no answer within 0.001 s: the time ran out while its body was read" in response.json()["error"]


@pytest.mark.parametrize("door", ["rest", "grpc"])
async def test_a_priority_that_is_none_is_refused(doors: Doors, door: str) -> None:
    sentence = "X-Priority is 'urgent'; allowed are high, normal, low"
    if door == "rest":
        response = await doors.rest.post(path(MODEL), content=JPEG, headers={"x-priority": "urgent"})
        assert (response.status_code, response.json()["error"]) == (400, sentence)
        return
    call = classifier_pb2_grpc.ClassifierStub(doors.channel).Classify
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(
            classifier_pb2.ClassifyRequest(model=MODEL, images=[JPEG]), metadata=(("x-priority", "urgent"),)
        )
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, sentence)


async def test_the_metrics_count_every_answer_and_only_known_models(doors: Doors) -> None:
    def count(**labels: str) -> float:
        return doors.metrics.registry.get_sample_value("cardinal_requests_total", labels) or 0.0

    good = {"model": MODEL, "version": "1", "door": "rest", "code": "OK"}
    bad = {"model": "", "version": "", "door": "grpc", "code": "MODEL_NOT_FOUND"}
    before = count(**good), count(**bad)
    await doors.rest.post(path(MODEL), content=JPEG)
    with pytest.raises(CardinalError):
        await doors.client.classify(JPEG, model="a" * 100)
    assert (count(**good), count(**bad)) == (before[0] + 1, before[1] + 1)


async def test_every_endpoint_is_documented(doors: Doors) -> None:
    readme = (ROOT / "README.md").read_text()
    for endpoint, methods in (await doors.rest.get("/openapi.json")).json()["paths"].items():
        for method in methods:
            documented = f"{method.upper()} {endpoint.replace('/versions/{version}', '')}"
            assert f"`{documented}`" in readme, documented


async def test_a_grpc_message_that_is_none_is_refused_as_every_bad_input_is(doors: Doors) -> None:
    call = doors.channel.unary_unary("/cardinal.v1.Classifier/Classify")
    for message in (b"\xff" * 1000, b"\n\x02\xff\xff"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(message)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "no cardinal.v1.ClassifyRequest" in str(caught.value.details())
        assert ("cardinal-code", "INVALID_INPUT") in list(caught.value.trailing_metadata())


async def test_head_is_answered_wherever_get_is(doors: Doors) -> None:
    for url in ("/", "/v1/models", "/v2/health/ready"):
        assert (await doors.rest.head(url)).status_code == 200


def test_uploads_beyond_what_may_be_held_are_refused() -> None:
    limits = BodyLimits(max_bytes=100, max_images=1, max_upload_bytes=150)
    uploads = Uploads(limits)
    with uploads.one_more() as first, uploads.one_more() as second:
        first.take(bytes(100))
        with pytest.raises(errors.Overloaded, match="150 bytes of requests are held"):
            second.take(bytes(60))
    assert uploads.held_bytes == 0
    with uploads.one_more() as third, pytest.raises(errors.TooLarge, match="allowed are 100"):
        third.take(bytes(101))


async def test_a_photo_with_a_film_behind_it_is_a_photo(doors: Doors) -> None:
    scans = b"\xff\xda" * 10_000  # as they turn up by chance in the megabytes that phones append
    answer = await doors.client.classify(JPEG + scans, model=MODEL)
    assert answer.results == (await doors.client.classify(JPEG, model=MODEL)).results


async def test_the_documented_parameters_are_those_that_are_taken(doors: Doors) -> None:
    paths = (await doors.rest.get("/openapi.json")).json()["paths"]
    queries = {
        parameter["name"]
        for methods in paths.values()
        for operation in methods.values()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query"
    }
    assert queries == {"top_k"}


async def test_a_grpc_message_of_millions_of_images_is_not_even_parsed(doors: Doors) -> None:
    call = doors.channel.unary_unary("/cardinal.v1.Classifier/Classify")
    for message in (b"\x1a\x00" * 400_000, b"\x80" * 1000, b"\x3a\x01x" * 1000, b"\x39" + bytes(8)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(message)
        assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    with pytest.raises(grpc.aio.AioRpcError, match="more than 20 fields; allowed are 4 images"):
        await call(b"\x1a\x00" * 21)


async def test_a_refused_grpc_call_lets_its_message_go(doors: Doors) -> None:
    gc.collect()
    gc.disable()
    try:
        seen = []
        for _ in range(10):
            with pytest.raises(CardinalError):
                await doors.client.classify(bytes(900_000), model=MODEL)
            seen.append(psutil.Process().memory_info().rss)
    finally:
        gc.enable()
    assert seen[-1] - seen[2] < 5 * 900_000


@pytest.mark.parametrize("url", ["/", "/playground.css", "/playground.js", "/icon.svg"])
async def test_the_page_takes_no_file_name_from_its_caller(doors: Doors, url: str) -> None:
    page = await doors.rest.get(url)
    assert page.status_code == 200
    for name in ("file", "path", "name", "media_type"):
        assert (await doors.rest.get(url, params={name: "/etc/passwd"})).content == page.content
