"""What a learner is fed with, epoch by epoch."""

from models.training.datasets import open_dataset
from models.training.feeding import Feed
from models.training.learner import Alone
from models.training.recipe import PreprocessingChoice
from recipes import small


def test_the_first_epochs_may_be_of_smaller_rows() -> None:
    recipe = small(
        epochs=3, preprocessing__input_size=64, small_first={"input_size": 48, "epochs": 2}, data__images=8
    )
    feed = Feed(recipe, open_dataset(recipe.data, "train", seed=1, classes=4), Alone())
    shapes = [{batch.rows.shape for step in feed.epoch(epoch, 0) for batch in step} for epoch in range(3)]
    assert shapes == [{(4, 48, 48, 3)}, {(4, 48, 48, 3)}, {(4, 64, 64, 3)}]


def test_smaller_rows_show_the_same_part_of_a_picture() -> None:
    choice = PreprocessingChoice(name="standard", input_size=224, size=280, mode="exact")
    shrunk = choice.shrunk(160).build()
    assert (shrunk.crop, shrunk.size, shrunk.mode) == (160, 200, "exact")
    assert PreprocessingChoice(input_size=224).shrunk(112).build().size == 128
