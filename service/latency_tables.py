"""How long real accelerators take for one batch: what the simulated engine keeps to. Pure data.

Published throughputs of offline inference, FP16, one stream, mostly CANN 5.1. They are not monotonic over the batch
size, and nothing between two sizes may be interpolated. Of 310P at 32 rows of SE-ResNeXt50 the source knows two
figures: 2001.78, taken here because it is the harder curve to plan for, and in a later edition 600.3.
ResNeXt101 64x4d has no published figure; its sister 32x8d has.
"""

from collections.abc import Mapping

_IMAGES_PER_S: Mapping[str, Mapping[int, float]] = {
    "310/se_resnext50": {1: 786.26, 4: 941.04, 8: 1030.82, 16: 1113.52, 32: 995.492, 64: 953.8},
    "310p/se_resnext50": {1: 1006.47, 4: 1804.86, 8: 1507.69, 16: 1396.36, 32: 2001.78, 64: 1198.41},
    "310p/resnext101_32x8d": {1: 607, 4: 1113, 8: 1251, 16: 972, 32: 1158, 64: 803},
    "310p/sknet50": {1: 907, 4: 2377, 8: 2416, 16: 2199, 32: 2033, 64: 1907},
    "t4/se_resnext50": {1: 549.747, 4: 750.772, 8: 894.025, 16: 957.024, 32: 1035.98, 64: 1054.064},
}

# "device/network" -> batch size -> seconds for one batch.
TABLES: Mapping[str, Mapping[int, float]] = {
    name: {gear: gear / rate for gear, rate in rates.items()} for name, rates in _IMAGES_PER_S.items()
}
