"""The peers' own environment, so that what they need and what sparsetv needs never meet."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

TORCH = "torch==2.13.0"
PACKAGES = ("mergekit", "peft")
STORAGE = ("zipnn==0.5.4", "deltatensors==0.2.*", "weightscope==0.4.*", "compressed-tensors==0.12.2")


class PeersError(Exception):
    """A peer could not be installed or did not run; the message says why."""


def peers_python(room: Path, given: Path | None) -> Path:
    """Python of the peers' environment: the given one, or that of a new environment in the room.

    Raises:
        PeersError: The environment could not be made.
    """
    return _environment(room / "peers", given, lambda pip: run([*pip, TORCH, *PACKAGES]))


def storage_python(room: Path, given: Path | None) -> Path:
    """Python of an environment for the peers that store weights; each is installed by itself, so one may be missing.

    Raises:
        PeersError: The environment could not be made.
    """

    def install(pip: list[str]) -> None:
        run([*pip, TORCH])
        for package in STORAGE:
            try:
                run([*pip, TORCH, package])
            except PeersError as error:
                print(f"{package}: {error}", flush=True)

    return _environment(room / "storage_peers", given, install)


def _environment(folder: Path, given: Path | None, install: Callable[[list[str]], object]) -> Path:
    """A given Python, or that of an environment in a folder, made and filled where it is not there yet."""
    if given is not None:
        return given.absolute()
    made = folder.absolute()
    done, python = made / "installed", made / "bin" / "python"
    if not done.exists():
        run(["python3", "-m", "venv", str(made)])
        install([str(python), "-m", "pip", "install", "-q"])
        done.touch()
    return python


def versions(python: Path) -> dict[str, str]:
    """Versions of the peers and of what they stand on."""
    names = ("torch", "transformers", *PACKAGES)
    code = "import importlib.metadata as m, sys; print(*(m.version(n) for n in sys.argv[1:]))"
    return dict(zip(names, run([str(python), "-c", code, *names]).split(), strict=True))


def run(command: list[str], *, timeout: float = 1800) -> str:
    """Run a command without the network hub; returns what it printed.

    Raises:
        PeersError: It could not be started, failed or took too long.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        shown = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeersError(f"{command[0]}: {error}") from error
    if shown.returncode:
        last = (shown.stderr.strip() or shown.stdout.strip() or "no output").splitlines()[-1]
        raise PeersError(f"{Path(command[0]).name} exited with {shown.returncode}: {last}")
    return shown.stdout
