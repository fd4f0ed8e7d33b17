import math
from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from PIL import Image

from models.preprocessing import PREPROCESSINGS, Preprocessing
from models.training.augmentation import Augmenter, erased, random_part, shifted
from models.training.recipe import Augmentation
from pictures import photo
from zoo import torchvision

DRAWS = 4000
WITHOUT_RESIZE = Preprocessing(mode="exact", size=32, crop=32)


def _chance(index: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[1, index]))


def _distance_from_uniform(values: ArrayLike, low: float, high: float) -> float:
    """Return how far the share of values below a point is from that of an even spread, where it is farthest."""
    shares = (np.sort(np.asarray(values, np.float64)) - low) / (high - low)
    return float(np.abs(shares - (np.arange(len(shares)) + 0.5) / len(shares)).max())


def _distance(one: ArrayLike, other: ArrayLike) -> float:
    """Return the same between two samples: the statistic of Kolmogorov and Smirnov."""
    one, other = np.sort(one), np.sort(other)
    points = np.concatenate([one, other])
    below = [np.searchsorted(values, points, side="right") / len(values) for values in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


def _rows(augmentation: Augmentation, picture: Image.Image, draws: int) -> np.ndarray:
    augmenter = Augmenter(augmentation, WITHOUT_RESIZE)
    return np.stack([augmenter.row(picture, _chance(index)) for index in range(draws)])


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_without_augmentation_a_row_is_the_preprocessings_own(name: str) -> None:
    preprocessing = PREPROCESSINGS[name](64)
    for picture in (photo(90, 70), photo(31, 57)):
        row = Augmenter(Augmentation(), preprocessing).row(picture, _chance())
        np.testing.assert_array_equal(row, preprocessing.rows(picture))


EVERYTHING = Augmentation(
    crop="resized", mirror=True, brightness=0.4, contrast=0.4, saturation=0.4, erasing=0.5
)


@pytest.mark.parametrize("augmentation", [EVERYTHING, Augmentation(crop="padded", mirror=True)])
def test_the_same_draws_make_the_same_row_and_others_another(augmentation: Augmentation) -> None:
    first, again = (_rows(augmentation, photo(90, 70), 4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len({row.tobytes() for row in first}) == 4


def test_the_picture_stays_as_it_was() -> None:
    picture = photo(40, 40)
    for augmentation in (EVERYTHING, Augmentation(crop="padded", mirror=True)):
        _rows(augmentation, picture, 3)
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(photo(40, 40)))


def test_the_defaults_are_the_references_numbers() -> None:
    augmentation = Augmentation()
    assert augmentation.padding == 4
    assert augmentation.scale == (0.08, 1.0)
    assert augmentation.aspect == (3 / 4, 4 / 3)


# The padded crop


def test_a_padded_crop_is_of_the_pictures_size_and_everywhere_equally_often() -> None:
    chance = _chance()
    boxes = [shifted((32, 24), 4, chance) for _ in range(81 * 100)]
    places = Counter((box.left, box.top) for box in boxes)
    assert set(places) == {(left, top) for left in range(-4, 5) for top in range(-4, 5)}
    assert {(box.width, box.height) for box in boxes} == {(32, 24)}
    surprise = sum((count - 100) ** 2 / 100 for count in places.values())
    assert surprise < 80 + 4 * math.sqrt(2 * 80)  # chi-squared with 80 degrees of freedom


def test_the_border_of_a_padded_crop_is_black() -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (32, 32, 3), np.uint8)
    bordered = np.pad(pixels, ((4, 4), (4, 4), (0, 0)))
    crops = {bordered[top : top + 32, left : left + 32].tobytes() for left in range(9) for top in range(9)}
    rows = _rows(Augmentation(crop="padded"), Image.fromarray(pixels), 500)
    assert {row.tobytes() for row in rows} <= crops
    assert len({row.tobytes() for row in rows}) > 70


def test_a_padded_crop_is_resized_as_the_preprocessing_says() -> None:
    preprocessing = PREPROCESSINGS["cifar10"](64)
    picture = photo(32, 32)
    row = Augmenter(Augmentation(crop="padded", padding=0), preprocessing).row(picture, _chance())
    np.testing.assert_array_equal(row, preprocessing.rows(picture))


# The resized crop


def test_a_resized_crop_takes_an_even_share_aspect_and_place() -> None:
    chance = _chance()
    # All of these parts fit.
    boxes = [random_part((1000, 1000), (0.1, 0.4), (3 / 4, 4 / 3), chance) for _ in range(DRAWS)]
    limit = 1.9 / math.sqrt(DRAWS)
    shares = [box.width * box.height / 1e6 for box in boxes]
    assert _distance_from_uniform(shares, 0.1, 0.4) < limit
    logarithms = [math.log(box.width / box.height) for box in boxes]
    assert _distance_from_uniform(logarithms, math.log(3 / 4), math.log(4 / 3)) < limit
    for places in (
        [box.left / (1000 - box.width) for box in boxes],
        [box.top / (1000 - box.height) for box in boxes],
    ):
        assert min(places) >= 0
        assert max(places) <= 1
        assert _distance_from_uniform(places, 0, 1) < limit


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224)], ids=str)
def test_a_resized_crop_is_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    chance = _chance()
    augmentation = Augmentation(crop="resized")
    boxes = [random_part(size, augmentation.scale, augmentation.aspect, chance) for _ in range(DRAWS)]
    ours = np.array([(box.left, box.top, box.width, box.height) for box in boxes])
    picture = torch.empty(3, size[1], size[0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = np.array(
            [
                torchvision.transforms.RandomResizedCrop.get_params(
                    picture, scale=list(augmentation.scale), ratio=list(augmentation.aspect)
                )
                for _ in range(DRAWS)
            ]
        )[:, [1, 0, 3, 2]]
    limit = 2.0 * math.sqrt(2 / DRAWS)
    for axis in range(4):
        assert _distance(ours[:, axis], theirs[:, axis]) < limit
    areas = [places[:, 2] * places[:, 3] / (size[0] * size[1]) for places in (ours, theirs)]
    assert areas[0].min() > 0.079
    assert _distance(*areas) < limit
    aspects = [places[:, 2] / places[:, 3] for places in (ours, theirs)]
    assert 0.74 < aspects[0].min() < aspects[0].max() < 1.35
    assert _distance(*aspects) < limit


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (3, 1), (1, 1)], ids=str)
def test_where_nothing_fits_it_is_the_greatest_part_in_the_centre(size: tuple[int, int]) -> None:
    box = random_part(size, (1.0, 1.0), (3 / 4, 4 / 3), _chance())
    picture = torch.empty(3, size[1], size[0])
    expected = torchvision.transforms.RandomResizedCrop.get_params(
        picture, scale=[1.0, 1.0], ratio=[3 / 4, 4 / 3]
    )
    assert (box.top, box.left, box.height, box.width) == tuple(expected)


@pytest.mark.parametrize("preprocessing", [PREPROCESSINGS[name](32) for name in PREPROCESSINGS], ids=str)
def test_a_resized_crop_is_resized_to_the_input_as_the_preprocessing_says(
    preprocessing: Preprocessing,
) -> None:
    whole = Augmentation(crop="resized", scale=(1.0, 1.0), aspect=(1.0, 1.0))
    picture = photo(80, 80)
    row = Augmenter(whole, preprocessing).row(picture, _chance())
    exact = Preprocessing(mode="exact", size=32, crop=32, antialias=preprocessing.antialias)
    np.testing.assert_array_equal(row, exact.rows(picture))


# Mirror and colours


def test_half_of_all_rows_are_mirrored() -> None:
    picture = photo(32, 32)
    rows = _rows(Augmentation(mirror=True), picture, 1000)
    straight = np.asarray(picture)
    mirrored = [np.array_equal(row, straight[:, ::-1]) for row in rows]
    assert all(
        is_mirrored or np.array_equal(row, straight) for is_mirrored, row in zip(mirrored, rows, strict=True)
    )
    assert 450 < sum(mirrored) < 550


def _grey(*values: int) -> Image.Image:
    """Make a grey picture of these values, each on as many pixels."""
    pixels = np.resize(np.array(values, np.uint8), (32, 32))
    return Image.fromarray(pixels).convert("RGB")


def _brightness(share: float) -> list[float]:
    return [row.mean() / 100 for row in _rows(Augmentation(brightness=share), _grey(100), DRAWS // 2)]


def _contrast(share: float) -> list[float]:
    rows = _rows(Augmentation(contrast=share), _grey(75, 125), DRAWS // 2).astype(float)
    return [(row.max() - row.min()) / 50 for row in rows]


def _saturation(share: float) -> list[float]:
    picture = Image.new("RGB", (32, 32), (140, 100, 60))
    rows = _rows(Augmentation(saturation=share), picture, DRAWS // 2).astype(float)
    return [(row[0, 0, 0] - row[0, 0, 2]) / 80 for row in rows]


@pytest.mark.parametrize("share", [0.4, 0.9])
@pytest.mark.parametrize("factors", [_brightness, _contrast, _saturation])
def test_a_colour_changes_by_an_even_factor(factors: object, share: float) -> None:
    assert callable(factors)
    values = factors(share)
    rounding = 0.025  # of pixels, in the factors that are seen through them
    assert min(values) > 1 - share - rounding
    assert max(values) < 1 + share + rounding
    assert _distance_from_uniform(values, 1 - share, 1 + share) < 1.9 / math.sqrt(len(values)) + rounding


def test_colours_change_in_both_orders_equally_often() -> None:
    """Brightness that reaches white and contrast do not commute; factors are seen where nothing reaches it."""
    augmentation = Augmentation(brightness=0.6, contrast=0.6)
    calm = _rows(augmentation, _grey(70, 130), 800).astype(float)
    bright = _rows(augmentation, _grey(100, 200, 250, 250), 800).astype(float)
    values = np.array([100, 200, 250, 250])
    brightness_came_first = []
    for seen, row in zip(calm, bright[:, 0, :4, 0], strict=True):
        factor = seen.mean() / 100
        spread = (seen.max() - seen.min()) / (60 * factor)
        dimmed = np.minimum(values * factor, 255)
        guesses = (
            np.clip(dimmed.mean() + (dimmed - dimmed.mean()) * spread, 0, 255),
            np.minimum(np.clip(200 + (values - 200) * spread, 0, 255) * factor, 255),
        )
        if np.abs(guesses[0] - guesses[1]).max() > 16:
            distances = [np.abs(row - guess).max() for guess in guesses]
            assert min(distances) < 8
            brightness_came_first.append(distances[0] < distances[1])
    assert len(brightness_came_first) > 100
    assert 0.35 < np.mean(brightness_came_first) < 0.65


# Erasing


def _erased(row: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, width and height of what is not white, all of which is one box of one colour."""
    lines, columns = (np.flatnonzero((row != 255).any(axis=(axis, 2))) for axis in (1, 0))
    box = row[lines[0] : lines[-1] + 1, columns[0] : columns[-1] + 1]
    assert (box == box[0, 0]).all()
    return columns[0], lines[0], len(columns), len(lines)


def test_a_part_of_that_share_of_the_rows_is_filled_with_the_mean() -> None:
    preprocessing = Preprocessing(mode="exact", size=32, crop=32, mean=(125.3, 122.6, 0.0))
    augmenter = Augmenter(Augmentation(erasing=0.3), preprocessing)
    white = Image.new("RGB", (32, 32), "white")
    rows = [augmenter.row(white, _chance(index)) for index in range(1000)]
    changed = [row for row in rows if (row != 255).any()]
    assert 250 < len(changed) < 350
    for row in changed:
        left, top, _, _ = _erased(row)
        assert tuple(row[top, left]) == (125, 123, 0)


def test_erased_parts_are_distributed_as_torchvisions() -> None:
    augmenter = Augmenter(Augmentation(erasing=1.0), Preprocessing(mode="exact", size=200, crop=200))
    white = Image.new("RGB", (200, 200), "white")
    ours = np.array([_erased(augmenter.row(white, _chance(index))) for index in range(DRAWS // 2)])
    picture = torch.empty(3, 200, 200)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = np.array(
            [
                torchvision.transforms.RandomErasing.get_params(
                    picture, scale=(0.02, 0.33), ratio=(0.3, 3.3), value=[0.0]
                )[:4]
                for _ in range(DRAWS // 2)
            ]
        )[:, [1, 0, 3, 2]]
    limit = 2.0 * math.sqrt(4 / DRAWS)
    for axis in range(4):
        assert _distance(ours[:, axis], theirs[:, axis]) < limit
    for measure in (lambda box: box[:, 2] * box[:, 3], lambda box: box[:, 2] / box[:, 3]):
        assert _distance(measure(ours), measure(theirs)) < limit


def test_a_row_that_no_draw_fits_stays_whole() -> None:
    row = np.full((1, 1, 3), 255, np.uint8)
    np.testing.assert_array_equal(erased(row, np.zeros(3, np.uint8), _chance()), row)
