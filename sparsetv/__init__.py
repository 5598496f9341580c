"""Store fine-tuned models as small, exact, checked sparse task vectors, and stitch them onto the base.

    >>> import sparsetv
    >>> sorted(sparsetv.__all__)[:3]
    ['ArchiveSummary', 'Composer', 'Exported']

Names are imported when they are first used, so that `import sparsetv` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "PackOptions": "sparsetv.jobs.options",
    "RefitOptions": "sparsetv.jobs.options",
    "Learn": "sparsetv.jobs.learning",
    "find_mask": "sparsetv.jobs.localize",
    "open_pair": "sparsetv.jobs.localize",
    "run_localizer": "sparsetv.localize.names",
    "Localized": "sparsetv.localize.problem",
    "Problem": "sparsetv.localize.problem",
    "Objective": "sparsetv.objective.loss",
    "Mask": "sparsetv.masks",
    "read_mask": "sparsetv.maskfile",
    "write_mask": "sparsetv.maskfile",
    "ArchiveSummary": "sparsetv.jobs.archived",
    "archive_to": "sparsetv.jobs.archive",
    "inspect_archive": "sparsetv.jobs.archived",
    "restore": "sparsetv.jobs.archive",
    "convert": "sparsetv.jobs.convert",
    "PackCallback": "sparsetv.jobs.training",
    "Exported": "sparsetv.exchange.outcome",
    "export_task": "sparsetv.jobs.exchange",
    "import_task": "sparsetv.jobs.exchange",
    "pack": "sparsetv.jobs.pack",
    "pack_files": "sparsetv.jobs.pack",
    "pack_to": "sparsetv.jobs.pack",
    "card": "sparsetv.jobs.card",
    "load_pretrained": "sparsetv.jobs.hub",
    "save_pretrained": "sparsetv.jobs.hub",
    "pull": "sparsetv.jobs.hub",
    "push": "sparsetv.jobs.hub",
    "StitchOptions": "sparsetv.jobs.options",
    "stitch": "sparsetv.jobs.stitch",
    "Store": "sparsetv.jobs.store",
    "attach": "sparsetv.live.model",
    "LiveModel": "sparsetv.live.model",
    "Composer": "sparsetv.live.composer",
    "add": "sparsetv.jobs.stitch",
    "remove": "sparsetv.jobs.stitch",
    "inspect": "sparsetv.jobs.inspect",
    "overlap": "sparsetv.jobs.analyze",
    "where": "sparsetv.jobs.analyze",
    "verify": "sparsetv.jobs.verify",
    "evaluate": "sparsetv.jobs.evaluate",
    "write_report": "sparsetv.report.page",
    "from_pretrained": "sparsetv.jobs.loading",
    "memory_limit": "sparsetv.container.limits",
    "read_task": "sparsetv.taskfile",
    "write_task": "sparsetv.taskfile",
    "Scope": "sparsetv.localize.scope",
    "SparseTaskVector": "sparsetv.task_vector",
    "SparseTensor": "sparsetv.csr",
    "SparseTVError": "sparsetv.errors",
    "FormatError": "sparsetv.errors",
}

__all__ = [
    "ArchiveSummary",
    "Composer",
    "Exported",
    "FormatError",
    "Learn",
    "LiveModel",
    "Localized",
    "Mask",
    "Objective",
    "PackCallback",
    "PackOptions",
    "Problem",
    "RefitOptions",
    "Scope",
    "SparseTVError",
    "SparseTaskVector",
    "SparseTensor",
    "StitchOptions",
    "Store",
    "add",
    "archive_to",
    "attach",
    "card",
    "convert",
    "evaluate",
    "export_task",
    "find_mask",
    "from_pretrained",
    "import_task",
    "inspect",
    "inspect_archive",
    "load_pretrained",
    "memory_limit",
    "open_pair",
    "overlap",
    "pack",
    "pack_files",
    "pack_to",
    "pull",
    "push",
    "read_mask",
    "read_task",
    "remove",
    "restore",
    "run_localizer",
    "save_pretrained",
    "stitch",
    "verify",
    "where",
    "write_mask",
    "write_report",
    "write_task",
]

if TYPE_CHECKING:
    from sparsetv.container.limits import memory_limit
    from sparsetv.csr import SparseTensor
    from sparsetv.errors import FormatError, SparseTVError
    from sparsetv.exchange.outcome import Exported
    from sparsetv.jobs.analyze import overlap, where
    from sparsetv.jobs.archive import archive_to, restore
    from sparsetv.jobs.archived import ArchiveSummary, inspect_archive
    from sparsetv.jobs.card import card
    from sparsetv.jobs.convert import convert
    from sparsetv.jobs.evaluate import evaluate
    from sparsetv.jobs.exchange import export_task, import_task
    from sparsetv.jobs.hub import load_pretrained, pull, push, save_pretrained
    from sparsetv.jobs.inspect import inspect
    from sparsetv.jobs.learning import Learn
    from sparsetv.jobs.loading import from_pretrained
    from sparsetv.jobs.localize import find_mask, open_pair
    from sparsetv.jobs.options import PackOptions, RefitOptions, StitchOptions
    from sparsetv.jobs.pack import pack, pack_files, pack_to
    from sparsetv.jobs.stitch import add, remove, stitch
    from sparsetv.jobs.store import Store
    from sparsetv.jobs.training import PackCallback
    from sparsetv.jobs.verify import verify
    from sparsetv.live.composer import Composer
    from sparsetv.live.model import LiveModel, attach
    from sparsetv.localize.names import run_localizer
    from sparsetv.localize.problem import Localized, Problem
    from sparsetv.localize.scope import Scope
    from sparsetv.maskfile import read_mask, write_mask
    from sparsetv.masks import Mask
    from sparsetv.objective.loss import Objective
    from sparsetv.report.page import write_report
    from sparsetv.task_vector import SparseTaskVector
    from sparsetv.taskfile import read_task, write_task


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sparsetv' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
