"""The chart: what helm makes of it is valid and safe, and agrees with the server that it starts."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from patience import PATIENCE_S
from service import __version__, settings
from service.rest import build_control_app
from service.settings import Settings
from serving import ROOT, RunningServer

pytestmark = pytest.mark.e2e

CHART = ROOT / "helm" / "cardinal"
WAYS = sorted((CHART / "ci").glob("*-values.yaml"))
VERSIONS = ["1.25", "1.31", "1.36"]
PLACED = ("--set", "modelRepository.existingClaim=models")
PORTS = ("rest_port", "grpc_port", "control_port")

Manifest = dict[str, Any]
Helm = Callable[..., "subprocess.CompletedProcess[str]"]
Render = Callable[..., list[Manifest]]

every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.stem.removesuffix("-values"))


@pytest.fixture(scope="session")
def helm(tool: Callable[[str], str]) -> Helm:
    """Run helm."""
    program = tool("helm")

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """Render the chart as the release `blue`; its manifests."""

    def manifests(*words: object) -> list[Manifest]:
        ended = helm("template", "blue", CHART, *words)
        assert ended.returncode == 0, ended.stderr
        return [manifest for manifest in yaml.safe_load_all(ended.stdout) if manifest]

    return manifests


@pytest.fixture
def faults(tool: Callable[[str], str], tmp_path: Path) -> Callable[[list[Manifest], str], str]:
    """Say what Kubernetes' own schemas find wrong with manifests; a kind that they do not know is a fault."""

    def find(manifests: list[Manifest], version: str) -> str:
        file = tmp_path / "manifests.yaml"
        file.write_text(yaml.safe_dump_all(manifests))
        words = [tool("kubernetes-validate"), "--strict", "-k", version, str(file)]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        said = ended.stdout + ended.stderr
        return said if ended.returncode or "Couldn't find schema" in said else ""

    return find


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def deployment(manifests: list[Manifest]) -> Manifest:
    return of_kind(manifests, "Deployment")[0]["spec"]


def pod(manifests: list[Manifest]) -> Manifest:
    return deployment(manifests)["template"]["spec"]


def environment(manifests: list[Manifest]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in pod(manifests)["containers"][0]["env"]}


def leaves(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{before}{name}.")
        else:
            yield before + name, value


def objects(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """List every schema of an object that names its keys."""
    if "properties" in schema:
        yield schema
        for part in schema["properties"].values():
            yield from objects(part)
    if "items" in schema:
        yield from objects(schema["items"])


def values_schema() -> dict[str, Any]:
    return json.loads((CHART / "values.schema.json").read_text())


def test_each_supported_way_has_its_values() -> None:
    assert [way.name for way in WAYS] == [
        "ascend-values.yaml",
        "default-with-pvc-values.yaml",
        "hostpath-values.yaml",
    ]


def test_the_chart_is_of_the_server_s_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


def test_lint_finds_nothing_in_the_defaults(helm: Helm) -> None:
    ended = helm("lint", "--strict", CHART)
    assert ended.returncode == 0, ended.stdout


@every_way
def test_lint_finds_nothing(helm: Helm, way: Path) -> None:
    ended = helm("lint", "--strict", CHART, "--values", way)
    assert ended.returncode == 0, ended.stdout


@every_way
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_would_take_the_manifests(
    render: Render, faults: Callable[[list[Manifest], str], str], way: Path, version: str
) -> None:
    manifests = render("--values", way, "--kube-version", f"{version}.0")
    assert len(of_kind(manifests, "Pod")) == 2
    known = [manifest for manifest in manifests if manifest["kind"] != "ServiceMonitor"]
    assert faults(known, version) == ""


@pytest.mark.parametrize(
    "harm",
    [{"replicaCount": 1}, {"replicas": "3"}, {"apiVersion": "apps/v1beta9"}],
    ids=["a misspelt key", "a wrong type", "an unknown kind"],
)
def test_the_schemas_are_really_asked(
    render: Render, faults: Callable[[list[Manifest], str], str], harm: dict[str, Any]
) -> None:
    (good,) = of_kind(render(*PLACED), "Deployment")
    bad = copy.deepcopy(good)
    (bad if "apiVersion" in harm else bad["spec"]).update(harm)
    assert faults([good], "1.31") == ""
    assert faults([bad], "1.31") != ""


def test_an_older_kubernetes_is_refused(helm: Helm) -> None:
    ended = helm("template", "blue", CHART, *PLACED, "--kube-version", "1.24.9")
    assert "requires kubeVersion: >=1.25" in ended.stderr


@pytest.mark.parametrize(
    "given",
    [(), ("--set", "modelRepository.existingClaim=a,modelRepository.hostPath=/b")],
    ids=["none", "two"],
)
def test_a_server_without_one_place_for_its_models_is_not_installed(
    helm: Helm, given: tuple[str, ...]
) -> None:
    ended = helm("template", "blue", CHART, *given)
    assert ended.returncode != 0
    assert "give exactly one of existingClaim, hostPath and volume" in ended.stderr


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("replica=2", "Additional property replica is not allowed"),
        ("image.tags=1", "Additional property tags is not allowed"),
        ("settings.max_batch=4", "Additional property max_batch is not allowed"),
        ("metrics.serviceMonitor.enable=true", "Additional property enable is not allowed"),
        ("tolerations[0].keys=a", "Additional property keys is not allowed"),
        ("replicas=two", "replicas: Invalid type. Expected: integer, given: string"),
        ("settings.max_batch_rows=many", "settings.max_batch_rows: Invalid type"),
        ("settings.engine=gpu", "settings.engine must be one of the following"),
        ("settings.rest_port=0", "settings.rest_port: Must be greater than or equal to 1"),
        (
            "podSecurityContext.runAsUser=0",
            "podSecurityContext.runAsUser: Must be greater than or equal to 1",
        ),
        ("modelRepository.hostPath=models", "modelRepository.hostPath: Does not match pattern"),
        ("image.digest=sha256:12", "image.digest: Does not match pattern"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(helm: Helm, value: str, complaint: str) -> None:
    ended = helm("template", "blue", CHART, *PLACED, "--set", value)
    assert ended.returncode != 0
    assert complaint in ended.stderr


def test_no_level_of_the_values_takes_unknown_keys() -> None:
    for schema in objects(values_schema()):
        assert schema["additionalProperties"] is False, schema


def test_the_chart_knows_exactly_the_settings_of_the_server() -> None:
    wanted = {
        name: {key: fact for key, fact in field.items() if key in ("type", "enum") or "imum" in key.lower()}
        for name, field in Settings.model_json_schema()["properties"].items()
    }
    for port in PORTS:
        wanted[port]["minimum"] = 1  # any free port is of no use behind a service
    found = values_schema()["properties"]["settings"]["properties"]
    assert found == wanted, f"values.schema.json, settings.properties should be {json.dumps(wanted)}"


def test_every_setting_arrives_as_it_was_given(render: Render, tmp_path: Path) -> None:
    given = {
        "required_models": "a,b",
        "max_body_bytes": 33_554_432,
        "max_image_pixels": 1_000_000_000,
        "lame_duck_s": 1.5,
        "drain_timeout_s": 0,
        "log_level": "debug",
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"settings": given}))
    chosen = settings.load({}, environment(render(*PLACED, "--values", file)))
    assert {name: getattr(chosen, name) for name in given} == given


def test_unless_told_the_settings_are_those_of_the_server(render: Render) -> None:
    variables = environment(render(*PLACED))
    chosen = settings.load({}, variables).model_dump()
    defaults = settings.load({"model_repository": "/models"}, {}).model_dump()
    differing = {name for name in chosen if chosen[name] != defaults[name]}
    assert differing == {"host", "lame_duck_s", "decode_threads", "log_format"}
    assert list(settings.misspelt(variables)) == []


@every_way
def test_ports_and_probes_are_those_of_the_server(render: Render, way: Path) -> None:
    manifests = render("--values", way, "--set", "settings.rest_port=9000")
    container = pod(manifests)["containers"][0]
    chosen = settings.load({}, environment(manifests))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {name.removesuffix("_port"): getattr(chosen, name) for name in PORTS}

    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {"control"}
    paths = {name: probe["path"] for name, probe in probes.items()}
    assert paths == {"startup": "/live", "liveness": "/live", "readiness": "/ready"}
    app = build_control_app(None, CollectorRegistry())  # type: ignore[arg-type]  # only its routes are read
    assert set(paths.values()) < {route.path for route in app.routes}


@pytest.mark.parametrize("times", [{}, {"lame_duck_s": 0, "drain_timeout_s": 0}, {"lame_duck_s": 7.3}])
def test_the_grace_of_a_pod_is_longer_than_the_server_takes(render: Render, times: dict[str, float]) -> None:
    words = [word for name, value in times.items() for word in ("--set-json", f"settings.{name}={value}")]
    manifests = render(*PLACED, *words)
    chosen = settings.load({}, environment(manifests))
    grace_s = pod(manifests)["terminationGracePeriodSeconds"]
    assert isinstance(grace_s, int)
    assert grace_s > chosen.lame_duck_s + chosen.drain_timeout_s + 5


@every_way
def test_every_pod_is_confined(render: Render, way: Path) -> None:
    manifests = render("--values", way)
    for spec in [pod(manifests), *(test["spec"] for test in of_kind(manifests, "Pod"))]:
        assert spec["enableServiceLinks"] is False
        assert spec["automountServiceAccountToken"] is False
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (context["runAsUser"], context["runAsGroup"]) == (10001, 10001)
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@every_way
def test_the_models_are_mounted_where_the_server_looks_and_cannot_be_written(
    render: Render, way: Path
) -> None:
    manifests = render("--values", way)
    mounts = {mount["name"]: mount for mount in pod(manifests)["containers"][0]["volumeMounts"]}
    assert mounts["models"]["readOnly"] is True
    assert mounts["models"]["mountPath"] == environment(manifests)["CARDINAL_MODEL_REPOSITORY"]
    volumes = {volume.pop("name"): volume for volume in pod(manifests)["volumes"]}
    given = yaml.safe_load(way.read_text())["modelRepository"]
    wanted = {
        "existingClaim": {"persistentVolumeClaim": {"claimName": given.get("existingClaim")}},
        "hostPath": {"hostPath": {"path": given.get("hostPath"), "type": "Directory"}},
        "volume": given.get("volume"),
    }
    assert volumes["models"] == wanted[next(iter(given))]
    assert volumes["tmp"] == {"emptyDir": {"sizeLimit": "64Mi"}}


@every_way
def test_the_service_reaches_the_server_s_pods_alone_and_not_the_control_port(
    render: Render, way: Path
) -> None:
    manifests = render("--values", way)
    labels = deployment(manifests)["template"]["metadata"]["labels"]
    service = next(m for m in of_kind(manifests, "Service") if m["metadata"]["name"] == "blue-cardinal")
    assert {port["targetPort"] for port in service["spec"]["ports"]} == {"rest", "grpc"}
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment(manifests)["selector"]["matchLabels"].items() <= labels.items()
    for test in of_kind(manifests, "Pod"):
        assert not service["spec"]["selector"].items() <= test["metadata"]["labels"].items()


@pytest.mark.parametrize(("replicas", "budgets"), [(1, 0), (2, 1)])
def test_only_several_pods_have_a_disruption_budget(render: Render, replicas: int, budgets: int) -> None:
    manifests = render(*PLACED, "--set", f"replicas={replicas}")
    found = of_kind(manifests, "PodDisruptionBudget")
    assert [budget["spec"]["maxUnavailable"] for budget in found] == [1] * budgets
    labels = deployment(manifests)["template"]["metadata"]["labels"]
    assert all(budget["spec"]["selector"]["matchLabels"].items() <= labels.items() for budget in found)


def test_prometheus_finds_the_pods_by_annotation(render: Render) -> None:
    manifests = render(*PLACED, "--set", "metrics.scrapeAnnotations=true,settings.control_port=9002")
    assert deployment(manifests)["template"]["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9002",
        "prometheus.io/path": "/metrics",
    }


def test_prometheus_finds_the_pods_by_its_operator(render: Render) -> None:
    """No schema of a ServiceMonitor comes with Kubernetes: what it points at is checked here."""
    manifests = render("--values", CHART / "ci" / "ascend-values.yaml")
    (monitor,) = of_kind(manifests, "ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"].keys() == {"selector", "endpoints"}
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = [m for m in of_kind(manifests, "Service") if wanted <= m["metadata"]["labels"].items()]
    (port,) = service["spec"]["ports"]
    assert monitor["spec"]["endpoints"] == [{"port": port["name"], "path": "/metrics", "interval": "15s"}]
    assert port["targetPort"] == "control"


def test_what_is_kubernetes_own_is_passed_on_as_it_is(render: Render) -> None:
    way = CHART / "ci" / "ascend-values.yaml"
    given, spec = yaml.safe_load(way.read_text()), pod(render("--values", way))
    assert spec["containers"][0]["resources"] == given["resources"]
    assert spec["nodeSelector"] == given["nodeSelector"]
    assert spec["tolerations"] == given["tolerations"]
    assert deployment(render("--values", way))["strategy"] == given["strategy"]
    assert spec["securityContext"]["supplementalGroups"] == [1000]


def test_the_image_is_the_chart_s_version_unless_a_tag_or_a_digest_is_given(render: Render) -> None:
    digest = "sha256:" + "0" * 64
    wanted = {"": f"cardinal:{__version__}", "tag=7": "cardinal:7", f"digest={digest}": f"cardinal@{digest}"}
    for given, image in wanted.items():
        words = ("--set-string", f"image.{given}") if given else ()
        assert pod(render(*PLACED, *words))["containers"][0]["image"] == image


@pytest.mark.parametrize("door", ["rest", "grpc"])
def test_helm_test_asks_a_real_server(render: Render, server: RunningServer, door: str) -> None:
    name = f"blue-cardinal-test-{door}"
    (test,) = [m for m in of_kind(render(*PLACED), "Pod") if m["metadata"]["name"] == name]
    (container,) = test["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    address = {"rest": server.rest.removeprefix("http://"), "grpc": server.grpc}[door]
    program, count = re.subn(r"blue-cardinal:\d+", address, container["args"][0])
    assert count == 1
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_every_value_is_documented_with_its_default() -> None:
    rows = re.findall(
        r"^\| `([\w.]+)` \| `(.*?)` \| .+ \|$", (CHART / "README.md").read_text(), flags=re.MULTILINE
    )
    documented = {name: json.loads(default) for name, default in rows}
    assert documented == dict(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))


def test_every_value_has_its_comment() -> None:
    """A comment stands above the key, or above the group that the key is in."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    top = [index for index, line in enumerate(lines) if re.match(r"\w+:", line)]
    for begin, end in zip(top, [*top[1:], len(lines)], strict=True):
        has_comment = lines[begin - 1].startswith("#") or any("  # " in line for line in lines[begin:end])
        assert has_comment, lines[begin]
