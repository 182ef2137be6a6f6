import numpy as np
import torch

from subfuse.model.baselines.kronecker_fusion import PORPOISE, KroneckerFusion, PathomicFusion

BATCH, EMBED, GATED, HIDDEN = 4, 5, 3, 6


def parts() -> tuple[KroneckerFusion, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fusion = KroneckerFusion(EMBED, gated_dim=GATED, hidden=HIDDEN, dropout=0.25).double().eval()
    slides, expression = torch.randn(2, BATCH, EMBED, generator=generator, dtype=torch.float64)
    return fusion, slides, expression


def written_out(fusion: KroneckerFusion, slides: np.ndarray, expression: np.ndarray, missing: str = "") -> np.ndarray:
    """One patient in NumPy."""
    layer = {name: value.numpy() for name, value in fusion.state_dict().items()}
    gated = []
    for index, (name, own) in enumerate((("slides", slides), ("expression", expression))):
        both = np.concatenate([slides, expression])
        gate = 1 / (1 + np.exp(-(layer[f"gate.{index}.weight"] @ both + layer[f"gate.{index}.bias"])))
        content = np.maximum(layer[f"content.{index}.weight"] @ own + layer[f"content.{index}.bias"], 0)
        gated.append(np.append(np.zeros(GATED) if name == missing else gate * content, 1.0))
    product = np.kron(*gated)
    hidden = np.maximum(layer["product.weight"] @ product + layer["product.bias"], 0)
    return np.maximum(layer["joint.weight"] @ np.concatenate([hidden, *gated]) + layer["joint.bias"], 0)


def test_the_fusion_written_out_in_numpy():
    fusion, slides, expression = parts()
    has_slides = torch.tensor([True, True, False, True])
    measured = torch.tensor([True, False, True, True])
    fused = fusion(slides, expression, has_slides, measured).detach().numpy()
    missing = ["", "expression", "slides", ""]
    for i in range(BATCH):
        expected = written_out(fusion, slides[i].numpy(), expression[i].numpy(), missing[i])
        np.testing.assert_allclose(fused[i], expected, atol=1e-12)


def test_sizes_are_as_published():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    gates = 2 * (129 * 128 + 257 * 128)
    fusion = gates + (129**2 + 1) * 128 + (128 + 2 * 129 + 1) * 128
    genes = 11 * 64 + 65 * 48 + 49 * 32 + 33 * 128
    assert count(PathomicFusion(4, n_genes=10)) == 1025 * 128 + genes + fusion + 129 * 4
    gates = 2 * (257 * 32 + 513 * 32)
    fusion = gates + (33**2 + 1) * 256 + (256 + 2 * 33 + 1) * 256
    slides = 1025 * 512 + 2 * 513 * 256 + 256 + 513 * 256
    assert count(PORPOISE(4, n_genes=10)) == slides + 11 * 256 + 257 * 256 + fusion + 257 * 4
