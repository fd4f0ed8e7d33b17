"""What the learner in PyTorch makes of a plan as one of several processes, for tests that run elsewhere.

torch_learning.py      under torchrun: in the working folder, .npz files of each process
"""

import numpy as np

from learning import PLAIN, RATE, Arrays, apart, batch, first_weights, flat, part, play
from models.training import torch_learner
from models.training.learner import World


def save(name: str, world: World, found: Arrays) -> None:
    np.savez(f"{name} {world.rank}.npz", **found)


def together() -> None:
    learner = torch_learner.build(PLAIN, first_weights(PLAIN), device="cpu")
    world = learner.world
    steps = [[part(batch(seed, 2 * world.size), world.rank, world.size)] for seed in range(3)]
    play(learner, steps, RATE)
    taken = learner.state()
    save("onwards", world, play(learner, steps, RATE))
    other = torch_learner.TorchLearner(PLAIN, taken.weights, torch_learner.torch.device("cpu"), world)
    other.restore(taken)
    save("onwards again", world, play(other, steps, RATE))
    before = apart(taken, world.rank)
    learner.restore(before)
    learner.agree()
    save("before", world, flat(before))
    save("agreed", world, flat(learner.state()))
    world.close()


if __name__ == "__main__":
    together()
