"""What published pathology encoders need beside their names: their configurations on the hub leave it out."""

import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from subfuse.errors import ConfigurationError

_HUB = ("hf_hub:", "hf-hub:")
_HUB_TIMEOUT_S = 3.0


def hub_arguments(architecture: str) -> dict[str, Any]:
    """Returns the arguments of timm's `create_model` that a hub model's card asks for; none for other names.

    UNI, UNI2-h, Virchow, Virchow2, H-optimus, and CTransPath as converted for timm. Weights are loaded strictly, so an
    argument that is missing or wrong is an error, never other features.

    Args:
        architecture: `hf_hub:<owner>/<model>`, perhaps with `@<revision>`; upper and lower case are alike.

    Raises:
        ConfigurationError: CONCH, which is no timm model.
    """
    from timm.layers import SwiGLUPacked

    if not architecture.startswith(_HUB):
        return {}
    name = architecture.partition(":")[2].partition("@")[0].lower()
    if "conch" in name:
        raise ConfigurationError(
            f"Patch encoder {architecture!r}: a timm model is required, which CONCH is not. Use --encoder conch "
            "or conch_v1.5, or "
            "extract its features with TRIDENT, and name their folder as slides.features."
        )
    gated = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    uni2 = {
        "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "embed_dim": 1536, "mlp_ratio": 2.66667 * 2,
        "init_values": 1e-5, "no_embed_class": True, "reg_tokens": 8, "dynamic_img_size": True, **gated,
    }  # fmt: skip
    known: dict[str, dict[str, Any]] = {
        "mahmoodlab/uni": {"init_values": 1e-5, "dynamic_img_size": True},
        "mahmoodlab/uni2-h": uni2,
        "paige-ai/virchow": gated,
        "paige-ai/virchow2": gated,
        "bioptimus/h-optimus-0": {"init_values": 1e-5, "dynamic_img_size": False},
        "bioptimus/h-optimus-1": {"init_values": 1e-5, "dynamic_img_size": False},
        "1aurent/swin_tiny_patch4_window7_224.ctranspath": {"embed_layer": ConvolutionalStem},
    }
    return known.get(name, {})


def pooled(output: Float[Tensor, "batch ..."], *, n_prefix: int) -> Float[Tensor, "batch feature"]:
    """Returns one vector per image: pooled features as they are; of tokens (Virchow), class token and mean patch token.

    Args:
        output: Of a model without classifier: pooled features, or all tokens.
        n_prefix: Tokens before those of patches, the class token first; registers among them are left out.
    """
    if output.ndim == 2:
        return output
    return torch.cat([output[:, 0], output[:, n_prefix:].mean(dim=1)], dim=1)


class ConvolutionalStem(nn.Module):
    """Patch embedding of CTransPath: two convolutions of stride 2 in place of one of stride 4 (Wang et al. 2022).

    Args:
        img_size: Side, or height and width, of the images in pixels.
        patch_size: Side of a patch, 4.
        in_chans: Channels of the images.
        embed_dim: Channels of the result, a multiple of 8.
        norm_layer: Makes the last layer.
        others: What timm gives any patch embedding, and this one does not need.
    """

    def __init__(
        self,
        img_size: int | Sequence[int],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        norm_layer: Any,
        **others: Any,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (height // patch_size, width // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        layers: list[nn.Module] = []
        before = in_chans
        for after in (embed_dim // 8, embed_dim // 4):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        self.proj = nn.Sequential(*layers, nn.Conv2d(before, embed_dim, 1))
        self.norm = norm_layer(embed_dim)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch row column channel"]:
        """Returns a vector per patch of 4 x 4 pixels, channels last."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


def hub_is_reachable() -> bool:
    """Returns whether the hub answers at all; the hub's own client would retry for up to a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def hub_access(is_reachable: bool) -> Iterator[None]:
    """Restricts the hub's client to its cache while the hub cannot be reached."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not is_reachable
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def sha256_of_weights(model: nn.Module) -> str:
    """Returns a hash of names, types, shapes and bytes of all weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
