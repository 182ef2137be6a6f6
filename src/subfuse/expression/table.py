"""Expression tables: one unit, one named gene axis, one row per patient; and the standardiser of training patients."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32

from subfuse.bounded_files import require_regular_file
from subfuse.errors import DataError, preview
from subfuse.exclusions import exclusion_table
from subfuse.expression.units import MODEL_SCALE, ShareBasis
from subfuse.files import atomic_path
from subfuse.hdf5_heaps import require_sound_heaps

COHORT_SCALE = "cohort_zscore"  # of values that were standardised within their cohort
FAR = 3.0  # standard deviations of training; of ordinary patients the typical gene lies below 1.5, whatever the cohort


@dataclass(frozen=True)
class ExpressionTable:
    """Expression of a cohort: patients × genes, float32, without missing values."""

    values: pd.DataFrame  # index: patient_id, sorted; columns: gene symbols, unique
    unit: str  # as declared in the cohort file, or as the source tells
    transform: str  # from the unit to `values`, in words: log2(TPM + 1), ...
    source: Mapping[str, str]  # file or folder, and how samples were chosen
    genes: pd.DataFrame = field(default_factory=pd.DataFrame)  # where known: gene_id, gene_type, name_in_source
    exclusions: pd.DataFrame = field(default_factory=exclusion_table)  # level, id, reason
    samples: pd.DataFrame = field(default_factory=pd.DataFrame)  # per patient: samples (joined by ;), n_samples
    unmeasured: tuple[str, ...] = ()  # genes without a value in any sample, by their names in the source
    repeated: Mapping[str, str] = field(default_factory=dict)  # column that is left out -> its gene
    warnings: tuple[str, ...] = ()  # what is doubtful about the source
    standardised: bool = False  # True: z-scores within the cohort
    basis: ShareBasis | None = None  # genes below the sums of shares; None: no shares, or a part of unknown genes

    @property
    def scale(self) -> str:
        """Scale of `values`, by which cohorts are comparable: log2_tpm, log2_cpm, zscore or cohort_zscore."""
        return COHORT_SCALE if self.standardised else MODEL_SCALE[self.unit]

    @property
    def names_in_source(self) -> dict[str, str]:
        """Genes that the source has under another name: approved symbol to the earlier symbol or Ensembl identifier."""
        if "name_in_source" not in self.genes:
            return {}
        names = self.genes["name_in_source"].astype(str)
        return {str(gene): name for gene, name in names[names != ""].items()}


@dataclass(frozen=True)
class ExpressionStandardiser:
    """Mean and scale of every gene over training patients: fitted once, stored with the weights."""

    genes: tuple[str, ...]
    mean: Float[np.ndarray, " gene"]
    scale: Float[np.ndarray, " gene"]  # standard deviation; 1 where a gene is constant

    @classmethod
    def fit(cls, values: Float[np.ndarray, "patient gene"], genes: Sequence[str]) -> "ExpressionStandardiser":
        """Fits mean and standard deviation (divided by n) per gene, computed in float64, kept in float32.

        NaN is an unknown value (of a covariate) and is ignored. A gene counts as constant when its spread is within
        float32 rounding of its mean: it then becomes 0 everywhere instead of amplified noise.

        Raises:
            ValueError: No patient, an infinite value, or another number of genes.
            DataError: A gene or covariate that is unknown for every patient: nothing could be learned of it.
        """
        if values.shape[0] == 0 or values.shape[1] != len(genes) or np.isinf(values).any():
            raise ValueError(
                f"values must be finite or NaN, with at least one patient and {len(genes)} genes. Found shape "
                f"{values.shape} with {np.count_nonzero(np.isinf(values))} values that are not finite."
            )
        unknown = [gene for gene, known in zip(genes, ~np.isnan(values).all(axis=0), strict=True) if not known]
        if unknown:
            raise DataError(
                f"{preview(unknown)} must be known for at least one training patient. Found none among "
                f"{values.shape[0]}. Use fewer folds, or remove it from `covariates` of the cohort file."
            )
        mean = np.asarray(np.nanmean(values, axis=0, dtype=np.float64))
        scale = np.asarray(np.nanstd(values, axis=0, dtype=np.float64))
        constant = scale <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        scale[constant] = 1.0
        return cls(tuple(genes), mean.astype(np.float32), scale.astype(np.float32))

    def transform(self, values: Float[np.ndarray, "*batch gene"]) -> Float[np.ndarray, "*batch gene"]:
        """Returns (values - mean) / scale in float32, for genes in the order of `genes`; 0, the mean, where unknown.

        Raises:
            ValueError: Another number of genes.
        """
        if values.shape[-1] != len(self.genes):
            raise ValueError(f"values must have {len(self.genes)} genes. Found {values.shape[-1]}.")
        standard = ((values.astype(np.float32) - self.mean) / self.scale).astype(np.float32)
        return np.where(np.isnan(standard), np.float32(0), standard)

    def far_genes(self, values: Float[np.ndarray, " gene"]) -> tuple[float, float]:
        """Returns the shares of one patient's genes that lie more than `FAR` spreads above and below their mean.

        Where both together exceed one half, another unit than that of training is likely: half of the genes of a
        profile do not leave their range at once.
        """
        distance = (values - self.mean) / self.scale
        return float(np.mean(distance > FAR)), float(np.mean(distance < -FAR))


def to_anndata(table: ExpressionTable) -> Any:
    """Returns a table as AnnData: patients × genes, unit, scale, transform and source in `uns`."""
    import anndata

    var = table.genes.reindex(table.values.columns) if len(table.genes) else pd.DataFrame(index=table.values.columns)
    obs = table.samples.reindex(table.values.index) if len(table.samples) else pd.DataFrame(index=table.values.index)
    return anndata.AnnData(
        X=table.values.to_numpy(dtype=np.float32),
        obs=obs.astype(object)
        .where(obs.notna(), "")
        .astype(str)
        .set_axis(table.values.index.astype(str), axis="index"),
        var=var.astype(object).where(var.notna(), "").astype(str),
        uns={
            "unit": table.unit,
            "scale": table.scale,
            "transform": table.transform,
            "source": dict(table.source),
            **({} if table.basis is None else {"basis": asdict(table.basis)}),
        },
    )


def write_expression(path: Path, table: ExpressionTable) -> None:
    """Writes a table as `to_anndata` makes it, atomically."""
    data = to_anndata(table)
    with atomic_path(path) as temporary:
        data.write_h5ad(temporary)


def read_expression_h5ad(path: Path) -> ExpressionTable:
    """Returns a table that `write_expression` wrote. Its values are mapped: processes of one machine share the memory.

    Raises:
        DataError: The file is missing, truncated, or lacks unit, scale and transform.
    """
    import h5py
    from anndata.io import read_elem

    require_regular_file(path, "prepared expression file")
    require_sound_heaps(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            obs, var, uns = (read_elem(file[name]) for name in ("obs", "var", "uns"))
            mapped = _mapped(file["X"], path)
        unit, transform = str(uns["unit"]), str(uns["transform"])
        standardised = str(uns["scale"]) == COHORT_SCALE
        source = {str(key): str(value) for key, value in uns["source"].items()}
        stored = uns.get("basis")
        basis = None if stored is None else ShareBasis(int(stored["n_genes"]), str(stored["sha256"]))
        values = pd.DataFrame(mapped, pd.Index(obs.index, name="patient_id"), var.index, copy=False)
    except Exception as error:  # whatever HDF5, AnnData or a plugin of theirs raises on a damaged file
        problem = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{path}: a prepared expression file is required. Found: {problem}. Run `subfuse prepare` again."
        ) from error
    return ExpressionTable(
        values,
        unit,
        transform,
        source,
        genes=var,
        samples=obs,
        standardised=standardised,
        basis=basis,
    )


def _mapped(dataset: Any, path: Path) -> Float32[np.ndarray, "patient gene"]:
    """Returns an array of a file as memory that is read when it is used; changes to it stay in this process."""
    place = dataset.id.get_offset()
    if place is None or dataset.size == 0:  # in chunks, or nothing
        return dataset[()].astype(np.float32)
    return np.memmap(path, dataset.dtype, "c", place, dataset.shape).view(np.ndarray).astype(np.float32, copy=False)
