"""Layouts of simulated slides: regions grow with the latents and leave glass around the tissue."""

import numpy as np

from subfuse.simulation.layout import GLASS, LYMPHOCYTE, NECROTIC, VASCULAR, draw_layout


def test_microenvironment_regions_grow_with_their_latent():
    def share(latent: float) -> float:
        layouts = [
            draw_layout(1990, 2110, microenvironment=latent, generator=np.random.default_rng(seed)) for seed in range(5)
        ]
        tissue = sum(int((layout != GLASS).sum()) for layout in layouts)
        assert 0.5 < tissue / sum(layout.size for layout in layouts) < 0.85
        return sum(int(np.isin(layout, (LYMPHOCYTE, VASCULAR, NECROTIC)).sum()) for layout in layouts) / tissue

    shares = [share(latent) for latent in (-2.0, -1.0, 0.0, 1.0, 2.0)]

    assert np.all(np.diff(shares) > 0.03)
    assert shares[-1] > 5 * shares[0]
