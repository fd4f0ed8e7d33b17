"""Names of others are understood, told apart, and given back."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.checkpoints import (
    Checkpoint,
    Wish,
    dialect_of,
    export_weights,
    import_weights,
    read_checkpoint,
    recognise,
    weights_only,
)
from models.checkpoints.dialects import DIALECTS, Dialect, stored_tensors
from models.checkpoints.tensors import Tensors
from models.errors import InvalidValueError
from models.networks import Network, describe
from models.weights import Weights, random_weights

FIXTURES = Path(__file__).parent / "fixtures"
# Wide enough that every group convolution has more than ten groups, so that "10" must not come before "2".
WIDTHS = {
    "se_resnext50": 0.375,
    "resnext101": 0.1875,
    "sknet50": 0.375,
    "sknet50_paper": 0.375,
    "sknet8": 0.375,
}


def _small(name: str) -> Network:
    return describe(name, classes=7, width=WIDTHS[name])


NETWORKS = {name: _small(name) for name in WIDTHS}
WEIGHTS = {name: random_weights(network, seed=1) for name, network in NETWORKS.items()}


def _file(tensors: Tensors) -> Checkpoint:
    return Checkpoint(path=Path("a.ckpt"), format="ckpt", tensors=tensors)


def _told(dialect: str, network: str = "se_resnext50") -> Tensors:
    return dict(export_weights(NETWORKS[network], WEIGHTS[network], dialect_of(dialect, NETWORKS[network])))


def _assert_same(found: Weights, expected: Weights) -> None:
    assert list(found) == list(expected)
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)
    assert all(found[name].shape == expected[name].shape for name in expected)


def _title(dialect: Dialect) -> str:
    return f"{dialect.name} {dialect.network}"


@pytest.mark.parametrize("dialect", DIALECTS, ids=_title)
def test_weights_go_into_each_dialect_and_come_back_to_the_bit(dialect: Dialect) -> None:
    network = NETWORKS[dialect.network]
    told = dict(export_weights(network, WEIGHTS[dialect.network], dialect))
    imported = import_weights(_file(told), Wish())
    assert imported.network == network
    assert dialect in imported.dialects
    assert imported.dropped == 0
    _assert_same(imported.weights, WEIGHTS[dialect.network])


@pytest.mark.parametrize(
    ("dialect", "count"),
    [
        ("mindspore-split resnext101", 2601),
        ("mindspore-split se_resnext50", 827),
        ("mindspore-split sknet50", 1499),
        ("mindspore resnext101", 522),
        ("mindspore se_resnext50", 331),
        ("mindspore sknet50", 507),
    ],
)
def test_the_references_have_as_many_tensors(dialect: str, count: int) -> None:
    (found,) = (known for known in DIALECTS if _title(known) == dialect)
    stored = stored_tensors(describe(found.network), found)
    assert sum(len(how.names) for how in stored.values()) == count


def _real_names() -> dict[str, dict[str, tuple[int, ...]]]:
    titles: dict[str, dict[str, tuple[int, ...]]] = {}
    for line in gzip.decompress((FIXTURES / "names.txt.gz").read_bytes()).decode().splitlines():
        dialect, network, name, *shape = line.split()
        sizes = tuple(int(size) for size in "".join(shape).split("x") if size)
        titles.setdefault(f"{dialect} {network}", {})[name] = sizes
    return titles


@pytest.mark.parametrize(("title", "shapes"), _real_names().items(), ids=_real_names())
def test_names_and_shapes_are_those_of_the_real_packages(
    title: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    (dialect,) = (known for known in DIALECTS if _title(known) == title)
    stored = stored_tensors(describe(dialect.network), dialect)
    ours = {name: how.shape for how in stored.values() for name in how.names}
    assert ours == {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    ("dialect", "network", "ours", "theirs"),
    [
        (
            "mindspore",
            "se_resnext50",
            "layer2.0.downsample.1.running_var",
            "layer2.0.down_sample.bn.moving_variance",
        ),
        ("mindspore", "resnext101", "bn1.weight", "bn.gamma"),
        ("cadene", "resnext101", "layer3.22.conv2.weight", "features.6.22.0.0.0.3.weight"),
        ("cadene", "resnext101", "layer1.0.downsample.1.bias", "features.4.0.0.1.1.bias"),
        ("mindspore", "sknet50", "layer1.0.branches.1.bn.bias", "layer1.0.feas.2.convs.1.1.beta"),
        ("mindspore", "sknet50", "layer4.2.sk.select.0.weight", "layer4.2.feas.2.fcs.0.weight"),
        ("mindspore", "sknet50", "layer4.2.bn2.running_mean", "layer4.2.feas.3.moving_mean"),
        ("mindspore", "sknet50", "layer2.0.downsample.0.weight", "layer2.0.shortcut.0.weight"),
        ("mindspore", "sknet50", "bn1.bias", "basic_conv.1.beta"),
    ],
)
def test_single_names_are_those_of_the_references(dialect: str, network: str, ours: str, theirs: str) -> None:
    stored = stored_tensors(describe(network), dialect_of(dialect, describe(network)))
    backbone = "backbone." if dialect == "mindspore" and network != "sknet50" else ""
    assert stored[ours].names == (backbone + theirs,)


def test_split_convolutions_are_joined_in_the_order_of_their_numbers() -> None:
    told = _told("mindspore-split")
    rows = WEIGHTS["se_resnext50"]["layer1.0.conv2.weight"]
    for group in (2, 10):
        part = told[f"backbone.layer1.0.conv2.convs.{group}.weight"]
        assert part.tobytes() == rows[4 * group : 4 * group + 4].tobytes()
    shuffled = dict(sorted(told.items()))
    _assert_same(import_weights(_file(shuffled), Wish()).weights, WEIGHTS["se_resnext50"])


@pytest.mark.parametrize("prefix", ["module.", "network.", "module._orig_mod."])
def test_wrappers_are_taken_off(prefix: str) -> None:
    told = {prefix + name: tensor for name, tensor in _told("cadene").items()}
    _assert_same(import_weights(_file(told), Wish()).weights, WEIGHTS["se_resnext50"])


def test_a_name_with_and_without_wrapper_is_refused() -> None:
    told = _told("cardinal")
    with pytest.raises(InvalidValueError, match=r"'fc.bias' is there twice, with and without a prefix"):
        import_weights(_file(told | {"module.fc.bias": told["fc.bias"]}), Wish())


def test_what_training_keeps_beside_the_weights_is_dropped_and_counted() -> None:
    told = _told("mindspore-split")
    beside = ["global_step", "learning_rate", "momentum", "loss_scale", "epoch_num", "step_num"]
    beside += (
        [f"moments.{name}" for name in told] + [f"ema.{name}" for name in told] + ["bn.num_batches_tracked"]
    )
    imported = import_weights(_file(told | {name: np.zeros(1) for name in beside}), Wish())
    assert imported.dropped == len(beside)
    _assert_same(imported.weights, WEIGHTS["se_resnext50"])


@pytest.mark.parametrize("file", ["mindspore-training.ckpt", "pytorch-training-zip.pth.tar"])
def test_optimizer_state_and_counters_are_told_from_weights(file: str) -> None:
    names = weights_only(read_checkpoint(FIXTURES / file).tensors).keys()
    assert not any("moment" in name or "step" in name or "rate" in name or "num_" in name for name in names)
    assert {"0.weight"} < names


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_floats_become_float32(kind: type[np.floating]) -> None:
    told = {name: tensor.astype(kind) for name, tensor in _told("timm").items()}
    weights = import_weights(_file(told), Wish()).weights
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    assert weights["fc.bias"].tolist() == told["fc.bias"].astype(np.float32).tolist()


def test_all_that_does_not_fit_is_told_at_once_and_nothing_is_taken() -> None:
    told = _told("cadene")
    del told["last_linear.weight"], told["layer1.0.bn1.bias"]
    told["layer0.bn1.bias"] = np.zeros(5, np.float32)
    told["layer0.bn1.weight"] = np.zeros(24, np.int64)
    told["extra.weight"] = np.zeros(1, np.float32)
    with pytest.raises(InvalidValueError) as raised:
        import_weights(_file(told), Wish(classes=7))
    assert str(raised.value) == (
        "checkpoint a.ckpt cannot be used: it does not fit se_resnext50 (7 classes, width 0.375) in cadene names:"
        " 2 missing: layer1.0.bn1.bias, last_linear.weight;"
        " 1 surplus: extra.weight;"
        " 2 misshapen: layer0.bn1.weight is int64 (24,) and not float (24,),"
        " layer0.bn1.bias is float32 (5,) and not float (24,)"
    )


def test_a_long_list_is_cut() -> None:
    told = {name: tensor for name, tensor in _told("cardinal").items() if ".bn2." not in name}
    with pytest.raises(InvalidValueError, match=r"64 missing: layer1.0.bn2.weight, .* and 56 more$"):
        import_weights(_file(told), Wish())


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        (Wish(network="vgg"), "network is 'vgg'; allowed are"),
        (Wish(network="sknet50"), "in cardinal names: 256 missing: .* and 248 more; 80 surplus: "),
        (
            Wish(classes=9),
            r"2 misshapen: fc.weight is float32 \(7, 768\) and not float \(9, 768\)",
        ),
        (Wish(classes=0), "classes is 0; allowed is at least 2"),
        (Wish(width=1.0), r"misshapen: conv1.weight is float32 \(24, 3, 7, 7\) and not float \(64, 3"),
    ],
)
def test_what_the_caller_knows_is_held_against_the_file(wish: Wish, sentence: str) -> None:
    with pytest.raises(InvalidValueError, match=sentence):
        import_weights(_file(_told("cardinal")), wish)


@pytest.mark.parametrize("tensors", [{}, {"a": np.zeros(1)}, {"\x1b[31m": np.zeros(())}])
def test_names_that_nobody_knows_are_refused(tensors: Tensors) -> None:
    with pytest.raises(InvalidValueError, match="fit a network in no dialect; known are cardinal"):
        import_weights(_file(tensors), Wish())


def test_a_file_of_few_known_names_misses_the_others() -> None:
    with pytest.raises(InvalidValueError, match=r"521 missing: .*1 misshapen: conv1.weight is float64 \(\)"):
        import_weights(_file({"conv1.weight": np.zeros(())}), Wish(network="resnext101"))


def test_a_name_cannot_steer_the_terminal() -> None:
    with pytest.raises(InvalidValueError, match=r"1 surplus: \\x1b\[31m"):
        import_weights(_file(_told("cardinal") | {"\x1b[31m": np.zeros(1)}), Wish())


def test_a_stem_of_impossible_width_is_told_as_a_fault() -> None:
    told = _told("cardinal") | {"conv1.weight": np.zeros((5, 3, 7, 7), np.float32)}
    with pytest.raises(
        InvalidValueError, match=r"width 1\) in cardinal names: .*conv1.weight is float32 \(5, 3"
    ):
        import_weights(_file(told), Wish())


def test_values_that_are_no_numbers_are_refused() -> None:
    told = _told("cardinal")
    told["fc.bias"] = np.full(7, 1e300)
    told["bn1.bias"] = np.full(24, np.nan, np.float32)
    with pytest.raises(InvalidValueError, match=r"2 with values that are no numbers: bn1.bias, fc.bias"):
        import_weights(_file(told), Wish())


def test_names_that_several_dialects_share_are_told_as_such() -> None:
    fits = recognise(_told("timm", "resnext101"), Wish())
    assert [fit.dialect.name for fit in fits] == ["cardinal", "torchvision", "timm"]
    assert {fit.dialect.stem_pool for fit in fits} == {None, "padded"}


def test_a_dialect_without_names_for_the_network_is_refused() -> None:
    with pytest.raises(
        InvalidValueError, match="'torchvision' has no names for sknet50; allowed are cardinal, mind"
    ):
        dialect_of("torchvision", NETWORKS["sknet50"])
    with pytest.raises(
        InvalidValueError, match="dialect is 'keras'; allowed are cardinal, torchvision, timm"
    ):
        dialect_of("keras", NETWORKS["sknet50"])


def test_another_pool_does_not_change_the_names() -> None:
    network = replace(NETWORKS["resnext101"], stem_pool="padded")
    exported = export_weights(network, WEIGHTS["resnext101"], dialect_of("torchvision", network))
    assert exported.keys() == WEIGHTS["resnext101"].keys()
