"""Run it: python -m tests.chaos --seconds 600 --seed 1, as root."""

from __future__ import annotations

import argparse
import contextlib
import logging
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos import isolation

TAIL_LINES = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of load, kills and checks")
    parser.add_argument("--seed", type=int, default=None, help="of the schedule; default: any")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PART", help="kill this only; repeatable"
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs of a good run too")
    parser.add_argument("--inside", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        isolation.settle_in()
        return _run(options)
    if why := isolation.missing():
        print(f"This machine cannot run it: {why}", file=sys.stderr)
        return 2
    return _begin(options)


def _begin(options: argparse.Namespace) -> int:
    """Make a folder, run inside of namespaces, and keep of the folder what is of use."""
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    # Not below /tmp, which may be in memory: the engine needs a real file system.
    folder = Path(tempfile.mkdtemp(prefix="sbx-chaos-", dir="/var/tmp"))
    only = [part for name in options.only for part in ("--only", name)]
    code = isolation.run_inside(
        [str(folder), "--seed", str(seed), "--seconds", str(options.seconds), *only]
    )
    if code or options.keep:
        shutil.rmtree(folder / "engine", ignore_errors=True)
        print(f"The logs are in {folder}; again: --seed {seed}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _run(options: argparse.Namespace) -> int:
    from tests.chaos.run import Run

    # The SDK says on its own what the report says better.
    logging.disable(logging.CRITICAL)
    run = Run(
        Path(options.inside),
        seed=options.seed,
        seconds=options.seconds,
        only=tuple(options.only),
    )
    whole = False
    with contextlib.ExitStack() as stack:
        stack.callback(run.world.close)
        try:
            run.run()
            whole = True
        finally:
            print(f"\n{run.report}\n", flush=True)
            if not (whole and run.report.is_good):
                _print_tails(run.logs)
    return 0 if run.report.is_good else 1


def _print_tails(logs: list[Path]) -> None:
    for log in logs:
        if log.exists():
            lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            print(f"== {log.name}", *lines, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
