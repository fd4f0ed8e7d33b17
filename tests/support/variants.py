"""Small networks of every kind that a description allows, for tests that build them."""

from dataclasses import replace

from models.networks import NETWORKS, Network, SelectiveKernel, describe

SIDE = 64
FULL = {f"{name}, full": network for name, network in NETWORKS.items()}


def _short(name: str, width: float) -> Network:
    return replace(describe(name, classes=10, width=width), stages=(2, 1, 1, 1))


NARROW = {
    "se_resnext50": _short("se_resnext50", 1 / 8),
    "resnext101": _short("resnext101", 1 / 16),
    "sknet50": _short("sknet50", 1 / 8),
    "sknet50_paper": _short("sknet50_paper", 1 / 8),
}
# With as many blocks as the networks that files are recognised by.
WHOLE = {"se_resnext50, whole": describe("se_resnext50", classes=10, width=1 / 16)}
VARIANTS: dict[str, Network] = {
    **NARROW,
    "se_resnext50, padded": replace(NARROW["se_resnext50"], stem_pool="padded"),
    "se_resnext50 without inner ReLUs": replace(NARROW["se_resnext50"], inner_relu=False),
    "sknet50 of three branches": replace(NARROW["sknet50"], gate=SelectiveKernel(branches=3)),
    "sknet50 of one group": _short("sknet50", 1 / 32),
    "sknet8": describe("sknet8", classes=10, width=1 / 4),
}
