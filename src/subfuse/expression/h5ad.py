"""Expression as an AnnData file (.h5ad)."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.bounded_files import require_plausible_size, require_regular_file
from subfuse.errors import DataError, SubfuseError, preview
from subfuse.exclusions import exclusion_table
from subfuse.expression.matrices import gene_axis, refuse_other_unit, source_of, told_unit
from subfuse.expression.samples import SampleMatrix, assign_samples, refuse_repeated
from subfuse.expression.units import MODEL_SCALE
from subfuse.hdf5_heaps import require_sound_heaps
from subfuse.identifiers import patient_of_barcode
from subfuse.tables import is_missing

_ITEMSIZE = np.dtype(np.float32).itemsize  # of the values that are used
_ENSEMBL_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl", "ensembl_gene_id")


def read_anndata(
    path: Path,
    *,
    unit: str | None = None,
    layer: str | None = None,
    patient_column: str | None = None,
    sheet: Path | None = None,
) -> SampleMatrix:
    """Returns an AnnData file: observations are samples or patients, variables genes, values in `X` or in `layer`.

    Patients are `obs_names`, or the column `patient_column` of `obs`; observations without a name are excluded. A
    column of `var` called gene_name, gene_symbol, symbol or hugo_symbol gives symbols, or where names are only numbers
    one of Ensembl identifiers. `uns["unit"]` gives the unit where none is declared; a file that `subfuse prepare` wrote
    holds its values on the scale of models already.

    Raises:
        ConfigurationError: The unit is neither declared nor told.
        DataError: Not such a file, no values, natural logarithms, `patient_column` is missing, or `uns["unit"]` is no
            unit of ours and none is declared.
    """
    data = _read_h5ad(path)
    values, var = _values_of(data, layer, path)
    identifiers = data.obs_names.astype(str).tolist()
    samples = assign_samples(identifiers, sheet)
    if patient_column is not None:
        if patient_column not in data.obs:
            raise DataError(
                f"{path}: obs must have the column {patient_column!r} (expression.patient_column). "
                f"Found {preview(data.obs.columns)}."
            )
        names = _texts(data.obs[patient_column])
        samples["patient_id"] = [patient_of_barcode(name) for name in names]
    samples["place"] = [f"observation {name}" for name in identifiers]
    nameless = samples["patient_id"].map(is_missing)
    if nameless.all():
        raise DataError(f"{path}: observations with the name of a patient are required. Found none. Check obs.")
    if nameless.any():
        samples, values = samples[~nameless].reset_index(drop=True), values[~nameless.to_numpy()]
    refuse_repeated(samples, path)
    stated = str(data.uns["unit"]) if "unit" in data.uns else None
    if stated is not None and "scale" in data.uns:
        stated = str(data.uns["scale"])  # written by `write_expression`: the values are finished
    told, notes = _known_unit(stated, unit, path)
    if layer is None:  # else it speaks of X
        refuse_other_unit(unit, told, path, 'uns["unit"]')
    unit = told_unit(unit, told, path, 'uns["unit"]')
    _refuse_other_logarithm(data.uns, unit, layer, path)
    return SampleMatrix(
        values,
        samples,
        _genes_of_var(var),
        unit,
        path,
        source_of(path, samples),
        warnings=notes,
        exclusions=exclusion_table(
            ("expression", name, "no name of a patient") for name in pd.Series(identifiers)[nameless]
        ),
    )


def _known_unit(stated: str | None, declared: str | None, path: Path) -> tuple[str | None, tuple[str, ...]]:
    """Returns the unit that a file states, None where it is no unit of ours, and a warning on that.

    Raises:
        DataError: It is none of ours, and none is declared.
    """
    if stated is None or stated in MODEL_SCALE:
        return stated, ()
    if declared is None:
        raise DataError(
            f'{path}: uns["unit"] must be one of {", ".join(MODEL_SCALE)}. Found {stated[:60]!r}. Declare that unit as '
            "`unit` in `expression`."
        )
    return None, (
        f"{path}: unit {declared} is declared and used, but uns['unit'] says {stated[:60]!r}. Check the unit.",
    )


def _read_h5ad(path: Path) -> Any:
    import anndata

    require_regular_file(path, "AnnData file")
    require_sound_heaps(path)
    try:
        require_plausible_size(path, "all that it declares", _declared_bytes(path), 1, path.stat().st_size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that are not unique: we say which, or which counts
            return anndata.read_h5ad(path)
    except SubfuseError:
        raise
    except Exception as error:  # whatever HDF5, AnnData or a plugin of theirs raises on a damaged file
        problem = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: a complete AnnData file is required. Found: {problem}.") from error


def _declared_bytes(path: Path) -> int:
    """Returns the memory that the arrays of a file would take, sparse ones filled in; reads none of their values."""
    import h5py

    sizes: list[int] = []

    def add(_: str, item: "h5py.Group | h5py.Dataset") -> None:
        shape = item.shape if isinstance(item, h5py.Dataset) else item.attrs.get("shape", (0,))
        itemsize = item.dtype.itemsize if isinstance(item, h5py.Dataset) else _ITEMSIZE
        if shape is not None:
            sizes.append(math.prod(int(n) for n in shape) * itemsize)

    with h5py.File(path, "r", locking=False) as file:
        file.visititems(add)
    return sum(sizes)


def _values_of(data: Any, layer: str | None, path: Path) -> tuple[Float[np.ndarray, "sample gene"], pd.DataFrame]:
    """Returns the chosen values, and the table of their variables."""
    available = [*map(str, data.layers), *(["raw"] if data.raw is not None else [])]
    if layer is None and data.X is None:
        found = (
            f"Found layers: {preview(available)}. Name one as `layer` in `expression`." if available else "Found none."
        )
        raise DataError(f"{path}: values in X are required. {found}")
    if layer is not None and layer not in available:
        raise DataError(
            f"{path}: the layer {layer!r} is required (expression.layer). Found {preview(available) or 'none'}."
        )
    use_raw = layer == "raw" and layer not in data.layers
    chosen = data.X if layer is None else data.raw.X if use_raw else data.layers[layer]
    try:
        dense = np.array(chosen.toarray() if hasattr(chosen, "toarray") else chosen, dtype=np.float32, order="C")
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: numbers are required. Found: {' '.join(str(error).split())[:200]}.") from error
    if not dense.size:
        raise DataError(f"{path}: at least one observation and one variable are required. Found {dense.shape}.")
    return dense, data.raw.var if use_raw else data.var


def _texts(column: pd.Series) -> list[str]:
    return ["" if pd.isna(cell) else str(cell).strip() for cell in column]


def _genes_of_var(var: pd.DataFrame) -> pd.DataFrame:
    names = [str(name) for name in var.index]
    annotations = pd.DataFrame({str(name).lower(): _texts(var[name]) for name in var})
    if all(name.isdigit() for name in names):
        names = next((annotations[name].tolist() for name in _ENSEMBL_COLUMNS if name in annotations), names)
    return gene_axis(names, annotations, [f"variable {number}" for number in range(1, len(names) + 1)])


def _refuse_other_logarithm(uns: Mapping[str, Any], unit: str, layer: str | None, path: Path) -> None:
    """Refuses X whose note of scanpy's log1p contradicts the unit; layers are judged by their sums."""
    if "log1p" not in uns or layer is not None or unit == "zscore":
        return
    note = uns["log1p"]
    base = note.get("base") if isinstance(note, Mapping) else None
    if base is not None and float(base) == 2 and unit.startswith("log2_"):
        return
    found = "natural logarithms" if base is None else f"logarithms to base {base}"
    raise DataError(
        f'{path}: {unit} is required, as declared. Found {found} in X (uns["log1p"]). Name a `layer` with counts or '
        'TPM, or save log2(x + 1) without uns["log1p"].'
    )
