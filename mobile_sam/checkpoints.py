"""Weights: which there are, where they come from, and how a file becomes a model.

Nothing in a file is ever executed: `.pt` files are read with `weights_only`, and safetensors
cannot hold code.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import urllib.request
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from mobile_sam.choices import DEFAULT_WEIGHTS
from mobile_sam.eight_bits import dequantized, quantized
from mobile_sam.modeling import DEMO, MOBILE_SAM, Sam, SamConfig
from mobile_sam.quoting import first_line, quoted

_CHUNK = 1 << 18
_TIMEOUT_SECONDS = 30
_LARGEST_DOWNLOAD = 1 << 30  # bytes, twenty times what is expected
_KNOWN = MOBILE_SAM, DEMO  # architectures, with inputs of any size
_ABANDONED_SECONDS = 24 * 3600  # without a change, after which a partial download is nobody's


class WeightsError(Exception):
    """Weights that cannot be had or cannot be used; the message names the file and the cause."""


@dataclass(frozen=True)
class WeightsEntry:
    """One set of weights that is known by name."""

    name: str
    description: str
    source: str
    """Where it is downloaded from, or the command that made it."""
    licence: str
    git_blob: str
    """SHA-1 of "blob <size>\\0" and the file's bytes, as git names contents."""
    file_name: str
    packaged: bool
    """Whether it comes with this package; else it is downloaded on demand."""

    @property
    def path(self) -> Path:
        """Where the file is, or has to be put."""
        if self.packaged:
            return Path(str(resources.files("mobile_sam") / "data" / self.file_name))
        return cache_directory() / self.file_name


def cache_directory() -> Path:
    """Directory of downloaded weights: $MOBILE_SAM_CACHE, or mobile_sam below the user's cache."""
    if "MOBILE_SAM_CACHE" in os.environ:
        return Path(os.environ["MOBILE_SAM_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mobile_sam"


WEIGHTS: dict[str, WeightsEntry] = {
    entry.name: entry
    for entry in (
        WeightsEntry(
            name=DEFAULT_WEIGHTS,
            description="MobileSAM at 512 pixels, for real images; fine-tuned from mobile_sam",
            source="python -m mobile_sam.training.finetune --start-from mobile_sam",
            licence="Apache-2.0",
            git_blob="63daa18df3bd7e8ded5fc2cf1a2210b89e9ecdf0",
            file_name="mobile_sam_512.safetensors",
            packaged=True,
        ),
        WeightsEntry(
            name="demo",
            description="small model for demonstration, trained on procedurally drawn scenes",
            source="python -m mobile_sam.training.finetune scenes",
            licence="Apache-2.0",
            git_blob="a89c08c344ae0195e2a2727e57270e18fd57d5fc",
            file_name="demo.safetensors",
            packaged=True,
        ),
        WeightsEntry(
            name="mobile_sam",
            description="the official weights of MobileSAM, for real images",
            source="https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
            licence="Apache-2.0",
            git_blob="7ef2d090979fd9853adf17b7a99c8b94a1c5a6a7",
            file_name="mobile_sam.pt",
            packaged=False,
        ),
    )
}


def git_blob_id(path: Path) -> str:
    """Returns the name that git gives to a file's contents, 40 hexadecimal digits."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def verify(entry: WeightsEntry, path: Path | None = None) -> None:
    """Checks that the file of `entry` is the one that is meant.

    Raises:
        WeightsError: it is not there, or it is another file.
    """
    path = path or entry.path
    if not path.is_file():
        raise WeightsError(f"{path}: not there")
    found = git_blob_id(path)
    if found != entry.git_blob:
        raise WeightsError(
            f"{path}: not the weights {entry.name!r} (git blob {found}, expected "
            f"{entry.git_blob}); remove the file and try again"
        )


def download(entry: WeightsEntry) -> Path:
    """Fetches the file of `entry` into the cache unless it is there, and verifies it.

    Raises:
        WeightsError: it could not be had; the message says where to put it by hand.
    """
    path = entry.path
    if path.is_file():
        return path
    if entry.packaged:
        raise WeightsError(f"{path}: missing from this installation")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        _fetch(entry, partial)
        verify(entry, partial)
        partial.replace(path)
    except OSError as error:  # URLError, timeouts and full disks are all of them
        raise WeightsError(
            f"cannot download the weights {entry.name!r} from {entry.source}: {error}. "
            f"Download it on another machine and put it at {path}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def remove_abandoned(directory: Path) -> None:
    """Removes what processes left half written that were killed (`*.partial`), long ago."""
    for partial in directory.glob("*.partial"):
        if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
            partial.unlink(missing_ok=True)


def _fetch(entry: WeightsEntry, path: Path) -> None:
    with (
        urllib.request.urlopen(entry.source, timeout=_TIMEOUT_SECONDS) as response,
        path.open("wb") as file,
        tqdm(
            total=int(response.headers.get("Content-Length") or 0) or None,
            desc=entry.file_name,
            unit="B",
            unit_scale=True,
        ) as bar,
    ):
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
            if bar.n > _LARGEST_DOWNLOAD:
                raise OSError(f"it has more than {_LARGEST_DOWNLOAD} bytes")
        # Else a machine that loses power may find the name and not the contents.
        file.flush()
        os.fsync(file.fileno())


# How the official checkpoint's names become ours, which are timm's: a convolution is `conv`, a norm
# `bn`, and the patch embedding has names for its two layers.
_RENAMES = (
    (r"^image_encoder\.patch_embed\.seq\.0\.", "image_encoder.patch_embed.conv1."),
    (r"^image_encoder\.patch_embed\.seq\.2\.", "image_encoder.patch_embed.conv2."),
    (r"^(image_encoder\..*)\.c\.weight$", r"\1.conv.weight"),
)
# Parts of the official checkpoint that segmentation does not use: the classifier that TinyViT was
# pretrained with, and tables that are computed.
_UNUSED = re.compile(
    r"^image_encoder\.(norm_head|head)\.|\.attention_bias_idxs$|^pixel_(mean|std)$"
)


def convert_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of an upstream MobileSAM checkpoint under this package's names."""
    converted = {}
    for name, tensor in state.items():
        if _UNUSED.search(name):
            continue
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        converted[name] = tensor
    return converted


def save_safetensors(
    model: Sam,
    path: Path,
    dtype: torch.dtype = torch.float32,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes a model's weights and its configuration; `load_sam` reads them.

    Args:
        model: whose configuration, and whose weights if `state` says nothing else.
        path: where to.
        dtype: of the floating point tensors in the file; int8: see `eight_bits`.
        state: other weights for the same architecture.

    Raises:
        OSError: the file cannot be written.
    """
    state = state or model.state_dict()
    if dtype == torch.int8:
        tensors = quantized(state)
    else:
        tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_tensors(tensors, path, {"config": model.config.to_json()})


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file.

    Raises:
        OSError: it cannot be written, as on a full disk; the message names it.
    """
    try:
        save_file(dict(tensors), path, None if metadata is None else dict(metadata))
    except SafetensorError as error:  # which is no OSError, whatever its cause
        raise OSError(f"{path}: cannot be written: {first_line(error)}") from error


def read_checkpoint(path: Path) -> tuple[SamConfig, dict[str, Tensor]]:
    """Reads a checkpoint, `.safetensors` of this package or `.pt` of upstream's names.

    Raises:
        WeightsError: not a readable checkpoint.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {}).get("config")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            config = SamConfig.from_json(text) if text else MOBILE_SAM
            return config, dequantized(tensors)
        _refuse_bomb(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of an old file's contents
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes bring an unpickler to raise anything
        raise WeightsError(
            f"{path}: not a checkpoint that can be read safely: {first_line(error)}"
        ) from error
    state = _unwrapped(state)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise WeightsError(f"{path}: not a table of tensors")
    return MOBILE_SAM, convert_official(state)


def _refuse_bomb(path: Path) -> None:
    """Refuses a `.pt` file, which is an archive, that would be larger unpacked than it is.

    PyTorch stores and never compresses; but it reads what is compressed, however large it gets.

    Raises:
        ValueError: it claims more bytes than it has.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        claimed = sum(item.file_size for item in archive.infolist())
    if claimed > path.stat().st_size:
        raise ValueError(f"claims to hold {claimed} bytes, but has {path.stat().st_size}")


def _unwrapped(state: object) -> object:
    """Returns the table of tensors in what training scripts save: it may lie beside an optimizer's
    state, and its names may begin as DistributedDataParallel has them."""
    for key in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if isinstance(state, Mapping) and all(str(name).startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _mismatches(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterable[str]:
    for name, tensor in wanted.items():
        if name not in found:
            yield f"has no {name}"
        elif found[name].shape != tensor.shape:
            shapes = tuple(found[name].shape), tuple(tensor.shape)
            yield f"has {name} of shape {shapes[0]}, the architecture needs {shapes[1]}"
        elif found[name].layout != torch.strided or found[name].is_complex():
            yield f"has {name} as {found[name].layout} of {found[name].dtype}"
        elif found[name].is_floating_point() and not found[name].isfinite().all():
            yield f"has {name} with numbers that are not finite"
    for name in found:
        if name not in wanted:
            yield f"has {quoted(name)}, which the architecture does not know"


def load_sam(weights: str | os.PathLike[str] = DEFAULT_WEIGHTS, device: str = "cpu") -> Sam:
    """Builds a model and loads its weights.

    Args:
        weights: a name in `WEIGHTS`, or the path of a `.safetensors` or `.pt` file.
        device: where torch shall have it.

    Returns:
        The model, float32, ready for inference.

    Raises:
        WeightsError: unknown name, or a file that is missing, damaged or of another architecture.
    """
    name = os.fspath(weights)
    if name in WEIGHTS:
        path = download(WEIGHTS[name])
        verify(WEIGHTS[name])
    else:
        path = Path(name).expanduser()
        if not path.suffix and not path.exists():
            known = ", ".join(WEIGHTS)
            raise WeightsError(
                f"no weights of the name {name!r} (known: {known}), and no such file"
            )
    config, state = read_checkpoint(path)
    try:
        if not any(config == replace(known, image_size=config.image_size) for known in _KNOWN):
            # Takes no memory for what a file only claims, but a second and 150 MB for the compiler
            # that PyTorch loads then.
            with torch.device("meta"):
                claimed = Sam(config)
            _check(path, claimed, state)
        model = Sam(config)
        _check(path, model, state)
        model.load_state_dict(state)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise WeightsError(f"{path}: makes no model: {first_line(error)}") from error
    model = model.eval().requires_grad_(False)
    return model.to(device).to(memory_format=torch.channels_last)


def _check(path: Path, model: Sam, state: Mapping[str, Tensor]) -> None:
    for mismatch in _mismatches(model.state_dict(), state):
        raise WeightsError(f"{path}: {mismatch}")
