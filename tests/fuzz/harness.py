"""The process in which the coverage-guided fuzzer runs; `guided` starts it."""

import random
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["sparsetv"]):
    from fuzz.guided_targets import GUIDED, Guided


def main(name: str, words: list[str]) -> None:
    """Fuzz a target; `words` are the fuzzer's own."""
    target = GUIDED[name]
    if target.mutate is None:
        atheris.Setup([name, *words], target.examine)
    else:
        atheris.Setup([name, *words], target.examine, custom_mutator=_mutator(target))
    atheris.Fuzz()


def _mutator(target: Guided) -> Callable[[bytes, int, int], bytes]:
    def mutate(data: bytes, most: int, seed: int) -> bytes:
        """Mostly our changes, which keep hashes right; now and then the fuzzer's, which know nothing."""
        source = random.Random(seed)
        if not source.randrange(16) or target.mutate is None:
            return bytes(atheris.Mutate(data, len(data)))
        changed = target.mutate(source, data)
        return changed if len(changed) <= most else data

    return mutate


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
