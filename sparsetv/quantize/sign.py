"""Signs only: each kept delta becomes its tensor's mean magnitude with its own sign.

Reference: formats/codecs/sign.md; the mean is the least-squares choice of one magnitude.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sparsetv.csr import Corrections, SparseTensor


def to_signs(tensors: Mapping[str, SparseTensor]) -> dict[str, SparseTensor]:
    """Replace the values of each tensor by plus or minus their mean magnitude; corrections are dropped."""
    return {name: _signs(tensor) for name, tensor in tensors.items()}


def _signs(tensor: SparseTensor) -> SparseTensor:
    if not tensor.nnz:
        return replace(tensor, corrections=Corrections.none())
    magnitude = np.float32(math.fsum(np.abs(tensor.values).tolist()) / tensor.nnz)
    values = np.copysign(magnitude, tensor.values).astype(np.float32)
    return replace(tensor, values=values, corrections=Corrections.none())
