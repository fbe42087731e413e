"""Sphinx: what ROS packages are documented with (rosdoc2 builds it as it is)."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "docs/extensions")]

from setup import VERSION  # noqa: E402

project = "mobile_sam_ros"
author = "the mobile_sam_ros maintainers"
version = release = VERSION
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "generated_pages",
    "command_marks",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_show_copyright = False
html_title = f"{project} {VERSION}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
# Words in single backticks are code here, as in the comments.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
myst_heading_anchors = 3
