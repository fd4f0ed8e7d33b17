import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import to_array
from PIL import Image

from models.cli import main
from models.errors import InvalidValueError
from models.preprocessing import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    PREPROCESSINGS,
    Preprocessing,
    standard_preprocessing,
)
from pictures import encoded, photo
from service.images import decode
from service.repository.manifest import Manifest


@pytest.mark.parametrize(("width", "height"), [(96, 64), (80, 120), (64, 64), (136, 17)])
def test_the_shortest_side_is_resized_and_the_centre_is_cropped(width: int, height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(pixels)
    row = Preprocessing(size=37, crop=32).rows(image)
    short, long = min(width, height), max(width, height)
    sides = {short: 37, long: int(37 * long / short)}
    resized = image.resize((sides[width], sides[height]), Image.Resampling.BILINEAR)
    left, top = (resized.width - 32) // 2, (resized.height - 32) // 2
    np.testing.assert_array_equal(row, np.asarray(resized)[top : top + 32, left : left + 32])


def test_exact_resizes_both_sides() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8))
    row = Preprocessing(mode="exact", size=32, crop=32, interpolation="bicubic").rows(image)
    np.testing.assert_array_equal(row, np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)))


def test_the_references_have_preprocessings_of_their_own() -> None:
    assert PREPROCESSINGS["mindspore"](224) == Preprocessing(
        mode="exact", size=256, crop=224, antialias=False
    )
    cifar10 = PREPROCESSINGS["cifar10"](224)
    assert (cifar10.mode, cifar10.size, cifar10.crop, cifar10.antialias) == ("exact", 224, 224, False)
    np.testing.assert_allclose(cifar10.mean, np.array([0.4914, 0.4822, 0.4465]) * 255)
    np.testing.assert_allclose(cifar10.std, np.array([0.2023, 0.1994, 0.2010]) * 255)


@pytest.mark.parametrize(("width", "height"), [(375, 500), (40, 90), (64, 64), (7, 9)])
def test_without_antialias_a_pixel_lies_between_four(width: int, height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    row = Preprocessing(mode="exact", size=64, crop=56, antialias=False).rows(Image.fromarray(pixels))
    planes = torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float64))
    resized = torch.nn.functional.interpolate(planes, (64, 64), mode="bilinear")[0].numpy()
    assert np.abs(row - resized.transpose(1, 2, 0)[4:60, 4:60]).max() <= 0.5 + 1e-9


CASES = {
    "--preprocessing standard": Preprocessing(size=73, crop=64),
    "--preprocessing mindspore": Preprocessing(mode="exact", size=73, crop=64, antialias=False),
    "--preprocessing cifar10 --antialias --interpolation bicubic": Preprocessing(
        mode="exact", size=64, crop=64, interpolation="bicubic", mean=CIFAR10_MEAN, std=CIFAR10_STD
    ),
    "--no-antialias --size 71 --mean 1,2.5,3 --std 10,20,30": Preprocessing(
        size=71, crop=64, antialias=False, mean=(1, 2.5, 3), std=(10, 20, 30)
    ),
    "--mode exact --size 80": Preprocessing(mode="exact", size=80, crop=64),
}


@pytest.fixture(scope="module", params=CASES)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Preprocessing]:
    folder = tmp_path_factory.mktemp("models")
    words = ["publish", "--network", "sknet50", "--untrained", "--width", "0.0625", "--input-size", "64"]
    assert main([*words, *request.param.split(), "--repository", str(folder)]) == 0
    return folder / "sknet50/1", CASES[request.param]


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (64, 64), (33, 90)], ids=str)
def test_the_server_makes_the_rows_that_the_network_was_given(
    size: tuple[int, int], case: tuple[Path, Preprocessing]
) -> None:
    bundle, preprocessing = case
    manifest = Manifest.parse((bundle / "model.json").read_bytes())
    image = photo(*size)
    served = decode(encoded(image, "PNG"), manifest.preprocessing, max_pixels=10**6)
    np.testing.assert_array_equal(served, preprocessing.rows(image))


def test_mean_and_std_are_in_the_graph(case: tuple[Path, Preprocessing]) -> None:
    bundle, preprocessing = case
    graph = onnx.load(bundle / "model.onnx").graph
    constants = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    np.testing.assert_allclose(constants["pixels.mean"], preprocessing.mean)
    np.testing.assert_allclose(1 / constants["pixels.reciprocal_std"], preprocessing.std, rtol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_a_picture_of_any_mode_becomes_three_channels(mode: str) -> None:
    row = standard_preprocessing(32).rows(Image.new(mode, (50, 40)))
    assert (row.shape, row.dtype) == ((32, 32, 3), np.uint8)


def test_the_standard_for_224_is_the_shortest_side_to_256() -> None:
    assert standard_preprocessing(224) == Preprocessing(mode="shortest", size=256, crop=224)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"mode": "longest"}, "mode is 'longest'; allowed are 'shortest' and 'exact'"),
        ({"size": 31}, "size is 31; allowed is at least the crop, 32"),
        ({"crop": 30}, "input size is 30; allowed are multiples of 4 from 32 up"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'; allowed are 'bilinear' and 'bicubic'"),
        (
            {"antialias": False, "interpolation": "bicubic"},
            "antialias is False; with interpolation 'bicubic' only True is allowed",
        ),
        ({"mean": (0.0, float("inf"), 0.0)}, "mean is (0.0, inf, 0.0); allowed are three numbers"),
        ({"std": (1.0, float("nan"), 1.0)}, "std is (1.0, nan, 1.0); allowed are three numbers above 0"),
        ({"std": (1.0, 0.0, 1.0)}, "std is (1.0, 0.0, 1.0); allowed are three numbers above 0"),
    ],
)
def test_a_preprocessing_that_makes_no_sense_is_refused(fault: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(sentence)):
        Preprocessing(**{"size": 36, "crop": 32, **fault})
