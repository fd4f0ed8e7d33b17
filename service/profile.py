"""Draws what a running server has measured of a model: GET /v1/models/{model} -> a table on the terminal."""

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import urlopen

_BAR = 30
_TIMEOUT_S = 10


class NoProfile(Exception):
    """The server has nothing to tell; the message says why."""


def fetch(server: str, model: str) -> dict[str, Any]:
    """Ask a running server to describe a model."""
    url = f"{server.rstrip('/')}/v1/models/{quote(model, safe='')}"
    if not url.startswith(("http://", "https://")):
        raise NoProfile(f"the server is {server!r}; an address such as http://127.0.0.1:8000 is needed")
    try:
        with urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - http and https only
            description: dict[str, Any] = json.load(answer)
    except HTTPError as error:
        raise NoProfile(_sentence(error)) from error
    except (URLError, OSError, ValueError) as error:
        raise NoProfile(f"{url}: {error}") from error
    return description


def drawn(description: dict[str, Any]) -> str:
    """Draw the curve of each engine of a model.

    Raises:
        NoProfile: the model is not loaded.
    """
    name = f"{description['name']} version {description['version']}"
    if not description.get("profiles"):
        raise NoProfile(f"{name} has not been measured: {description['reason'] or 'its engine is starting'}")
    return "\n\n".join(_engine(name, profile) for profile in description["profiles"])


def _engine(name: str, profile: dict[str, Any]) -> str:
    fastest = max(gear["images_per_s"] for gear in profile["gears"])
    lines = [
        f"{name} on {profile['device']}, {profile['engine']}",
        f"{'gear':>6}{'p50 ms':>10}{'p99 ms':>10}{'images/s':>10}",
    ]
    lines += [_gear(gear, fastest) for gear in profile["gears"]]
    demand = f"{profile['images_per_s']:g} images/s within {profile['deadline_ms']:g} ms"
    lines.append(f"tuned to {demand}: a long line is run {profile['main_gear']} at a time")
    return "\n".join(lines)


def _gear(gear: dict[str, Any], fastest: float) -> str:
    bar = "#" * max(1, round(_BAR * gear["images_per_s"] / fastest))
    line = f"{gear['gear']:6}{gear['p50_ms']:10.4g}{gear['p99_ms']:10.4g}{gear['images_per_s']:10.4g}  {bar:{_BAR}}"
    if gear["is_used"]:
        return line.rstrip()
    batches = "+".join(map(str, gear["best_batches"]))
    return f"{line}  not used: {batches} takes {gear['least_ms']:.4g} ms"


def _sentence(error: HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"{error.url}: {error}"
