"""Copies of this process that do something and end."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable


def in_child(action: Callable[[], object]) -> int:
    """Exit code of a process that is a copy of this one and does `action`."""
    return os.waitstatus_to_exitcode(os.waitpid(start_child(action), 0)[1])


def start_child(action: Callable[[], object]) -> int:
    """Start a process that is a copy of this one and does `action`."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # later Pythons warn of threads, of which the child has none
        child = os.fork()
    if child:
        return child
    try:
        result = action()
        os._exit(result if isinstance(result, int) else 0)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(255)
