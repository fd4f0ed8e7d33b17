"""Assemble a bundle: network, weights, labels, preprocessing -> content of each file by its path."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from models.content import Content, sha256_of
from models.errors import InvalidValueError
from models.frameworks.forward import Forward
from models.golden import Sample, evaluate, golden_rows, golden_samples
from models.graph import deployment_graph, graph_chunks
from models.manifest import (
    GRAPH_FILE,
    LABELS_FILE,
    MANIFEST_FILE,
    AccuracySection,
    ArtifactSection,
    FileSection,
    GoldenSection,
    Manifest,
    NetworkSection,
    PreprocessingSection,
    ProvenanceSection,
    SampleSection,
)
from models.networks import Network
from models.preprocessing import Preprocessing
from models.weights import Array, random_weights

TEMPERATURE = 1.0
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Weights and what the manifest says about where they come from."""

    weights: dict[str, Array]
    provenance: ProvenanceSection
    accuracy: AccuracySection | None = None


def untrained_source(network: Network, seed: int) -> Source:
    """Return random weights, the same for the same arguments."""
    provenance = ProvenanceSection(
        untrained=True, recipe=None, framework=None, checkpoint_sha256=None, seed=seed
    )
    return Source(weights=random_weights(network, seed), provenance=provenance)


def bundle(
    network: Network,
    source: Source,
    *,
    labels: Sequence[str],
    preprocessing: Preprocessing,
    forward: Forward | None = None,
) -> dict[str, Content]:
    """Return the files of a bundle, the same bytes for the same arguments on one kind of CPU.

    The golden samples are computed by a framework's forward pass or, without one, by onnx's reference evaluator.
    The source's weights are used up: they become the graph.
    """
    _check_labels(network, labels)
    rows = golden_rows(preprocessing)
    logits = forward.logits(network, source.weights, preprocessing.planes(rows)) if forward else None
    graph = deployment_graph(network, source.weights, preprocessing)
    samples = golden_samples(evaluate(graph, rows) if logits is None else logits, TEMPERATURE)
    files: dict[str, Content] = {
        GRAPH_FILE: partial(graph_chunks, graph),
        LABELS_FILE: "".join(f"{label}\n" for label in labels).encode(),
        **{_sample_file(index): sample.png for index, sample in enumerate(samples)},
    }
    manifest = Manifest(
        network=NetworkSection(name=network.name, width=network.width),
        input_size=preprocessing.crop,
        preprocessing=PreprocessingSection(
            mode=preprocessing.mode,
            size=preprocessing.size,
            crop=preprocessing.crop,
            interpolation=preprocessing.interpolation,
            antialias=preprocessing.antialias,
        ),
        classes=network.classes,
        labels=FileSection(file=LABELS_FILE, sha256=sha256_of(files[LABELS_FILE])),
        artifacts=(_cpu_artifact(sha256_of(files[GRAPH_FILE])),),
        golden=_golden(samples, forward.computed_by if forward else "onnx reference evaluator, float32"),
        accuracy=source.accuracy,
        provenance=source.provenance,
        temperature=TEMPERATURE,
    )
    return {**files, MANIFEST_FILE: manifest.text().encode()}


def _cpu_artifact(sha256: str) -> ArtifactSection:
    return ArtifactSection(
        engine="openvino", target="cpu", file=GRAPH_FILE, sha256=sha256, gears=None, precision="f32"
    )


def _golden(samples: Sequence[Sample], computed_by: str) -> GoldenSection:
    return GoldenSection(
        computed_by=computed_by,
        tolerance=TOLERANCE,
        samples=tuple(
            SampleSection(file=_sample_file(index), sha256=sha256_of(sample.png), scores=sample.scores)
            for index, sample in enumerate(samples)
        ),
    )


def _check_labels(network: Network, labels: Sequence[str]) -> None:
    if len(labels) != network.classes:
        raise InvalidValueError(
            f"labels are {len(labels)}; allowed are as many as classes, {network.classes}"
        )
    for index, label in enumerate(labels):
        if not label.strip() or len(label.splitlines()) > 1:
            raise InvalidValueError(f"label {index} is {label!r}; allowed is one line of text")


def _sample_file(index: int) -> str:
    return f"golden/{index}.png"
