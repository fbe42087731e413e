"""What a student learns from: SAM's image encoders, or those of this package.

SAM's come from timm (`timm.models.vision_transformer_sam`), with the official checkpoints of
github.com/facebookresearch/segment-anything.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import timm
import torch
from timm.models.vision_transformer_sam import checkpoint_filter_fn
from torch import Tensor, nn

from mobile_sam.checkpoints import WeightsError, convert_official, load_sam
from mobile_sam.modeling.sam import normalised
from mobile_sam.quoting import in_one_line

# By the names of SAM's own registry.
_SAM_ENCODERS = {
    "vit_b": "samvit_base_patch16",
    "vit_l": "samvit_large_patch16",
    "vit_h": "samvit_huge_patch16",
}


@dataclass(frozen=True, eq=False)
class Teacher:
    """An image encoder with fixed weights.

    Attributes:
        name: as it was asked for.
        image_size: side of its square input, in pixels.
        encoder: normalised pixels, float (B, 3, S, S), to the embedding, float (B, C, e, e).
    """

    name: str
    image_size: int
    encoder: nn.Module

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Encodes pictures scaled to fit: (B, 3, H, W), RGB, 0 to 255, to float (B, C, e, e)."""
        return self.encoder(normalised(pixels, (self.image_size, self.image_size)))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the encoder's weights, 64 hexadecimal digits: the same for the same teacher
        wherever its file lies."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()


def load_teacher(name: str, device: str = "cpu") -> Teacher:
    """Loads a teacher.

    Args:
        name: `vit_b=PATH`, `vit_l=PATH` or `vit_h=PATH` for an official checkpoint of SAM; else
            weights of this package, as `load_sam` takes them.
        device: where torch shall have it.

    Raises:
        WeightsError: the file is missing, damaged or of another architecture.
    """
    model_name, path = _official(name)
    if path is not None:
        return Teacher(name, 1024, _load_sam_encoder(model_name, path).to(device))
    sam = load_sam(name, device)
    return Teacher(name, sam.config.image_size, sam.image_encoder)


def load_decoder(name: str) -> dict[str, Tensor]:
    """Loads a teacher's prompt encoder and mask decoder, which fit its embeddings.

    Args:
        name: as of `load_teacher`. Of SAM's large checkpoints no more is read.

    Returns:
        The weights, by the names that they have in a `Sam`.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    model_name, path = _official(name)
    if path is None:
        state = load_sam(name).state_dict()
    else:
        with _reading(model_name, path):
            mapped = zipfile.is_zipfile(path)  # as torch has written it since 1.6
            official = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            state = convert_official(official)
    parts = ("prompt_encoder.", "mask_decoder.")
    return {name: tensor for name, tensor in state.items() if name.startswith(parts)}


def _official(name: str) -> tuple[str, Path | None]:
    """Returns timm's name and the path of a checkpoint of SAM; None if it is none."""
    kind, _, path = name.partition("=")
    if kind in _SAM_ENCODERS and path:
        return _SAM_ENCODERS[kind], Path(path).expanduser()
    return "", None


@contextmanager
def _reading(model_name: str, path: Path) -> Iterator[None]:
    """Makes what goes wrong with a checkpoint of SAM a WeightsError."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        yield
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, AttributeError) as error:
        cause = in_one_line(str(error))
        raise WeightsError(f"{path}: not a checkpoint of SAM's {model_name}: {cause}") from error


def _load_sam_encoder(model_name: str, path: Path) -> nn.Module:
    with _reading(model_name, path):
        state = torch.load(path, map_location="cpu", weights_only=True)
        # SAM's own epsilon; timm's default is another.
        norm = partial(nn.LayerNorm, eps=1e-6)
        with torch.device("meta"):  # no random weights first: ViT-H has 637 million
            encoder = timm.create_model(model_name, num_classes=0, norm_layer=norm)
        encoder.head = nn.Identity()  # pools otherwise
        encoder.load_state_dict(checkpoint_filter_fn(state, encoder), assign=True)
    return encoder.eval().requires_grad_(False)
