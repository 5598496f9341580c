"""The command line: parse, call one public function, print. Imports nothing heavy until a command runs."""

import os
import sys

import click

from sparsetv import __version__
from sparsetv.cli.analyze import overlap, where
from sparsetv.cli.bench import bench
from sparsetv.cli.convert import convert
from sparsetv.cli.demo import demo
from sparsetv.cli.directory import add, remove, tasks
from sparsetv.cli.doctor import doctor
from sparsetv.cli.evaluate import evaluate
from sparsetv.cli.exchange import export, import_
from sparsetv.cli.hub import card, pull, push
from sparsetv.cli.inspect import inspect
from sparsetv.cli.localize import localize
from sparsetv.cli.output import plain
from sparsetv.cli.pack import pack
from sparsetv.cli.report import report
from sparsetv.cli.restore import restore
from sparsetv.cli.stitch import stitch
from sparsetv.cli.store import store
from sparsetv.cli.verify import verify
from sparsetv.errors import SparseTVError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sparsetv")
def group() -> None:
    """Store fine-tuned models as small, exact, checked sparse task vectors.

    \b
    sparsetv pack BASE FINETUNED -o task.stv      a fine-tune becomes one small file
    sparsetv localize BASE FINETUNED -o MASK      only the mask, for `pack --mask`
    sparsetv pack --lossless BASE FINETUNED -o FILE, then restore BASE FILE -o DIR   every bit of it
    sparsetv convert DIR -o NEW                   pickled weights become safetensors, for all the others
    sparsetv export TASK --to FORM -o PATH, import SOURCE --from FORM -o TASK    other tools' files
    sparsetv stitch BASE task.stv … -o DIR        any set of files becomes a model
    sparsetv add|remove|tasks DIR …               tasks come and go, the base stays exact
    sparsetv store …                              a library of many tasks of one base
    sparsetv pull|push|card ORG/TASK …            task files on the hub; ORG/TASK@REV stands for a file everywhere
    sparsetv overlap|where task.stv …             what tasks share, and where in the model they lie
    sparsetv bench EXPERIMENT --suite SUITE        bytes, accuracy and time, on your own models
    sparsetv report DIR -o page.html              results of the benchmarks as one page
    sparsetv doctor                               versions, devices, and whether the whole job works here

    Exit codes: 0 ok, 1 error, 2 usage, 3 invalid file, 4 wrong base, 5 not found, 6 busy, 7 over a limit.
    """


for command in (
    pack, restore, convert, export, import_, localize, inspect, verify, stitch, add, remove, tasks, store, overlap,
    where, evaluate, pull, push, card, bench, report, demo, doctor,
):  # fmt: skip
    group.add_command(command)


def main() -> None:
    """Run the command line; known errors become one line on stderr and their exit code."""
    try:
        group.main(standalone_mode=False)
    except SparseTVError as error:
        _fail(str(error), error.exit_code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'input'}: {error.strerror or error}", 1)


def _fail(message: str, code: int) -> None:
    click.echo(f"sparsetv: {plain(message)}", err=True)
    sys.exit(code)
