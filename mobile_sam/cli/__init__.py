"""The command `mobile-sam`: segment pictures, export models, look after weights, measure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mobile_sam.checkpoints import WeightsError
from mobile_sam.cli import benchmark, models, prepare, segment
from mobile_sam.cli.errors import UserError
from mobile_sam.export import ExportError

_STATUS = """
exit status:
  0    all was done
  1    something could not be done; standard error says what
  2    the command line was wrong
  130  it was interrupted with Ctrl-C; what was written by then stays
"""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="mobile-sam",
        description="Segments objects in pictures with MobileSAM.",
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    segment.add_command(commands)
    models.add_commands(commands)
    prepare.add_command(commands)
    benchmark.add_command(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = make_parser().parse_args(arguments)
    try:
        return options.run(options)
    except (UserError, WeightsError, ExportError, ValueError, OSError) as error:
        print(f"mobile-sam: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mobile-sam: interrupted; what is written stays", file=sys.stderr)
        return 130
