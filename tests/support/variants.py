"""Small networks of every kind that a description allows, for tests that build them."""

from dataclasses import replace

from models.networks import Network, SelectiveKernel, describe

SIDE = 64

_NARROW = {
    "se_resnext50": describe("se_resnext50", classes=10, width=1 / 8),
    "resnext101": describe("resnext101", classes=10, width=1 / 16),
    "sknet50": describe("sknet50", classes=10, width=1 / 8),
    "sknet50_paper": describe("sknet50_paper", classes=10, width=1 / 8),
}
VARIANTS: dict[str, Network] = {
    **_NARROW,
    **{f"{name}, padded": replace(network, stem_pool="padded") for name, network in _NARROW.items()},
    "se_resnext50 without inner ReLUs": replace(_NARROW["se_resnext50"], inner_relu=False),
    "sknet50 of three branches": replace(_NARROW["sknet50"], gate=SelectiveKernel(branches=3)),
    "sknet50 of one group": describe("sknet50", width=1 / 32),
}
