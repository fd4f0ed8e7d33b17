"""What MindSpore does with our networks, for tests that run elsewhere: it needs an older numpy than they.

mindspore_program.py answers PLANES.npy ANSWERS.npz NAME      in each way to run a network
mindspore_program.py states STATES.json NAME...               names and shapes of parameters
mindspore_program.py step PLANES.npy FOLDER NAME...           one step of training, before and after
mindspore_program.py refuse NAME                              loads what does not fit
"""

import json
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from models.errors import InvalidValueError
from models.frameworks import mindspore_network
from models.weights import random_weights
from variants import FULL, NARROW, VARIANTS, WHOLE

NETWORKS = VARIANTS | WHOLE | FULL
MODES = {"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}


def loaded(name: str, *, is_split: bool) -> mindspore_network.ResNeXt:
    cell = mindspore_network.build(NETWORKS[name], is_split=is_split)
    mindspore_network.load(cell, random_weights(NETWORKS[name], seed=1))
    return cell


def answers(planes: str, target: str, name: str) -> None:
    rows, found = ms.Tensor(np.load(planes)), {}
    for is_split in (False, True) if name in NARROW else (False,):
        cell = loaded(name, is_split=is_split)
        for mode, number in MODES.items():
            ms.set_context(mode=number)
            found[f"{'split' if is_split else 'native'}/{mode}"] = cell(rows).asnumpy()
    np.savez(target, **found)


def states(target: str, *names: str) -> None:
    found = {
        f"{name}/{'split' if is_split else 'native'}": {
            parameter.name: parameter.shape
            for parameter in mindspore_network.build(NETWORKS[name], is_split=is_split).get_parameters()
        }
        for name in names
        for is_split in (False, True)
    }
    Path(target).write_text(json.dumps(found))


def step(planes: str, folder: str, *names: str) -> None:
    rows = ms.Tensor(np.load(planes))
    labels = ms.Tensor(np.arange(len(rows), dtype=np.int32))
    for name in names:
        cell = loaded(name, is_split=True)
        optimizer = nn.Momentum(cell.trainable_params(), learning_rate=0.1, momentum=0.9)
        loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
        train = nn.TrainOneStepCell(nn.WithLossCell(cell, loss), optimizer).set_train()
        train(rows, labels)
        ms.save_checkpoint(train, f"{folder}/{name}.ckpt")
        np.savez(f"{folder}/{name}.npz", **mindspore_network.weights_of(cell))


def refuse(name: str) -> None:
    cell = mindspore_network.build(NETWORKS[name])
    before = mindspore_network.weights_of(cell)
    weights = random_weights(NETWORKS[name], seed=1)
    del weights["fc.bias"]
    try:
        mindspore_network.load(cell, weights)
    except InvalidValueError as error:
        sys.stdout.write(f"{error}\n")
    after = mindspore_network.weights_of(cell)
    sys.exit(any(after[key].tobytes() != before[key].tobytes() for key in before))


def mindir(file: str, planes: str, target: str) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    np.save(target, nn.GraphCell(ms.load(file))(ms.Tensor(np.load(planes))).asnumpy())


if __name__ == "__main__":
    commands = {"answers": answers, "states": states, "step": step, "refuse": refuse, "mindir": mindir}
    commands[sys.argv[1]](*sys.argv[2:])
