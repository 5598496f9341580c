"""All targets, and how many of a thousand files each gets."""

from fuzz import archive, checkpoint, chunks, codecs, mask, record, store, task
from fuzz.target import Target

TARGETS: dict[str, Target] = {
    module.TARGET.name: module.TARGET for module in (task, archive, codecs, chunks, mask, checkpoint, record, store)
}

SHARES = {
    "task": 480, "archive": 160, "codecs": 140, "chunks": 80, "mask": 40, "checkpoint": 50, "record": 30, "store": 20,
}  # fmt: skip
"""Of 1,000 files: most for what travels, least for what only a local attacker can change."""
