"""Kept values that make up for what was dropped: trained until the graft answers as the fine-tune does.

Positions stay. On random inputs no data is needed: the targets are the fine-tune's own outputs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from sparsetv.arrays import Values
from sparsetv.csr import Corrections, SparseTensor
from sparsetv.dtypes import on_grid
from sparsetv.errors import NonFiniteError
from sparsetv.objective.body import Body, Part
from sparsetv.progress import Progress, counter

_WARM_UP = 5
_DECAY = 0.9, 0.99
_EPSILON = 1e-8  # gradients that are 0 but for rounding (biases of attention keys) move nothing


@dataclass(frozen=True, slots=True)
class Refit:
    """Refitted tensors, and the loss at the start and at the end, each the mean over a tenth of the steps."""

    tensors: dict[str, SparseTensor]
    before: float
    after: float


def refit(
    body: Body,
    tensors: Mapping[str, SparseTensor],
    *,
    scales: Mapping[str, float],
    shared: bool = False,
    steps: int,
    rate: float,
    progress: Progress | None = None,
) -> Refit:
    """Train kept values.

    Args:
        body: The scope in a live model, with batches and the loss that is minimised, one batch per step.
        tensors: Kept deltas per tensor of the scope.
        scales: What each tensor's deltas are multiplied by to start from.
        shared: Keep every entry's sign, and train the magnitudes that the entries of a tensor share.
        steps: Steps of Adam; the rate rises over the first 5 and then falls to 0 along a cosine.
        rate: Step size as a share of the root mean square of the values that it starts from.
        progress: Reports steps.

    Returns:
        Tensors whose values are to be used at scale 1, rounded to 8 significant bits (with `shared`, to 15), without
        corrections.

    Raises:
        NonFiniteError: Training diverged.

    Cost:
        A forward and a backward pass per step; beside the model and its activations one tensor's gradient and 28
        bytes per kept entry.
    """
    used = {part.name: part for part in body.parts if tensors[part.name].nnz}
    kept = {name: _Kept.of(part, tensors[name], body, scale=scales[name], shared=shared) for name, part in used.items()}
    size = rate * _rms(list(kept.values()))
    schedule = [size * _share(step, steps) for step in range(steps)]
    report = counter(progress, "refit", steps)
    state = {"step": 0}

    def each(part: Part, gradient: torch.Tensor) -> None:
        if part.name in kept:
            kept[part.name].descend(gradient, step=state["step"], size=schedule[state["step"]])

    losses = []
    batches = body.objective.batches
    with body.tuning(each=each):
        for item in kept.values():
            item.write()
        for step in range(steps):
            state["step"] = step
            losses.append(body.backward(batches[step % len(batches)]))
            report(1)
    tenth = max(steps // 10, 1)
    return Refit(
        {name: _renewed(name, tensor, kept.get(name)) for name, tensor in tensors.items()},
        float(np.mean(losses[:tenth])),
        float(np.mean(losses[-tenth:])),
    )


def _share(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _rms(kept: "list[_Kept]") -> float:
    total = sum(float(item.values().double().square().sum()) for item in kept)
    return math.sqrt(total / max(sum(len(item.index) for item in kept), 1))


@dataclass(slots=True, eq=False)
class _Kept:
    """The kept entries of one tensor while they are trained.

    Attributes:
        whole: The live parameter, flat.
        index: Positions in the checkpoint's tensor, int64.
        where: The same in `whole`.
        base: The base's values there, float32.
        dtype: Dtype that the stitched weights are rounded to.
        signs: +-1 per entry where magnitudes are trained; None where every value is.
        codes: Which magnitude each entry has, int64; empty where every value is trained.
        free: What is trained: shape (nnz,), or (magnitudes,).
        first, second: Adam's moments.
    """

    whole: torch.Tensor
    index: torch.Tensor
    where: torch.Tensor
    base: torch.Tensor
    dtype: torch.dtype
    signs: torch.Tensor | None
    codes: torch.Tensor
    free: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor

    @classmethod
    def of(cls, part: Part, tensor: SparseTensor, body: Body, *, scale: float, shared: bool) -> "_Kept":
        index = torch.from_numpy(tensor.positions).to(body.device)
        start = torch.from_numpy(tensor.values).to(body.device) * scale
        free, codes = torch.unique(start.abs(), return_inverse=True) if shared else (start, index[:0])
        return cls(
            whole=part.place.tensor.view(-1),
            index=index,
            where=part.place.flat(index),
            base=body.base(part.name).reshape(-1)[index],
            dtype={"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}[tensor.dtype],
            signs=torch.where(torch.signbit(start), -1.0, 1.0) if shared else None,
            codes=codes,
            free=free,
            first=torch.zeros_like(free),
            second=torch.zeros_like(free),
        )

    def values(self) -> torch.Tensor:
        """Deltas, shape (nnz,)."""
        return self.free if self.signs is None else self.free[self.codes] * self.signs

    def write(self) -> None:
        """Put base plus deltas into the model, rounded as a stitch rounds them."""
        with torch.no_grad():
            self.whole[self.where] = (self.base + self.values()).to(self.dtype).float()

    def descend(self, gradient: torch.Tensor, *, step: int, size: float) -> None:
        """One step of Adam; the rounding to the base's dtype is passed over (straight through)."""
        own = gradient.reshape(-1)[self.index]
        if self.signs is not None:
            own = torch.zeros_like(self.free).index_add_(0, self.codes, own * self.signs)
        slow, fast = _DECAY
        self.first.mul_(slow).add_(own, alpha=1 - slow)
        self.second.mul_(fast).addcmul_(own, own, value=1 - fast)
        spread = (self.second / (1 - fast ** (step + 1))).sqrt_().add_(_EPSILON)
        self.free -= size / (1 - slow ** (step + 1)) * self.first / spread
        if self.signs is not None:
            self.free.clamp_(min=0)
        self.write()


def _renewed(name: str, tensor: SparseTensor, kept: _Kept | None) -> SparseTensor:
    if kept is None:
        return replace(tensor, corrections=Corrections.none())
    if not torch.isfinite(kept.free).all():
        raise NonFiniteError(f"{name}: a refitted value is not finite; lower the rate")
    if kept.signs is not None:
        kept.free.copy_(torch.from_numpy(on_grid(kept.free.cpu().numpy())))
    values: Values = (kept.values() if kept.signs is not None else kept.values().bfloat16().float()).cpu().numpy()
    return replace(tensor, values=values, corrections=Corrections.none())
