"""Encoders of the hub, from a cache as its client leaves it: tiny models of the published kinds under their names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from subfuse.errors import ConfigurationError
from subfuse.features import patch_encoders
from subfuse.features.hub_encoders import ConvolutionalStem, hub_arguments, pooled
from subfuse.features.patch_encoders import load_patch_encoder

timm = pytest.importorskip("timm")
from timm.layers import SwiGLUPacked  # noqa: E402


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(patch_encoders, "hub_is_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def publish(cache: Path, name: str, model: Any, config: dict[str, Any], *, side: int = 160) -> None:
    """Puts a model into the cache, with what its configuration says and nothing else."""
    folder, revision = cache / f"models--{name.replace('/', '--')}", "0" * 40
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    data = {"input_size": [3, side, side], "fixed_input_size": True, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}
    (snapshot / "config.json").write_text(json.dumps({**config, "num_classes": 0, "pretrained_cfg": data}))
    save_file(model.state_dict(), snapshot / "model.safetensors")


def expected_of(model: Any, images: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(n).reshape(3, 1, 1) for n in ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1)))
    with torch.inference_mode():
        return model.eval()((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 160, 160, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["MahmoodLab/UNI", "bioptimus/H-optimus-0"])
def test_layer_scale_that_the_configuration_does_not_hand_over(name: str, cache: Path, images: np.ndarray) -> None:
    """As published: `init_values` stands where timm does not read it."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0, init_values=1.0)
    publish(cache, name, model, {"architecture": "test_vit", "init_values": 1.0})

    encoder = load_patch_encoder(f"hf_hub:{name}")

    assert encoder.dim == 64
    np.testing.assert_allclose(encoder.encode(images), expected_of(model, images), atol=1e-5)


@pytest.mark.parametrize(("name", "registers"), [("paige-ai/Virchow", 0), ("paige-ai/Virchow2", 4)])
def test_virchow_is_its_class_token_beside_the_mean_of_its_patches(
    name: str, registers: int, cache: Path, images: np.ndarray
) -> None:
    torch.manual_seed(0)
    arguments = {"init_values": 1e-5, "mlp_ratio": 5.0, "reg_tokens": registers, "global_pool": ""}
    model = timm.create_model("test_vit", num_classes=0, mlp_layer=SwiGLUPacked, act_layer=nn.SiLU, **arguments)
    publish(cache, name, model, {"architecture": "test_vit", "model_args": arguments})

    encoder = load_patch_encoder(f"hf-hub:{name}")

    tokens = expected_of(model, images).numpy()
    assert tokens.shape == (3, 1 + registers + 100, 64)
    features = np.concatenate([tokens[:, 0], tokens[:, 1 + registers :].mean(axis=1)], axis=1)
    assert encoder.dim == 128
    np.testing.assert_allclose(encoder.encode(images), features, atol=1e-5)


def test_other_weights_under_a_known_name_are_an_error(cache: Path) -> None:
    model = timm.create_model("test_vit", num_classes=0)
    publish(cache, "paige-ai/Virchow2", model, {"architecture": "test_vit"})

    with pytest.raises(ConfigurationError, match="loading state_dict"):
        load_patch_encoder("hf_hub:paige-ai/Virchow2")


def test_ctranspath_has_a_convolutional_stem(cache: Path) -> None:
    name = "1aurent/swin_tiny_patch4_window7_224.CTransPath"
    torch.manual_seed(0)
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, embed_layer=ConvolutionalStem)
    shapes = {k: tuple(v.shape) for k, v in model.patch_embed.state_dict().items() if k.endswith("weight")}
    assert shapes == {
        "proj.0.weight": (12, 3, 3, 3), "proj.1.weight": (12,), "proj.3.weight": (24, 12, 3, 3),
        "proj.4.weight": (24,), "proj.6.weight": (96, 24, 1, 1), "norm.weight": (96,),
    }  # fmt: skip
    publish(cache, name, model, {"architecture": "swin_tiny_patch4_window7_224"}, side=224)

    encoder = load_patch_encoder(f"hf_hub:{name}")

    assert encoder.encode(np.zeros((1, 256, 256, 3), np.uint8)).shape == (1, 768)


@pytest.mark.parametrize(
    ("name", "architecture", "arguments", "millions"),
    [
        ("hf_hub:MahmoodLab/UNI2-h", "vit_giant_patch14_224", {}, 681),
        ("hf_hub:mahmoodlab/uni@main", "vit_large_patch16_224", {}, 303),
        ("hf_hub:paige-ai/Virchow2", "vit_huge_patch14_224", {"mlp_ratio": 5.3375, "reg_tokens": 4}, 631),
    ],
)
def test_models_have_the_published_number_of_parameters(
    name: str, architecture: str, arguments: dict[str, Any], millions: int
) -> None:
    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=0, **arguments, **hub_arguments(name))
    assert sum(parameter.numel() for parameter in model.parameters()) // 10**6 == millions


def test_other_names_need_nothing() -> None:
    assert hub_arguments("resnet50.a1_in1k") == hub_arguments("hf_hub:prov-gigapath/prov-gigapath") == {}


def test_conch_is_no_timm_model() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"CONCH is not\. Use --encoder conch or conch_v1\.5, or extract its features with TRIDENT",
    ):
        load_patch_encoder("hf_hub:MahmoodLab/conchv1_5")


def test_pooled_features_stay() -> None:
    features = torch.rand(2, 5)
    assert pooled(features, n_prefix=1) is features
