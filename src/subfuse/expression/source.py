"""Where expression and gene sets come from, as the cohort file declares it."""

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    model_serializer,
    model_validator,
)

from subfuse.settings import FilePath, Section

LinearUnit = Literal["counts", "rsem", "fpkm", "fpkm_uq", "tpm"]  # rsem: expected or normalised counts
LogUnit = Literal[  # log2(x + 1), and with _001 log2(x + 0.001)
    "log2_counts", "log2_cpm", "log2_fpkm", "log2_fpkm_001", "log2_fpkm_uq", "log2_tpm", "log2_tpm_001"
]
ExpressionUnit = Literal[LinearUnit, LogUnit, "zscore"]


_FORMAT_OF_KEY = {
    "metadata": "gdc_star",
    "manifest": "gdc_star",
    "patient_column": "h5ad",
    "layer": "h5ad",
    "orientation": "plain",
}


class ExpressionSection(Section):
    """Expression: one matrix, or a folder of GDC STAR files or of IvyGAP's tables."""

    table: FilePath | None = None  # a matrix: plain, cbioportal, xena, h5ad
    folder: FilePath | None = None  # gdc_star: searched with its subfolders; ivygap: the three tables
    format: Literal["plain", "gdc_star", "cbioportal", "xena", "h5ad", "ivygap"] = "plain"
    unit: ExpressionUnit | None = None  # None where the source tells it
    orientation: Literal["patients_by_genes", "genes_by_patients"] | None = None  # plain; None: by the identifiers
    sample_sheet: FilePath | None = None  # which sample or GDC file belongs to which patient
    metadata: FilePath | None = None  # gdc_star: metadata JSON instead of the sample sheet
    manifest: FilePath | None = None  # gdc_star: finds incomplete downloads
    patient_column: str | None = None  # h5ad: column of obs; None: obs_names
    layer: str | None = None  # h5ad: one of `layers`, or `raw` for raw.X; None: X
    aliases: FilePath | None = None  # previous and approved gene names, in addition to the built-in ones
    standardise: Literal["cohort"] | None = None  # z-scores within the cohort
    exclude: tuple[str, ...] | None = Field(default=None, min_length=1)  # genes that models must not see

    @model_validator(mode="after")
    def _one_layout(self) -> "ExpressionSection":
        holds_folder = self.format in ("gdc_star", "ivygap")
        wanted, other = ("folder", "table") if holds_folder else ("table", "folder")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            formats = "gdc_star and ivygap take a `folder`, the others a `table`"
            raise ValueError(f"format {self.format} takes a `{wanted}`, not a `{other}`; {formats}")
        if self.format == "gdc_star" and (self.sample_sheet is None) == (self.metadata is None):
            raise ValueError("format gdc_star takes a `sample_sheet` or a `metadata` JSON of the GDC portal")
        if self.format == "ivygap" and self.sample_sheet is not None:
            raise ValueError("format ivygap has its own columns-samples.csv; it takes no `sample_sheet`")
        for name, format in _FORMAT_OF_KEY.items():
            if getattr(self, name) is not None and self.format != format:
                raise ValueError(f"`{name}` belongs to format {format}")
        return self

    @model_validator(mode="after")
    def _known_unit(self) -> "ExpressionSection":
        if self.unit is None and self.format in ("plain", "gdc_star"):
            raise ValueError(f"format {self.format} requires a `unit`")
        if self.format == "gdc_star" and self.unit not in ("counts", "fpkm", "fpkm_uq", "tpm"):
            raise ValueError("format gdc_star holds the units counts, fpkm, fpkm_uq and tpm")
        if self.format == "ivygap" and self.unit not in (None, "fpkm"):
            raise ValueError("format ivygap holds the unit fpkm")
        return self


class GeneSetSource(Section):
    """Where a subspace's genes come from: `builtin`, a GMT file, or some sets of either."""

    gmt: FilePath | None = None  # None: the built-in sets of this subspace
    sets: tuple[str, ...] | None = Field(default=None, min_length=1)  # None: all sets of the file

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            value = {"gmt": value}
        if isinstance(value, dict) and value.get("gmt") == "builtin":
            value = {**value, "gmt": None}
        return value

    @model_serializer
    def _to_text(self) -> Any:
        gmt = "builtin" if self.gmt is None else str(self.gmt)
        return gmt if self.sets is None else {"gmt": gmt, "sets": list(self.sets)}
