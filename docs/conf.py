"""Sphinx: what ROS packages are documented with (rosdoc2 builds it as it is)."""

import os
import sys
from argparse import _SubParsersAction
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT))

from mobile_sam.cli import make_parser  # noqa: E402
from setup import VERSION  # noqa: E402

project = "mobile_sam_ros"
author = "the mobile_sam_ros maintainers"
version = release = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
# Words in single backticks are code here, as in the comments.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
myst_heading_anchors = 3


def write_help(path: Path) -> None:
    """Writes what --help says, of the command line and of each command."""
    os.environ["COLUMNS"] = "90"
    parser = make_parser()
    (commands,) = (a for a in parser._actions if isinstance(a, _SubParsersAction))
    texts = [parser.format_help(), *(c.format_help() for c in commands.choices.values())]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n\n".join(texts))


write_help(CHECKOUT / "docs/_build/help.txt")
