"""The keys of package.xml are known to rosdep, as far as a recorded list says; see the list."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parent.parent
FACTS = yaml.safe_load((CHECKOUT / "test/rosdep_keys.yaml").read_text())
DISTRIBUTIONS = ("humble", "jazzy", "kilted", "lyrical")
SYSTEMS = {"ubuntu": ("jammy", "noble", "resolute"), "debian": ("bookworm", "trixie")}


def keys() -> list[str]:
    """The keys of all dependencies in package.xml, each as often as it stands there."""
    root = ElementTree.parse(CHECKOUT / "package.xml").getroot()
    return [(item.text or "").strip() for item in root if item.tag.endswith("depend")]


def test_every_key_is_known_and_stands_once() -> None:
    known = [*FACTS["released"], *FACTS["apt"], *FACTS["pip"]]
    assert sorted(keys()) == sorted(known)


def installed(rules: dict[str, Any], key: str, system: str, release: str) -> tuple[str, Any]:
    """How rosdep installs a key on a release of a system, and what."""
    rule = rules[key][system]
    if isinstance(rule, dict) and not rule.keys() & {"pip", "apt"}:
        rule = rule.get(release, rule.get("*"))
    if isinstance(rule, dict):
        ((installer, what),) = rule.items()
        return installer, what["packages"]
    return "apt", rule


def test_the_list_is_what_rosdistro_says() -> None:
    if "ROSDISTRO" not in os.environ:
        pytest.skip("compares with a clone of github.com/ros/rosdistro, in the variable ROSDISTRO")
    clone = Path(os.environ["ROSDISTRO"])
    for distribution in DISTRIBUTIONS:
        index = yaml.safe_load((clone / distribution / "distribution.yaml").read_text())
        packages: set[str] = set()
        for name, repository in index["repositories"].items():
            release = repository.get("release", {})
            if release.get("version"):
                packages.update(release.get("packages", [name]))
        assert not set(FACTS["released"]) - packages, distribution
    rules: dict[str, Any] = {}
    for name in ("base", "python"):
        rules |= yaml.safe_load((clone / f"rosdep/{name}.yaml").read_text())
    for installer in ("apt", "pip"):
        for key, packages in FACTS[installer].items():
            for system, releases in SYSTEMS.items():
                for release in releases:
                    found = installed(rules, key, system, release)
                    assert found == (installer, packages), f"{key} on {system} {release}"
