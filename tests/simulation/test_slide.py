"""Simulated slides: what is drawn grows with the latents."""

import numpy as np

from subfuse.simulation.layout import MALIGNANT
from subfuse.simulation.slide import Staining, draw_slide


def test_malignant_nuclei_grow_with_the_tumour_latent():
    layout = np.full((20, 24), MALIGNANT, dtype=np.uint8)

    def nuclear_share(tumour: float) -> float:
        image = draw_slide(
            layout, 640, 768, tumour=tumour, staining=Staining(), generator=np.random.default_rng(1)
        ).astype(float)
        return float((image[..., 0] < 120).mean())

    low, middle, high = (nuclear_share(tumour) for tumour in (-1.5, 0.0, 1.5))

    assert 1.3 * low < middle
    assert 1.3 * middle < high
