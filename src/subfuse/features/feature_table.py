"""A table of slide-level features: one row per slide, one numeric column per feature.

STAMP before 2.5 kept the vectors of a cohort's slides in one HDF5 file, `<encoder>-slide-<hash>.h5`, an array for each
slide under its name; the attribute `encoder` says what made them. It is read as such a table.
Source: https://github.com/KatherLab/STAMP, `stamp/encoding/encoder`.
"""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Float64

from subfuse.bounded_files import require_regular_file
from subfuse.cells import number_hint
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.features.feature_file import FeatureFile, without_coordinates
from subfuse.features.hdf5_files import Attributes, opened_hdf5, stored_array
from subfuse.features.hdf5_layouts import is_of_one_slide
from subfuse.files import sha256_of_json
from subfuse.slides.file_names import slide_id_of
from subfuse.tables import is_missing, read_text_table, require_columns

_ENCODER, _LAYOUT = "encoder", "layout"  # of a table of vectors, in its `attrs`


def encoder_of_vectors(path: Path) -> str | None:
    """Returns what made the vectors of slides in a file of STAMP; None of other files and of damaged ones."""
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.is_file():
        return None
    try:
        with opened_hdf5(path) as file:
            return None if is_of_one_slide(file) or not len(file) else Attributes([file], path).text(_ENCODER)
    except DataError:
        return None


def read_feature_table(path: Path) -> pd.DataFrame:
    """Returns features by slide: index `slide_id`, one column of numbers per feature; NaN where a cell is missing.

    Args:
        path: A table that `read_text_table` reads, whose `attrs` are kept, or Parquet, with a column `slide_id`; every
            other column is a feature. Or a file of STAMP with the vectors of several slides.

    Raises:
        DataError: The file cannot be read, a slide occurs twice or has no identifier, a cell is text, or there is no
            feature.
        ConfigurationError: Parquet without a library that reads it.
    """
    if encoder_of_vectors(path) is not None:
        return _read_vectors(path)
    table = _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else read_text_table(path)
    require_columns(table, {"slide_id": "the slide"}, path, optional=table.attrs.get("repeated", ()))
    slides = table.pop("slide_id").astype(str).str.strip()
    _require_distinct(slides, path)
    if table.shape[1] == 0:
        raise DataError(f"{path}: at least one column of a feature is required. Found only slide_id.")
    columns = {str(name): _numbers(table[name], path) for name in table}
    features = pd.DataFrame(columns).set_axis(pd.Index(slides, name="slide_id"), axis="index")
    features.attrs = table.attrs
    return features


def feature_row(table: pd.DataFrame, slide_id: str, path: Path) -> FeatureFile:
    """Returns the features of one slide as a bag of one patch without coordinates, kept as float32.

    Columns may be counts, years or areas, for which float16 is too coarse. The hash of the names of the columns stands
    for the encoder's weights: a cohort with other features, or in another order, is not mistaken for this one.

    Raises:
        DataError: A feature of the slide is missing or infinite.
    """
    values = table.loc[slide_id].to_numpy(np.float32)
    if not np.isfinite(values).all():
        names = table.columns[~np.isfinite(values)]
        raise DataError(
            f"{path}: every feature of {slide_id} must be a finite number. Found none in {preview(names)}. "
            "Fill the cells or leave the slide out."
        )
    return replace(
        without_coordinates(table.attrs.get(_LAYOUT, "feature table"), (1, len(values)), lambda: values),
        encoder=table.attrs.get(_ENCODER, path.stem),
        encoder_sha256=sha256_of_json(list(table.columns)),
        dtype=np.float32,
    )


def _read_vectors(path: Path) -> pd.DataFrame:
    """Reads the vectors of a file of STAMP; a slide is called as its file, without the suffix of one."""
    with opened_hdf5(path) as file:
        vectors = {str(name): _vector(stored_array(file, name, path), path) for name in file}
        encoder = Attributes([file], path).text(_ENCODER)
    slides = pd.Series([slide_id_of(name) for name in vectors])
    _require_distinct(slides, path)
    lengths = {len(vector): name for name, vector in vectors.items()}
    if len(lengths) > 1:
        found = " and ".join(f"{length} numbers for {name}" for length, name in lengths.items())
        raise DataError(f"{path}: vectors of one length are required. Found {found}. Encode the slides again.")
    table = pd.DataFrame(np.stack(list(vectors.values())), index=pd.Index(slides, name="slide_id")).rename(columns=str)
    table.attrs = {_ENCODER: encoder, _LAYOUT: "STAMP"}
    return table


def _vector(array: h5py.Dataset, path: Path) -> Float64[np.ndarray, " feature"]:
    if array.size == 0 or array.size not in array.shape or array.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: {array.name.removeprefix('/')} must be one vector of numbers. Found {array.dtype} {array.shape}. "
            "Encode the slides again."
        )
    return np.asarray(array[()], np.float64).ravel()


def _read_parquet(path: Path) -> pd.DataFrame:
    require_regular_file(path)
    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise ConfigurationError(f"{path}: Parquet needs pyarrow. Run: pip install 'subfuse[parquet]'.") from None
    except Exception as error:  # damaged files lead pyarrow and pandas to errors of any type
        problem = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(
            f"{path}: a complete Parquet file is required. Found: {problem}. Check the path or write the file again."
        ) from error
    return table.reset_index() if "slide_id" in table.index.names else table


def _require_distinct(slides: pd.Series, path: Path) -> None:
    empty = slides.map(is_missing)
    twice = slides[slides.duplicated() & ~empty]
    if empty.any() or len(twice):
        found = (
            f"an empty cell in row {int(np.argmax(empty)) + 2}" if empty.any() else f"twice {preview(twice.unique())}"
        )
        raise DataError(f"{path}: slide_id must be given once per row. Found {found}. Keep one row per slide.")


def _numbers(column: pd.Series, path: Path) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    is_text = numbers.isna() & ~column.fillna("").astype(str).map(is_missing)
    if is_text.any():
        row = int(np.argmax(is_text.to_numpy()))
        raise DataError(
            f"{path}, row {row + 2}: column {column.name!r} must hold numbers, as every column but slide_id is a "
            f"feature. Found {str(column.iloc[row])[:60]!r}."
            + (number_hint(str(column.iloc[row])) or " Correct the cell or remove the column.")
        )
    return numbers
