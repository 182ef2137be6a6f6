"""Where expression and gene sets come from, as the cohort file declares it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer, model_validator

from subfuse.settings import FilePath, PlainByDefault, Section, of_one_format

_LinearUnit = Literal["counts", "rsem", "fpkm", "fpkm_uq", "tpm"]  # rsem: expected or normalised counts
_LogUnit = Literal[  # log2(x + 1), and with _001 log2(x + 0.001)
    "log2_counts", "log2_cpm", "log2_fpkm", "log2_fpkm_001", "log2_fpkm_uq", "log2_tpm", "log2_tpm_001"
]
ExpressionUnit = Literal[_LinearUnit, _LogUnit, "zscore"]
StarUnit = Literal["counts", "tpm", "fpkm", "fpkm_uq"]


class ExpressionSource(Section):
    """What every source of expression may declare."""

    aliases: FilePath | None = None  # previous and approved gene names, in addition to the built-in ones
    standardise: Literal["cohort"] | None = None  # z-scores within the cohort
    exclude: tuple[str, ...] | None = Field(default=None, min_length=1)  # genes that models must not see

    @model_validator(mode="before")
    @classmethod
    def _only_own_keys(cls, value: Any) -> Any:
        return of_one_format(value, cls, _FORMATS)


class MatrixSource(ExpressionSource):
    """A file that holds one matrix of samples and genes."""

    table: FilePath
    sample_sheet: FilePath | None = None  # which sample belongs to which patient
    unit: ExpressionUnit | None = None  # None where the source tells it

    @property
    def place(self) -> Path:
        """The file."""
        return self.table


class PlainMatrix(MatrixSource):
    """A csv or tsv table in either orientation."""

    format: Literal["plain"] = "plain"
    unit: ExpressionUnit
    orientation: Literal["patients_by_genes", "genes_by_patients"] | None = None  # None: by the identifiers
    gene_suffix: str | None = Field(default=None, min_length=1)  # of the genes' columns, in a table with others
    patient_column: str | None = Field(default=None, min_length=1)  # in such a table

    @model_validator(mode="after")
    def _names_patients_beside_genes(self) -> "PlainMatrix":
        if (self.gene_suffix is None) != (self.patient_column is None):
            raise ValueError("`gene_suffix` and `patient_column` go together: columns of genes, and that of patients")
        if self.gene_suffix is not None and self.orientation == "genes_by_patients":
            raise ValueError("`gene_suffix` is of columns, one a gene: remove `orientation`")
        return self


class CbioportalMatrix(MatrixSource):
    """A `data_mrna_seq_*.txt` of cBioPortal."""

    format: Literal["cbioportal"] = "cbioportal"


class XenaMatrix(MatrixSource):
    """A table of UCSC Xena."""

    format: Literal["xena"] = "xena"


class H5adMatrix(MatrixSource):
    """An AnnData file."""

    format: Literal["h5ad"] = "h5ad"
    patient_column: str | None = None  # column of obs; None: obs_names
    layer: str | None = None  # one of `layers`, or `raw` for raw.X; None: X


class FolderSource(ExpressionSource):
    """A folder of files."""

    folder: FilePath

    @property
    def place(self) -> Path:
        """The folder."""
        return self.folder


class GdcStarFolder(FolderSource):
    """STAR files of the GDC portal, searched for in subfolders too."""

    format: Literal["gdc_star"] = "gdc_star"
    unit: StarUnit
    sample_sheet: FilePath | None = None  # which file belongs to which patient
    metadata: FilePath | None = None  # metadata JSON instead of the sample sheet
    manifest: FilePath | None = None  # finds incomplete downloads

    @model_validator(mode="after")
    def _one_listing(self) -> "GdcStarFolder":
        if (self.sample_sheet is None) == (self.metadata is None):
            raise ValueError("format gdc_star takes a `sample_sheet` or a `metadata` JSON of the GDC portal")
        return self


class IvygapFolder(FolderSource):
    """The three tables of the Ivy Glioblastoma Atlas Project."""

    format: Literal["ivygap"] = "ivygap"
    unit: Literal["fpkm"] = "fpkm"


_FORMATS = (PlainMatrix, CbioportalMatrix, XenaMatrix, H5adMatrix, GdcStarFolder, IvygapFolder)


ExpressionSection = Annotated[
    PlainMatrix | CbioportalMatrix | XenaMatrix | H5adMatrix | GdcStarFolder | IvygapFolder,
    Field(discriminator="format"),
    PlainByDefault,
]


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
