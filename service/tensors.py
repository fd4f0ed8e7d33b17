"""The tensor contract of every bundle and every engine: uint8 pictures in, float32 logits out."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Rows: TypeAlias = npt.NDArray[np.uint8]  # (n, height, width, 3), RGB
Logits: TypeAlias = npt.NDArray[np.float32]  # (n, classes)
Scores: TypeAlias = npt.NDArray[np.float64]  # (n, classes), each row sums to 1
