"""Plain tables of expression, small and complete ones, written and read."""

from pathlib import Path

import numpy as np
import pandas as pd

from expression_sections import expression_section
from subfuse.expression.reading import read_expression

N_GENES = 1200  # of a complete table
PATIENTS = ["TCGA-02-0001", "TCGA-02-0002", "TCGA-02-0003"]
GENES = ["EGFR", "TP53"]
VALUES = np.array([[1, 3], [7, 0], [0, 15]], dtype=np.float32)  # patients × genes


def plain(tmp_path: Path, text: str | bytes, unit: str = "tpm", name: str = "expression.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_expression(expression_section(table=path, unit=unit))


def shares(n_patients: int = 6) -> pd.DataFrame:
    """TPM of all genes, one of them without expression."""
    values = np.random.default_rng(0).lognormal(sigma=2, size=(n_patients, N_GENES))
    values[:, 0] = 0
    values *= 1e6 / values.sum(axis=1, keepdims=True)
    return pd.DataFrame(values, [f"P{i}" for i in range(n_patients)], [f"G{i}" for i in range(N_GENES)])


def matrix(rows=PATIENTS, columns=GENES, values=VALUES) -> pd.DataFrame:
    return pd.DataFrame(values, index=rows, columns=columns)


def read(path: Path, *, patients=(), keep_genes=(), **keys):
    return read_expression(expression_section(table=path, **keys), patients=patients, keep_genes=keep_genes)
