#!/usr/bin/env python3
"""Makes the environment that the package runs and is tested in, and runs commands inside it.

    python3 tools/environment.py make            make it, or bring it up to date
    python3 tools/environment.py run -- COMMAND  the same, then run COMMAND in it
    python3 tools/environment.py print           the same, then print it for `eval`
    python3 tools/environment.py clean           remove every environment of this project

Where a ROS 2 distribution is sourced, that is used, with a virtual environment on top for what
apt does not have. Elsewhere ROS 2 comes as wheels. Everything lies below $MOBILE_SAM_ROS_CACHE
(~/.cache/mobile_sam_ros); nothing is built in the checkout.

Needs nothing but Python 3.10 or newer and its standard library.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ros_environment.layout import cache_root, lay_out, remove_environments
from ros_environment.making import make
from ros_environment.plan import make_plan
from ros_environment.reporting import EnvironmentFailure, say
from ros_environment.variables import command_environ

CHECKOUT = Path(__file__).resolve().parent.parent


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make", help="make the environment, or bring it up to date")
    commands.add_parser("print", help='make it, then print it: eval "$(… print)"')
    commands.add_parser("clean", help="remove every environment of this project")
    run = commands.add_parser("run", help="make it, then run a command in it: run -- COMMAND")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    options = parser.parse_args(arguments)
    if options.command == "run":
        options.words = options.words[1:] if options.words[:1] == ["--"] else options.words
        if not options.words:
            parser.error("run: which command?")
    return options


def clean(cache: Path) -> None:
    """Removes every environment."""
    removed = remove_environments(cache)
    for path in removed:
        say(f"removed {path}")
    if not removed:
        say(f"there is no environment in {cache}")


def print_exports(environ: Mapping[str, str]) -> None:
    """Prints shell commands that lead from the caller's variables to `environ`."""
    for name in sorted(environ):
        if environ[name] != os.environ.get(name):
            print(f"export {name}={shlex.quote(environ[name])}")
    for name in sorted(set(os.environ) - set(environ)):
        print(f"unset {name}")


def execute(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Becomes the command; returns only if there is none of that name."""
    program = shutil.which(words[0], path=environ["PATH"])
    if program is None:
        say(f"failed: there is no command {words[0]}")
        return 127
    os.execve(program, list(words), dict(environ))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    options = parse(arguments)
    # As an exception, so that the command at work is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cache = cache_root()
    try:
        if options.command == "clean":
            clean(cache)
            return 0
        plan = make_plan(os.environ, CHECKOUT, cache)
        layout = lay_out(plan, CHECKOUT, cache)
        make(plan, layout, CHECKOUT)
    except EnvironmentFailure as failure:
        say(f"failed: {failure}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; run the same command again to go on")
        return 130
    environ = command_environ(plan, layout, os.environ)
    if options.command == "print":
        print_exports(environ)
    elif options.command == "run":
        return execute(options.words, environ)
    return 0


if __name__ == "__main__":
    sys.exit(main())
