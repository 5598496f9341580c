"""Names for the arrays that travel through sparsetv; shapes are in the docstrings that use them."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Positions: TypeAlias = NDArray[np.int64]
"""Flat row-major positions in one tensor, strictly increasing, int64."""

Values: TypeAlias = NDArray[np.float32]
"""Deltas, float32."""

Bits: TypeAlias = NDArray[Any]
"""Stored bit patterns of a tensor: an unsigned integer dtype of the element's width."""

Bytes: TypeAlias = NDArray[np.uint8]
