"""The image: small truths about its Dockerfile and its compose file. Building it needs more than a test has."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable

import pytest
import yaml

from patience import PATIENCE_S
from service import __version__, settings
from service.settings import Settings
from serving import ROOT, RunningServer

pytestmark = pytest.mark.e2e

DOCKERFILE = ROOT / "docker" / "Dockerfile"
DEFAULTS = settings.load({"model_repository": "/models"}, {})


def instructions() -> list[tuple[str, str]]:
    """Read the Dockerfile: each instruction and its words."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(name, words) for name, _, words in (line.partition(" ") for line in text.splitlines() if line)]


def last_stage() -> dict[str, str]:
    every = instructions()
    begin = max(index for index, (name, _) in enumerate(every) if name == "FROM")
    return dict(every[begin:])


def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for word in last_stage()["ENV"].split())


def test_hadolint_finds_nothing(tool: Callable[[str], str]) -> None:
    lint = subprocess.run([tool("hadolint"), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")


def test_the_base_is_an_argument_with_a_fixed_tag() -> None:
    bases = [words.split()[0] for name, words in instructions() if name == "FROM"]
    assert set(bases) == {"${BASE}"}
    default = dict(instructions())["ARG"]
    assert re.fullmatch(r"BASE=python:3\.11-[a-z-]+", default)


def test_nothing_asks_a_registry_for_a_frontend() -> None:
    assert not re.search(r"^#\s*syntax\s*=", DOCKERFILE.read_text(), flags=re.MULTILINE)


def test_the_server_is_not_root_and_kubernetes_can_tell() -> None:
    assert last_stage()["USER"] == "10001:10001"


def test_the_last_stage_installs_nothing() -> None:
    assert "RUN" not in last_stage()


def test_signals_reach_the_server_itself() -> None:
    stage = last_stage()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(stage["ENTRYPOINT"])[0] in scripts
    assert json.loads(stage["CMD"]) == ["serve"]
    assert stage["STOPSIGNAL"] == "SIGTERM"


def test_the_ports_are_those_of_the_server() -> None:
    ports = {DEFAULTS.rest_port, DEFAULTS.grpc_port, DEFAULTS.control_port}
    assert {int(port) for port in last_stage()["EXPOSE"].split()} == ports


def test_the_server_takes_the_settings_of_the_image() -> None:
    chosen = settings.load({}, environment())
    assert (chosen.host, str(chosen.model_repository), chosen.log_format) == ("0.0.0.0", "/models", "json")
    known = {settings.variable_of(name) for name in Settings.model_fields}
    assert {name for name in environment() if name.startswith(settings.PREFIX)} <= known


def test_the_health_check_is_true_of_a_live_server_and_of_no_other(server: RunningServer) -> None:
    _, words = json.loads(last_stage()["HEALTHCHECK"].partition(" CMD ")[2])[1:]
    assert f"http://127.0.0.1:{DEFAULTS.control_port}/" in words
    for control, is_healthy in ((server.control, True), ("http://127.0.0.1:1", False)):
        check = words.replace(f"http://127.0.0.1:{DEFAULTS.control_port}", control)
        ended = subprocess.run(
            [sys.executable, "-c", check], capture_output=True, timeout=PATIENCE_S, check=False
        )
        assert (ended.returncode == 0) == is_healthy


def test_the_version_is_the_server_s() -> None:
    assert f'org.opencontainers.image.version="{__version__}"' in last_stage()["LABEL"]


def test_no_label_is_an_address() -> None:
    assert "://" not in last_stage()["LABEL"]


def test_only_what_makes_the_wheel_is_sent_to_the_build() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    sent = {"LICENSE", "README.md", "constraints.txt", "pyproject.toml", "models", "service"}
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == sent
    assert "models/demo" in lines


def test_compose_is_as_strict_as_the_chart() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    service = compose["services"]["cardinal"]
    assert service["image"] == f"cardinal:{__version__}"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert {port.rpartition(":")[2] for port in service["ports"]} == set(last_stage()["EXPOSE"].split())
    assert service["volumes"] == ["../models/demo:/models:ro"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    grace_s = int(service["stop_grace_period"].removesuffix("s"))
    assert grace_s > DEFAULTS.lame_duck_s + DEFAULTS.drain_timeout_s + 5
