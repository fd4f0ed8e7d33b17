import re
from dataclasses import replace
from typing import Any

import pytest

from models.errors import InvalidValueError
from models.networks import NETWORKS, SelectiveKernel, SqueezeExcite, describe
from models.sizes import measure


@pytest.mark.parametrize(
    ("name", "parameters", "statistics", "gmacs", "norms"),
    [
        ("se_resnext50", 27_559_896, 68_224, 4.233, 53),
        ("resnext101", 83_455_272, 202_880, 15.460, 104),
        ("sknet50", 25_480_874, 98_432, 4.461, 85),
    ],
)
def test_the_full_networks_have_the_sizes_of_the_references(
    name: str, parameters: int, statistics: int, gmacs: float, norms: int
) -> None:
    size = measure(describe(name))
    assert (size.parameters, size.statistics, size.norms) == (parameters, statistics, norms)
    assert round(size.macs / 1e9, 3) == gmacs


def test_sknet50_for_1000_classes_has_the_size_of_the_paper() -> None:
    assert measure(describe("sknet50", classes=1000)).parameters == 27_509_384


def test_the_papers_gate_has_a_norm_instead_of_a_bias() -> None:
    reference, paper = measure(describe("sknet50", classes=1000)), measure(describe("sknet50_paper"))
    hidden = 3 * 32 + 4 * 32 + 6 * 32 + 3 * 64  # of the blocks of each stage
    assert paper.parameters == reference.parameters + hidden
    assert paper.statistics == reference.statistics + 2 * hidden
    assert (paper.norms, paper.macs) == (reference.norms + 16, reference.macs)


def test_the_plain_sknet_has_a_convolution_and_a_selection_in_each_of_three_stages() -> None:
    network = describe("sknet8", classes=10)
    size = measure(network, 32)
    assert (size.convolutions, size.norms, size.denses) == (1 + 3 * 3, 1 + 3 * 5, 3 * 3 + 1)
    channels = [network.out_channels(stage) for stage in range(3)]
    assert channels == [128, 320, 448]
    entering = [network.stem_channels, *channels[:-1]]
    convolutions = 3 * 9 * 64 * 32**2  # of the stem
    gates = 448 * 10  # of the classifier
    for i, o, side in zip(entering, channels, (32, 16, 8), strict=True):
        convolutions += 9 * i * o * side**2 + 2 * 9 * o * o * (side // 2) ** 2
        gates += 3 * o * max(o // 16, 32)
    assert size.macs == convolutions + gates


def test_a_width_scales_all_channels_of_a_plain_network() -> None:
    network = describe("sknet8", width=0.25)
    assert (network.stem_channels, network.scaled_groups) == (16, 1)
    assert [network.inner_channels(stage) for stage in range(3)] == [32, 80, 112]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_width_scales_groups_and_keeps_the_channels_per_group(name: str) -> None:
    full, half = describe(name), describe(name, width=0.5)
    assert half.scaled_groups * 2 == full.scaled_groups
    for stage in range(4):
        assert half.inner_channels(stage) * 2 == full.inner_channels(stage)
        assert half.out_channels(stage) * 2 == full.out_channels(stage)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            {"stages": (3, 4, 6)},
            "stages is (3, 4, 6); allowed are 4 block counts, of at least 1 but for the last",
        ),
        ({"stages": (3, 4, 0, 0)}, "stages is (3, 4, 0, 0); allowed are 4 block counts, of at least 1"),
        ({"stages": (3, 4, 6, -1)}, "stages is (3, 4, 6, -1); allowed are 4 block counts, of at least 1"),
        ({"groups": 0}, "groups is 0; allowed is at least 1"),
        ({"base_width": 0}, "base_width is 0; allowed is at least 1"),
        ({"classes": 1}, "classes is 1; allowed is at least 2"),
        ({"stem_pool": "same"}, "stem_pool is 'same'; allowed are 'ceil' and 'padded'"),
        ({"norm_momentum": 0.0}, "norm_momentum is 0.0; allowed is more than 0, at most 1"),
        ({"width": 0.0}, "width is 0.0; allowed is more than 0, at most 8"),
        ({"width": float("nan")}, "width is nan; allowed is more than 0, at most 8"),
        ({"width": 0.3}, "width is 0.3, which makes 9.6 groups of se_resnext50; allowed is"),
        ({"width": 1 / 32}, "width is 0.03125, which makes 0.5 gate channels of se_resnext50; allowed is"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused_with_its_value(
    fault: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(sentence)):
        replace(describe("se_resnext50"), **fault)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"stem_pool": "padded"}, "stem_pool is 'padded'; sknet8 is a plain network and has none"),
        ({"gate": None}, "gate of a plain network is None; allowed is an SK gate, with inner_relu"),
        ({"inner_relu": False}, "allowed is an SK gate, with inner_relu"),
        ({"width": 1 / 128}, "width is 0.0078125, which makes 0.5 stem channels of sknet8"),
        ({"planes": (128, 321, 448, 448), "width": 0.5}, "makes 160.5 channels in stage 2 of sknet8"),
        ({"planes": (128, 0, 448, 448)}, "planes is (128, 0, 448, 448); allowed are at least 1"),
    ],
)
def test_a_plain_network_that_makes_no_sense_is_refused_with_its_value(
    fault: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(sentence)):
        replace(describe("sknet8"), **fault)


@pytest.mark.parametrize(
    ("gate", "fault"),
    [
        (SqueezeExcite, {"reduction": 0}),
        (SelectiveKernel, {"reduction": 0}),
        (SelectiveKernel, {"minimum": 0}),
        (SelectiveKernel, {"branches": 1}),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(gate: type[Any], fault: dict[str, int]) -> None:
    ((field, value),) = fault.items()
    with pytest.raises(InvalidValueError, match=f"gate {field} is {value}; allowed is at least"):
        gate(**fault)


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidValueError, match="'vgg'; allowed are se_resnext50, resnext101, sknet50"):
        describe("vgg")


@pytest.mark.parametrize("size", [0, 28, 225, 226])
def test_an_input_size_on_which_poolings_disagree_is_refused(size: int) -> None:
    with pytest.raises(InvalidValueError, match=f"input size is {size}; allowed are multiples of 4"):
        measure(describe("sknet50"), size)
