"""Drives the playground in a real Chromium, against a real server."""

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from patience import PATIENCE_S
from serving import RunningServer

pytestmark = pytest.mark.e2e

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_EXPECTED_FAILURE = "Failed to load resource"  # Chromium's own line on any answer that is not a success
_CLASSIFY = "**/v1/models/*/classify*"
_TRANSFER = """([name, content, kinds]) => {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  const options = { bubbles: true, cancelable: true, dataTransfer: transfer, clipboardData: transfer };
  for (const kind of kinds) {
    const Kind = kind === "paste" ? ClipboardEvent : DragEvent;
    document.body.dispatchEvent(new Kind(kind, options));
  }
}"""


@pytest.fixture(scope="module")
def browser(server: RunningServer) -> Iterator[Browser]:  # noqa: ARG001 - started before Playwright's event loop runs
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        reason = f"THE PLAYGROUND IS NOT TESTED: none of {', '.join(_PROGRAMS)} is installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        expect.set_options(timeout=1000 * PATIENCE_S)
        chromium = playwright.chromium.launch(
            executable_path=program, args=_ARGUMENTS, timeout=1000 * PATIENCE_S
        )
        yield chromium
        chromium.close()


@dataclass
class Faults:
    """What the page did that no page may do."""

    found: list[str] = field(default_factory=list)
    # Set by a test that provokes failures: the browser may tell of them at any later moment.
    may_fail: bool = False

    @property
    def unexpected(self) -> list[str]:
        return [fault for fault in self.found if not (self.may_fail and fault.startswith(_EXPECTED_FAILURE))]


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def page(browser: Browser, server: RunningServer, faults: Faults) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(1000 * PATIENCE_S)
    opened = context.new_page()
    opened.on(
        "console", lambda line: faults.found.append(line.text) if line.type in {"error", "warning"} else None
    )
    opened.on("pageerror", lambda error: faults.found.append(str(error)))
    own = (f"{server.rest}/", f"blob:{server.rest}/")
    opened.on(
        "request", lambda request: None if request.url.startswith(own) else faults.found.append(request.url)
    )
    opened.on("filechooser", lambda _: None)  # or Playwright may catch choosers only after the key is pressed
    opened.goto(server.rest)
    expect(opened.get_by_role("combobox", name="Model")).to_be_enabled()
    yield opened
    context.close()
    assert faults.unexpected == []


def _photo(colour: str = "teal") -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (320, 240), colour).save(encoded, "JPEG")
    return encoded.getvalue()


def _drop(page: Page, content: bytes, name: str = "photo.jpg") -> None:
    page.evaluate(_TRANSFER, [name, base64.b64encode(content).decode(), ["dragover", "drop"]])


def _classes(page: Page) -> Locator:
    return page.get_by_role("region", name="Answer").get_by_role("list").get_by_role("listitem")


def _answered_by(page: Page, model: str) -> Locator:
    return page.get_by_text(f"{model} version 1 on openvino")


def _percent(item: Locator) -> float:
    return float(item.inner_text().split()[-2])


def _answer(label: str) -> str:
    times = dict.fromkeys(("decode", "queue", "engine", "total"), 1.0)
    classes = [{"index": 0, "label": label, "score": 0.75}]
    named = {"model": "m", "version": "1", "request_id": "r", "engine": "openvino"}
    return json.dumps(named | {"results": [{"classes": classes}], "timing_ms": times})


def test_a_dropped_photo_is_classified(page: Page) -> None:
    _drop(page, _photo())
    expect(_classes(page)).to_have_count(5)
    scores = [_percent(item) for item in _classes(page).all()]
    assert scores == sorted(scores, reverse=True)
    widths = page.locator(".fill").evaluate_all(
        "fills => fills.map(fill => fill.style.getPropertyValue('--share'))"
    )
    assert [round(100 * float(width), 2) for width in widths] == scores
    for stage in ("decode", "queue", "engine", "total"):
        shown = page.get_by_role("term").filter(has_text=stage).locator("xpath=following-sibling::dd")
        assert float(shown.inner_text().removesuffix(" ms")) >= 0
    expect(_answered_by(page, "resnext101")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("5 classes are listed")
    expect(page.get_by_role("img", name="Your photo photo.jpg")).to_be_visible()


def test_the_same_file_can_be_chosen_twice(page: Page, tmp_path: Path) -> None:
    chosen = tmp_path / "photo.jpg"
    chosen.write_bytes(_photo())
    for _ in range(2):
        with page.expect_response(_CLASSIFY) as reply:
            page.get_by_label("Choose").set_input_files(chosen)
        assert reply.value.status == 200
    expect(_classes(page)).to_have_count(5)


def test_a_pasted_photo_is_classified(page: Page) -> None:
    page.evaluate(_TRANSFER, ["image.jpg", base64.b64encode(_photo()).decode(), ["paste"]])
    expect(_classes(page)).to_have_count(5)


def test_the_keyboard_is_enough(page: Page, tmp_path: Path) -> None:
    chosen = tmp_path / "photo.jpg"
    chosen.write_bytes(_photo())
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="API documentation")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose a photo")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(chosen)
    expect(_answered_by(page, "resnext101")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    expect(_answered_by(page, "se_resnext50")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Copy")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=re.compile("Copied|Selected"))).to_be_visible()


def test_another_model_classifies_the_same_photo_again(page: Page, server: RunningServer) -> None:
    _drop(page, _photo())
    expect(_answered_by(page, "resnext101")).to_be_visible()
    page.get_by_role("combobox", name="Model").select_option("sknet50")
    expect(_answered_by(page, "sknet50")).to_be_visible()
    command = f"curl --data-binary @photo.jpg {server.rest}/v1/models/sknet50/classify"
    expect(page.get_by_text(command)).to_be_visible()


def test_the_servers_sentence_is_shown_until_the_next_photo(page: Page, faults: Faults) -> None:
    _drop(page, _photo())
    expect(_classes(page)).to_have_count(5)
    with page.expect_response(_CLASSIFY) as reply:
        _drop(page, b"hello, I am text")
    expect(page.get_by_role("alert")).to_have_text(reply.value.json()["error"])
    expect(_classes(page)).to_have_count(0)
    expect(page.get_by_text("This browser cannot show a preview")).to_be_visible()
    faults.may_fail = True
    _drop(page, _photo())
    expect(_classes(page)).to_have_count(5)
    expect(page.get_by_role("alert")).to_be_empty()


def test_an_untrained_model_is_named_so(page: Page) -> None:
    notice = "Untrained model: random weights, so its answers mean nothing."
    expect(page.get_by_text(notice)).to_be_visible()
    expect(page.get_by_role("option", name="sknet50 (untrained)")).to_have_count(1)


def test_a_narrow_phone_scrolls_in_one_direction_only(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    _drop(page, _photo(), f"{'long' * 40}.jpg")
    expect(_classes(page)).to_have_count(5)
    assert page.locator("html").evaluate("html => html.scrollWidth") == 360


def test_dark_and_light_differ(page: Page) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grounds.add(page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor"))
    assert len(grounds) == 2


def test_a_label_is_text_and_never_markup(page: Page) -> None:
    label = '<img src="x" onerror="alert(1)"> & <b>bold</b>'
    page.route(_CLASSIFY, lambda route: route.fulfill(body=_answer(label), content_type="application/json"))
    _drop(page, _photo())
    expect(_classes(page).first).to_contain_text(label)
    expect(_classes(page).locator("img, b")).to_have_count(0)


def test_only_the_newest_choice_is_answered(page: Page) -> None:
    held: list[Route] = []
    page.route(_CLASSIFY, lambda route: held.append(route))  # noqa: PLW0108 - Playwright sets attributes on it
    with page.expect_request(_CLASSIFY):
        _drop(page, _photo("red"))
    with page.expect_event("requestfailed") as abandoned, page.expect_request(_CLASSIFY):
        _drop(page, _photo("blue"))
    assert abandoned.value == held[0].request
    held[1].fulfill(body=_answer("newer"), content_type="application/json")
    expect(_classes(page).first).to_contain_text("newer")


def test_a_server_that_is_gone_is_said_and_can_be_tried_again(page: Page, faults: Faults) -> None:
    page.route("**/v1/**", lambda route: route.abort("connectionrefused"))
    _drop(page, _photo())
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")
    page.unroute("**/v1/**")
    faults.may_fail = True
    page.get_by_role("button", name="Try again").click()
    expect(_classes(page)).to_have_count(5)


def test_a_photo_waits_for_a_model_that_is_being_loaded(page: Page) -> None:
    loading = {"name": "sknet50", "version": "1", "ready": False, "reason": "it is being loaded"}
    broken = {"name": "bad", "version": "1", "ready": False, "reason": "labels.txt: <b>No such file</b>"}
    page.route("**/v1/models", lambda route: route.fulfill(json={"models": [broken, loading]}))
    page.reload()
    expect(page.get_by_role("combobox", name="Model")).to_be_disabled()
    expect(page.get_by_role("option", name=f"bad (not ready: {broken['reason']})")).to_be_disabled()
    _drop(page, _photo())
    expect(page.get_by_role("region", name="Answer")).to_contain_text("as soon as a model is ready")
    page.unroute("**/v1/models")
    expect(_classes(page)).to_have_count(5)


def test_a_known_accuracy_is_shown(page: Page) -> None:
    accuracy = {"dataset": "CIFAR-10", "top1": 0.945, "top5": 0.99, "n": 10000}
    trained = {
        "name": "m",
        "version": "1",
        "ready": True,
        "reason": "",
        "engine": "openvino",
        "untrained": False,
    }
    page.route(
        "**/v1/models",
        lambda route: route.fulfill(json={"models": [trained | {"classes": 10, "accuracy": accuracy}]}),
    )
    page.reload()
    expect(page.get_by_text("94.5 % top-1 on CIFAR-10, n=10,000")).to_be_visible()
    expect(page.get_by_text("Untrained model")).to_be_hidden()


def test_a_server_without_models_says_so(page: Page) -> None:
    page.route("**/v1/models", lambda route: route.fulfill(json={"models": []}))
    page.reload()
    expect(page.get_by_role("combobox", name="Model")).to_have_text("This server has no models")
