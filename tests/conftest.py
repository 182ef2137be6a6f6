import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # tests run in one process per core


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real TCGA tables, tiles and the real slide."""
    folder = os.environ.get("SUBFUSE_REAL_DATA")
    if not folder:
        pytest.skip("SUBFUSE_REAL_DATA is unset: set it to the folder that holds tcga_gbmlgg/, gdc/, slides/, tiles/")
    return Path(folder)
