"""The Python that runs the peers: the one that is named, this one where the extra `peers` is in it, or one made here.

What is made here is an environment of its own, so that what the peers need and what is measured never meet.
"""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

TORCH = "torch==2.13.0"
PACKAGES = {
    "mergekit": "mergekit==0.1.*",
    "peft": "peft>=0.18",
    "zipnn": "zipnn==0.5.4",
    "deltatensors": "deltatensors==0.2.*",
    "weightscope": "weightscope==0.4.*",
    "compressed-tensors": "compressed-tensors==0.12.2",
}
"""Requirement by name; the extra `peers` of pyproject.toml lists the same."""

_VERSIONS = """
import importlib.metadata, sys
for name in sys.argv[1:]:
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        pass
"""


class PeersError(Exception):
    """A peer could not be installed or did not run; the message says why."""


def peers_python(room: Path, given: Path | None) -> Path:
    """Python of the peers' environment; see above.

    Each peer is installed by itself, so that one may be missing.

    Raises:
        PeersError: The environment could not be made.
    """
    if given is not None:
        return given.absolute()
    if all(map(_is_here, PACKAGES)):
        return Path(sys.executable)
    made = room.absolute() / "peers"
    done, python = made / "installed", made / "bin" / "python"
    if not done.exists():
        run(["python3", "-m", "venv", str(made)])
        _install(python)
        done.touch()
    return python


def _is_here(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _install(python: Path) -> None:
    pip = [str(python), "-m", "pip", "install", "-q", TORCH]
    run(pip)
    for requirement in PACKAGES.values():
        try:
            run([*pip, requirement])
        except PeersError as error:
            print(f"{requirement}: {error}", flush=True)


def versions(python: Path) -> dict[str, str]:
    """Versions of the peers that are there and of what they stand on."""
    printed = run([str(python), "-c", _VERSIONS, "torch", "transformers", *PACKAGES])
    return dict(line.split(maxsplit=1) for line in printed.splitlines())


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
