"""Weights as bit patterns in torch: widening to float32, one rounding back, ranks of neighbouring numbers.

The torch counterpart of `sparsetv.dtypes`, for CPU and GPU alike; a property test holds the two together.
"""

import torch

FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Torch dtype of each dtype whose entries a task may keep."""

BITS = {"F32": torch.int32, "BF16": torch.int16, "F16": torch.int16}
"""Integer dtype as wide as one element."""

NAMES = {dtype: name for name, dtype in FLOATS.items()}


def widen(bits: torch.Tensor, dtype: str) -> torch.Tensor:
    """Bit patterns as float32, exactly; a view where `dtype` is F32."""
    return bits.view(FLOATS[dtype]).to(torch.float32)


def narrow(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """Float32 rounded once to `dtype`, to nearest, ties to even, as bit patterns; a view where `dtype` is F32."""
    return values.to(FLOATS[dtype]).view(BITS[dtype])


def shift(bits: torch.Tensor, amounts: torch.Tensor) -> torch.Tensor:
    """Bit patterns moved by so many representable numbers; wraps as the format says.

    Args:
        bits: Bit patterns, int16 or int32, any shape.
        amounts: int32, same shape.

    Reference: formats/codecs/exact.md, clause 3.
    """
    return _fold((_fold(bits).to(torch.int32) + amounts).to(bits.dtype))


def _fold(signed: torch.Tensor) -> torch.Tensor:
    """Sign-magnitude to two's complement and back."""
    return torch.where(signed < 0, signed ^ torch.iinfo(signed.dtype).max, signed)
