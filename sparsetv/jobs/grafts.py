"""How well a mask does before it is packed: the graft's accuracy on examples."""

from typing import TYPE_CHECKING

from sparsetv.difference import TaskVector
from sparsetv.errors import UsageError
from sparsetv.masks import Mask

if TYPE_CHECKING:
    from sparsetv.objective.loss import Objective


def graft_accuracy(vector: TaskVector, mask: Mask, objective: "Objective") -> float:
    """Share of examples that base plus masked task vector classifies right.

    Args:
        vector: Base and fine-tune.
        mask: Entries that are kept, at scale 1.
        objective: The model, and the examples; they need labels.

    Raises:
        UsageError: An example has no label.
    """
    import torch  # noqa: PLC0415

    from sparsetv.objective.body import Body, delta_of  # noqa: PLC0415

    if not all("labels" in batch and batch["labels"].dim() == 1 for batch in objective.batches):
        raise UsageError("accuracy needs examples with a label each")
    body = Body(vector.base, tuple(mask.shapes), objective)
    correct = total = 0
    with body.tuning(), torch.no_grad():
        for part in body.parts:
            kept = torch.zeros(part.live.numel(), device=body.device)
            kept[torch.from_numpy(mask.positions[part.name]).to(body.device)] = 1
            part.live.add_(kept.reshape(part.live.shape) * delta_of(vector, part.name, body.device))
        for batch in objective.batches:
            inputs = {name: tensor.to(body.device) for name, tensor in batch.items() if name != "labels"}
            found = body.model(**inputs).logits.argmax(dim=-1).cpu()
            correct += int((found == batch["labels"]).sum())
            total += len(found)
    return correct / total
