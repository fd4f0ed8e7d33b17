"""Compares the networks at full size, served through real MindSpore Lite and through OpenVINO, with PyTorch.

python tests/bench/full_size.py [--network sknet50] [--photos 2]

Each is published from random weights, asked for by REST and by gRPC, and held against PyTorch's own scores of the same
weights. It needs a Python that has mindspore_lite (make lite), 3 GiB of memory, and some minutes for all three.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from full_size import NAMES, best_five, by_grpc, by_pytorch, by_rest, publish_words
from lite import photos
from models.cli import main as models_main
from models.networks import describe
from serving import running

ALLOWED = 1e-3
ENGINES = ("mindspore_lite", "openvino")
FLAGS = ("--load-timeout-s", "600", "--request-timeout-s", "120", "--engine-timeout-s", "120")
THREADS = (
    "--engine-threads",
    "1",
)  # several of MindSpore Lite's wait by spinning: for ever on a busy machine


def main() -> int:
    """Compare what the command line names; return whether something disagrees."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NAMES, action="append")
    parser.add_argument("--photos", type=int, default=2)
    options = parser.parse_args()
    verdicts = [_agrees(name, options.photos) for name in options.network or NAMES]
    return 0 if all(verdicts) else 1


def _agrees(name: str, count: int) -> bool:
    pictures = photos(count)
    expected = by_pytorch(describe(name), pictures)
    is_well = True
    with tempfile.TemporaryDirectory() as folder:
        if models_main(publish_words(name, Path(folder), "1")):
            raise SystemExit(f"{name} was not published")
        for engine in ENGINES:
            with running(Path(folder), "--engine", engine, *FLAGS, *THREADS, patience_s=600) as server:
                for door in (by_rest, by_grpc):
                    answer = door(server, name, pictures)
                    off = float(np.abs(answer.scores - expected).max())
                    same = answer.best == best_five(expected)
                    is_well &= same and off <= ALLOWED and answer.engine.startswith(engine)
                    words = "the same five best" if same else "OTHER five best"
                    print(
                        f"{name:14}{door.__name__:9}{answer.engine:32}{words}, scores off by {off:.1e} "
                        f"(the best is {expected.max():.3g})",
                        flush=True,
                    )
    return is_well


if __name__ == "__main__":
    sys.exit(main())
