"""Fisher merging: an average of fine-tunes weighted by how much each task's predictions depend on each entry."""

from collections.abc import Iterator, Sequence

import torch

from sparsetv.errors import UsageError
from sparsetv.merging.live import at, predictions, unlabelled
from sparsetv.merging.vectors import Tensors, check_vectors
from sparsetv.objective.body import Body, Part
from sparsetv.objective.loss import Inputs
from sparsetv.progress import Progress, counter

CLASSES = 10
"""Up to so many classes the expectation over predictions is taken exactly."""


def diagonal_fisher(
    body: Body, vector: Tensors, *, classes: int | None = None, seed: int = 0, progress: Progress | None = None
) -> dict[str, torch.Tensor]:
    """Diagonal of the Fisher information at the fine-tuned weights, mean over examples.

    For an example x this is `E_y[(d log p(y | x) / d theta)^2]`, y drawn from what the model itself predicts; labels
    are not used. Squares are of each example's own gradient: the square of a batch's gradient is another thing.

    Args:
        body: The task's live model, whose batches are the examples. For causal models an answer is a token at each
            unmasked position, and a single output counts as the mean of a normal distribution of variance 1.
        vector: Fine-tuned minus base over the body's scope.
        classes: Up to so many classes the expectation is exact, else one answer is drawn; 10 if None.
        seed: Of the drawn answers.
        progress: Called after each example.

    Returns:
        By tensor, float32, on the model's device, not negative.

    Raises:
        NamesError: The vector has other tensors than the scope.
        ProbeError: The model gives no logits, or they are not finite.

    Reference:
        Matena and Raffel, Merging models with Fisher-weighted averaging, arXiv:2111.09832, equations 3 and 4.

    Cost:
        Per example a forward pass and a backward pass for each class but one (drawn: one in all). Memory of the result,
        one tensor's gradient and one example's activations.
    """
    found = {part.name: torch.zeros_like(part.live) for part in body.parts}
    generator = torch.Generator().manual_seed(seed)
    examples = [example for batch in body.objective.batches for example in _singles(batch)]
    report = counter(progress, "Fisher information", len(examples))

    def square(part: Part, gradient: torch.Tensor) -> None:
        found[part.name].addcmul_(gradient, gradient)

    with at(body, vector, each=square):
        for example in examples:
            with torch.enable_grad():
                logits = predictions(body, unlabelled(example, body.device))
            directions = _directions(logits.detach().double().cpu(), most=classes or CLASSES, generator=generator)
            for number, direction in enumerate(directions, 1):
                aimed = direction.to(logits.device, logits.dtype)
                logits.backward(aimed, retain_graph=number < len(directions))  # type: ignore[no-untyped-call]
            report(1)
    for tensor in found.values():
        tensor.div_(len(examples))
    return found


def fisher_average(
    vectors: Sequence[Tensors],
    fishers: Sequence[Tensors],
    *,
    weights: Sequence[float] | None = None,
    floor: float = 1e-6,
) -> dict[str, torch.Tensor]:
    """Average of task vectors, each entry weighted by its Fisher information: `sum w F tau / sum w F`.

    Args:
        vectors: Task vectors, fine-tuned minus base; averaging these is averaging the fine-tunes.
        fishers: From `diagonal_fisher`, one per task.
        weights: The tasks' coefficients, positive; alike if None.
        floor: Added to every F, times the mean of all F: entries that matter to no task get the simple average. (The
            authors' floor is 1e-6 itself, which outweighs the F of a fine-tune that is sure of all its answers.)

    Returns:
        Merged minus base; new tensors.

    Raises:
        UsageError: Other than one Fisher, and one weight, per task, or one that is not positive.
        UsageError, NamesError, ShapeError: The vectors and Fishers do not fit together.

    Reference:
        Matena and Raffel, arXiv:2111.09832, section 3 (the closed form of Fisher merging).

    Cost:
        One pass; memory of the result and two tensors.
    """
    factors = [1.0] * len(vectors) if weights is None else list(weights)
    if len(fishers) != len(vectors) or len(factors) != len(vectors):
        raise UsageError(f"{len(vectors)} tasks, {len(fishers)} Fishers, {len(factors)} weights; give one per task")
    if not min([floor, *factors]) > 0:
        raise UsageError(f"weights and floor must be positive, found {factors} and {floor}")
    names, merged = check_vectors([*vectors, *fishers]), {}
    least = floor * _mean_entry(fishers) or 1.0
    for name in names:
        above, below = torch.zeros_like(vectors[0][name]), torch.zeros_like(vectors[0][name])
        for vector, fisher, factor in zip(vectors, fishers, factors, strict=True):
            weight = (fisher[name] + least).mul_(factor)
            below += weight
            above += weight.mul_(vector[name])
        merged[name] = above / below
    return merged


def _mean_entry(fishers: Sequence[Tensors]) -> float:
    """Mean of all entries of all tasks."""
    tensors = [tensor for fisher in fishers for tensor in fisher.values()]
    return sum(float(t.sum(dtype=torch.float64)) for t in tensors) / max(sum(t.numel() for t in tensors), 1)


def _singles(batch: Inputs) -> Iterator[dict[str, torch.Tensor]]:
    """The examples of a batch, each a batch of one, without the padding behind it."""
    mask = batch.get("attention_mask")
    count = len(next(iter(batch.values())))
    for i in range(count):
        one = {name: tensor[i : i + 1] for name, tensor in batch.items()}
        if mask is not None:
            length = int(torch.nonzero(mask[i]).max()) + 1
            one = {n: t[:, :length] if t.shape[:2] == (1, mask.shape[1]) else t for n, t in one.items()}
        yield one


def _directions(logits: torch.Tensor, *, most: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Combinations of logits whose squared gradients add up to the Fisher information; each the shape of `logits`.

    The gradient of `log p_y` is `J^T (e_y - p)`, J that of the logits, and the covariance of `e_y` is
    `diag(p) - p p^T`. It has rank (classes - 1), so that one backward pass less than there are classes is exact.
    """
    answers, classes = logits.shape
    if classes == 1:
        return [torch.ones_like(logits)]
    chances = logits.softmax(dim=-1)
    if answers == 1 and classes <= most:
        values, columns = torch.linalg.eigh(chances.diag_embed()[0] - chances.T @ chances)
        scaled = columns * values.clamp(min=0).sqrt()
        return list(scaled.T[1:].unsqueeze(1))
    drawn = torch.multinomial(chances, 1, generator=generator)
    return [torch.zeros_like(logits).scatter_(1, drawn, 1.0) - chances]
