import logging

import pytest
import torch
from transcription import random_released

from subfuse.model import SubspaceFusion, convert_released, unused_names


def released(**options) -> dict[str, torch.Tensor]:
    return random_released(5, 3, 2, patch_dim=6, **options)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_that_the_released_model_never_uses_are_listed(prefix, caplog):
    weights = released(prefix=prefix, unused=True)
    with caplog.at_level(logging.INFO, logger="subfuse.model.released_weights"):
        convert_released(weights)
    unused = unused_names(weights)
    assert f"{prefix}omic_net_tumor.output_range" in unused
    assert f"{prefix}pathomic_net_immune.layer3.attn1d.to_q.weight" in unused
    assert len(unused) == 14
    assert "14 tensors" in caplog.text


def test_conversion_fills_every_weight_and_copies():
    weights = released()
    config, converted = convert_released(weights)
    assert (config.layout, config.position_bias, config.n_outputs, config.patch_dim) == ("raster", "exact", 2, 6)
    SubspaceFusion(config, {"tumour": range(5), "microenvironment": range(5, 8)}).load_state_dict(converted)
    converted["head.bias"].add_(1)
    assert not torch.equal(converted["head.bias"], weights["classifier.bias"])


def test_missing_names_are_named():
    weights = released()
    del weights["pathomic_net_immune.norm.weight"], weights["classifier.bias"]
    with pytest.raises(ValueError, match=r"pathomic_net_immune\.norm\.weight, classifier\.bias"):
        convert_released(weights)


def test_wrong_shapes_are_named():
    weights = released()
    weights["pathomic_net_tumor.layer3.attn2d.to_k.weight"] = torch.zeros(512, 32, 1, 1)
    with pytest.raises(ValueError, match=r"to_k\.weight.*\(512, 16, 1\).*\(512, 32, 1, 1\)"):
        convert_released(weights)
    risk = random_released(5, 3, 1, patch_dim=6)
    risk["classifier.weight"] = torch.zeros(1, 300)
    with pytest.raises(ValueError, match=r"classifier\.weight.*\(1, 256\).*\(1, 300\)"):
        convert_released(risk)
