"""What the learner in MindSpore makes of the plans in learning.py, for tests that run elsewhere.

mindspore_learning.py learn        in the working folder, an .npz file for each plan
mindspore_learning.py together     the same for those of several processes, under msrun
"""

import sys
from dataclasses import replace

import numpy as np

from learning import (
    FROZEN,
    HALF,
    PAIRS,
    PLAIN,
    RATE,
    STEPS,
    SYNCHRONISED,
    Arrays,
    apart,
    first_weights,
    flat,
    part,
    play,
    with_scale,
)
from models.training.learner import Learner
from models.training.recipe import Recipe
from models.training.run import Framework, build_learner


def built(recipe: Recipe, framework: Framework = "mindspore") -> Learner:
    return build_learner(framework, recipe, first_weights(recipe), device="cpu")


def save(name: str, found: Arrays) -> None:
    np.savez(f"{name}.npz", **found)


def plain() -> None:
    learner = built(PLAIN)
    save("plain", play(learner, STEPS, RATE))
    taken = learner.state()
    save("onwards", play(learner, STEPS, RATE))
    learner.restore(taken)
    save("taken over", flat(learner.state()))
    save("onwards again", play(learner, STEPS, RATE))
    broken = taken.raw | {"fc.bias": np.full_like(taken.raw["fc.bias"], np.nan)}
    learner.restore(replace(taken, raw=broken))
    save("broken", play(learner, STEPS[:1], RATE))


def half() -> None:
    learner = built(HALF)
    learner.restore(with_scale(learner.state(), 64))
    save("half", play(learner, STEPS[:1], RATE))
    learner.restore(with_scale(learner.state(), 3e38))
    save("before", flat(learner.state()))
    save("overflowed", play(learner, STEPS[:1], RATE))


def learn() -> None:
    plain()
    save("frozen", play(built(FROZEN, "mindspore-split"), PAIRS, RATE))
    half()


def together() -> None:
    learner = built(SYNCHRONISED)
    rank = learner.world.rank
    steps = [[part(batches[0], rank, 2)] for batches in STEPS]
    found = play(learner, steps, RATE)
    mine = np.array([[2.0**53, 0.1 + rank], [-(2.0**24) - 1, rank]])
    save(f"together {rank}", {**found, "sum": learner.world.sum(mine)})
    before = apart(learner.state(), rank)
    learner.restore(before)
    learner.agree()
    save(f"before {rank}", flat(before))
    save(f"agreed {rank}", flat(learner.state()))
    learner.world.close()


if __name__ == "__main__":
    {"learn": learn, "together": together}[sys.argv[1]]()
