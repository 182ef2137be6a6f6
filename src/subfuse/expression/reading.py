"""Reading the expression that a cohort file declares, from whatever source, onto the scale and gene axis of models."""

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.exclusions import exclusion_table, join_exclusions
from subfuse.expression.doubtful_units import doubts_of_unit
from subfuse.expression.gdc.star import read_gdc_star
from subfuse.expression.gene_names import approved_name, gene_aliases, name_genes
from subfuse.expression.h5ad import read_anndata
from subfuse.expression.ivygap import read_ivygap
from subfuse.expression.matrices import read_beside_patients, read_cbioportal, read_plain, read_xena
from subfuse.expression.samples import (
    SampleMatrix,
    choose_samples,
    group_samples,
    not_understood,
    without_primary,
)
from subfuse.expression.source import (
    CbioportalMatrix,
    ExpressionSection,
    GdcStarFolder,
    H5adMatrix,
    IvygapFolder,
    PlainMatrix,
    XenaMatrix,
)
from subfuse.expression.table import ExpressionStandardiser, ExpressionTable
from subfuse.expression.units import (
    COUNTS,
    FINISHED,
    ShareBasis,
    are_sums_of_others,
    check_values,
    remove_log,
    stated_sums,
    sum_per_sample,
    to_model_scale,
)
from subfuse.identifiers import patient_of_barcode, spelt_otherwise
from subfuse.workbooks.sheet import workbook_of

_SUMMARY = re.compile(  # rows of HTSeq, STAR and featureCounts below or above the genes, and of those who add up
    r"(__)?(no_feature|ambiguous|too_low_aqual|not_aligned|alignment_not_unique)|Unassigned_\w+"
    r"|N_(unmapped|multimapping|nofeature|ambiguous)|(grand[ _]?)?(total|sum)([ _]?(reads|counts))?|library[ _]?size",
    re.IGNORECASE,
)
_LOOKED_AT = 64  # samples
_FEW_PATIENTS = 20  # fewer give a poor mean and spread of a cohort


def read_expression(
    section: ExpressionSection,
    *,
    aliases: Mapping[str, str] | None = None,
    keep_genes: Collection[str] = (),
    patients: Collection[str] = (),
) -> ExpressionTable:
    """Returns the expression table that a cohort file declares, on the scale that models take.

    Scale: TPM become log2(TPM + 1); FPKM and FPKM-UQ become TPM first (a sample's values divided by their sum, times a
    million: the factor that separates FPKM-UQ from FPKM cancels); counts become log2(CPM + 1), since gene lengths are
    not known; log2_tpm, log2_cpm and zscore stay. Logarithms of other quantities are taken back first. Sums run over
    all genes of the file; `transform` says how many.

    Samples: primary tumour before others, normal tissue never, frozen before FFPE by the vial of the barcode, then the
    highest total count, then the identifier; IvyGAP's several samples of a tumour are averaged on the scale of models.
    `samples` names those used, `exclusions` the others.

    Genes: approved symbols in place of earlier ones, Ensembl identifiers without version. Of several columns with one
    name that with the highest mean stays. Genes of STAR files: protein-coding ones and `keep_genes`. Names that a
    spreadsheet turned into dates are left out, with a warning.

    Excluded: the genes that `exclude` names, by their approved or earlier symbols. They still count in the sums.

    `standardise: cohort` divides every gene's deviation from the cohort's mean by the cohort's spread, without looking
    at outcomes. It makes cohorts of different laboratories or units comparable where their patients are alike. It
    needs a whole cohort also for prediction, hides real differences between cohorts, and lets test patients' expression
    into the scale; scale `cohort_zscore` keeps such cohorts apart from others.

    Args:
        section: `expression` of the cohort file.
        aliases: Names to approved symbols; None: as the section declares them, see `gene_aliases`.
        keep_genes: Symbols that are kept whatever their type: those of the gene sets.
        patients: Identifiers of the cohort's patients: they tell the orientation of a matrix, and who is part of the
            cohort for `standardise`. Without any, all patients of the table are.

    Raises:
        ConfigurationError: Unit or orientation must be declared; an excluded gene is not in the source.
        DataError: A file that is missing, empty, not a table or of another layout; a value that is not a finite
            number or contradicts the unit; a patient that occurs twice. Names file, row and gene.
    """
    aliases = gene_aliases(section.aliases) if aliases is None else aliases
    excluded = section.exclude or ()
    kept_names = {approved_name(name, aliases) for name in (*keep_genes, *excluded)}
    matrix = _read(section, kept_names, aliases, {patient_of_barcode(patient) for patient in patients})
    table = _on_model_scale(matrix, aliases, excluded)
    return _standardise(table, patients) if section.standardise == "cohort" else table


def _read(
    section: ExpressionSection, keep_genes: set[str], aliases: Mapping[str, str], patients: set[str]
) -> SampleMatrix:
    match section:
        case GdcStarFolder():
            listing = {"sample_sheet": section.sample_sheet, "metadata": section.metadata, "manifest": section.manifest}
            return read_gdc_star(section.folder, unit=section.unit, keep_genes=keep_genes, aliases=aliases, **listing)
        case IvygapFolder():
            return read_ivygap(section.folder)
        case CbioportalMatrix():
            return read_cbioportal(section.table, unit=section.unit, sheet=section.sample_sheet)
        case XenaMatrix():
            return read_xena(section.table, unit=section.unit, sheet=section.sample_sheet)
        case H5adMatrix():
            names = {"layer": section.layer, "patient_column": section.patient_column}
            return read_anndata(section.table, unit=section.unit, sheet=section.sample_sheet, **names)
        case PlainMatrix(gene_suffix=str(suffix), patient_column=str(column)):
            return read_beside_patients(
                section.table, unit=section.unit, suffix=suffix, patient_column=column, sheet=section.sample_sheet
            )
        case PlainMatrix():
            return read_plain(
                section.table,
                unit=section.unit,
                orientation=section.orientation,
                sheet=section.sample_sheet,
                patients=patients,
            )


@dataclass(frozen=True)
class _GeneAxis:
    """The genes of a source under their approved names, and which of its columns can be used."""

    genes: pd.DataFrame  # name, gene_id, gene_type, label, name_in_source (empty unless it is another)
    is_measured: Bool[np.ndarray, " gene"]  # False where no sample has a value
    is_usable: Bool[np.ndarray, " gene"]  # measured, with a name, and not excluded by name
    unmeasured: tuple[str, ...]  # those of a name that is not excluded, as in the source
    exclusions: pd.DataFrame
    warnings: tuple[str, ...]


def _on_model_scale(matrix: SampleMatrix, aliases: Mapping[str, str], excluded: Sequence[str]) -> ExpressionTable:
    """Returns the table of a source: checked values on the models' scale, one row per patient, one column per gene."""
    axis = _name_axis(matrix, aliases, excluded)
    if not axis.is_measured.any():
        raise DataError(
            f"{matrix.path}: at least one value is required. Found only empty cells (samples: {len(matrix.samples)}, "
            f"genes: {len(axis.genes)}). Give the table that has the values."
        )
    values = matrix.values  # changed in place from here on: a large table fits in memory once
    values[:, ~axis.is_measured] = 0
    check_values(values, matrix.unit, _place(matrix), matrix.path)
    doubts = doubts_of_unit(values, matrix.unit, matrix.path, matrix.samples["sample"].tolist())
    doubts += not_understood(matrix.samples.get("type_words", ()), matrix.path)
    remove_log(values, matrix.unit)
    values[:, ~axis.is_measured] = 0  # no share of the sums
    totals = sum_per_sample(values) if matrix.totals is None else matrix.totals
    summed = axis.genes.loc[axis.is_measured, "name"].tolist() if matrix.summed is None else matrix.summed
    basis = _basis(values, matrix, summed)
    transform = to_model_scale(values, matrix.unit, totals, len(summed))
    samples, silent = _drop_silent(matrix, totals)
    if matrix.average:
        used, left_out = group_samples(samples, matrix.path)
    else:
        depth = (
            totals if matrix.unit in COUNTS else np.zeros(len(values))
        )  # others add up to the same, but for rounding
        used, left_out = choose_samples(samples, depth, matrix.path)
    values, per_patient = _one_row_per_patient(values, used)
    columns, repeated = _one_column_per_gene(values, axis, matrix)
    duplicates = exclusion_table(
        ("gene", label, f"{name} occurs again with a higher mean") for label, name in repeated.items()
    )
    kept = axis.genes.iloc[columns]
    described = kept.set_index("name")[["gene_id", "gene_type", "name_in_source"]].rename_axis(index=None)
    n_renamed = int((axis.genes["name_in_source"] != "").sum())
    renamed = {"names": f"{n_renamed} earlier names replaced by approved symbols"} if n_renamed else {}
    return ExpressionTable(
        values=pd.DataFrame(
            values if len(columns) == values.shape[1] else values[:, columns],
            index=pd.Index(per_patient.index, name="patient_id"),
            columns=kept["name"].tolist(),
        ),
        unit=matrix.unit,
        transform=transform,
        source={**matrix.source, **renamed},
        genes=described if bool((described != "").to_numpy().any()) else pd.DataFrame(),
        exclusions=join_exclusions([matrix.exclusions, silent, left_out, axis.exclusions, duplicates]),
        samples=per_patient,
        unmeasured=axis.unmeasured,
        repeated=repeated,
        warnings=(*matrix.warnings, *doubts, *without_primary(used, matrix.path), *axis.warnings),
        basis=basis,
    )


def _basis(values: Float[np.ndarray, "sample gene"], matrix: SampleMatrix, summed: Sequence[str]) -> ShareBasis | None:
    """Returns the genes below the sums that values are shares of; None where the file has a part of them only."""
    if matrix.unit == "zscore":
        return None
    stated = (
        matrix.totals
        if matrix.unit == "tpm" and matrix.totals is not None
        else stated_sums(values[:64], _left(matrix.unit))
    )
    complete = stated is None or bool(np.all(np.abs(stated - 1e6) < 1e4))
    return ShareBasis.of(summed) if complete else None


def _left(unit: str) -> str:
    """Returns the unit that `remove_log` leaves."""
    return unit if unit in FINISHED or not unit.startswith("log2_") else unit.removeprefix("log2_").removesuffix("_001")


def _name_axis(matrix: SampleMatrix, aliases: Mapping[str, str], excluded: Sequence[str]) -> _GeneAxis:
    named = name_genes(matrix.genes["name"].tolist(), aliases)
    genes = matrix.genes.assign(name=named.names, name_in_source=named.earlier)
    unknown = np.flatnonzero(np.isnan(matrix.values[0]))
    measured = np.ones(len(genes), dtype=bool)
    measured[unknown] = ~np.isnan(matrix.values[:, unknown]).all(axis=0)
    counted = matrix.genes["name"].astype(str).map(lambda name: _SUMMARY.fullmatch(name) is not None).to_numpy(bool)
    if not matrix.unit.startswith(("log2_", "zscore")):
        counted |= are_sums_of_others(np.where(counted, 0, matrix.values[:_LOOKED_AT]))
    measured &= ~counted
    mangled = genes["name"].isin(named.mangled).to_numpy()
    nameless = (genes["name"] == "").to_numpy()
    unwanted = genes["name"].isin(_names_to_exclude(excluded, set(named.names), aliases, matrix.path)).to_numpy()
    unmeasured = ~measured & ~nameless & ~unwanted & ~counted
    reasons = [
        (unwanted, "named in expression.exclude"),
        (unmeasured, "no sample has a value"),
        (mangled & measured & ~unwanted, "a date: its symbol was lost to a spreadsheet"),
        (nameless, "no name"),
        (counted & ~unwanted, "no gene: what was counted beside the genes, or their sum"),
    ]
    exclusions = exclusion_table(
        ("gene", str(label), reason) for mask, reason in reasons for label in genes.loc[mask, "label"]
    )
    if named.mangled and workbook_of(matrix.path) is not None:
        lost = [str(label) for label in genes.loc[mangled, "label"]]
        raise DataError(
            f"{matrix.path}: symbols of genes are required. Found dates that the spreadsheet made of them: "
            f"{preview(lost)}. Write the symbols again (SEPTIN1, MARCHF1) into cells formatted as text."
        )
    warning = (
        f"{matrix.path}: a spreadsheet turned {len(named.mangled)} gene(s) into dates: {preview(named.mangled)}. They "
        "are left out. Load the original table, or name them in `expression.aliases`."
    )
    return _GeneAxis(
        genes=genes,
        is_measured=measured,
        is_usable=measured & ~mangled & ~nameless & ~unwanted,
        unmeasured=tuple(matrix.genes.loc[unmeasured, "name"].astype(str)),
        exclusions=exclusions,
        warnings=(warning,) if named.mangled else (),
    )


def _names_to_exclude(
    excluded: Sequence[str], present: Collection[str], aliases: Mapping[str, str], path: Path
) -> set[str]:
    names = {name: name if name in present else approved_name(name, aliases) for name in excluded}
    for name, approved in names.items():
        if approved not in present:
            of_upper = {gene.upper(): gene for gene in present}
            near = [of_upper[gene] for gene in difflib.get_close_matches(name.upper(), of_upper)]
            hint = f"Near: {preview(near)}. " if near else ""
            raise ConfigurationError(
                f"expression.exclude: {name} must be a gene of {path} ({len(present)} names). Found none of that name. "
                f"{hint}Correct or remove it."
            )
    return set(names.values())


def _place(matrix: SampleMatrix) -> Callable[[int, int], str]:
    def words(sample: int, gene: int) -> str:
        name, label = matrix.genes["name"].iloc[gene], str(matrix.genes["label"].iloc[gene])
        return f"{matrix.samples['place'].iloc[sample]}, gene {label if '(row ' in label else name}"

    return words


def _drop_silent(matrix: SampleMatrix, totals: Float[np.ndarray, " sample"]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the samples with any expression (units that are sums), and the others as exclusions."""
    is_silent = np.zeros(len(totals), dtype=bool) if matrix.unit in FINISHED else totals == 0
    if is_silent.all():
        raise DataError(
            f"{matrix.path}: at least one sample with expression is required. Found only zeros (samples: "
            f"{len(totals)}). Give the table that has the values."
        )
    names = matrix.samples.loc[is_silent, "sample"]
    return matrix.samples[~is_silent], exclusion_table(("expression", str(n), "no gene is expressed") for n in names)


def _one_row_per_patient(
    values: Float[np.ndarray, "sample gene"], used: pd.DataFrame
) -> tuple[Float[np.ndarray, "patient gene"], pd.DataFrame]:
    """Returns the values of each patient, averaged over its used samples; and which samples these are."""
    groups = used.assign(row=used.index).groupby("patient_id", sort=True).agg({"sample": list, "row": list})
    samples = pd.DataFrame(
        {"samples": [";".join(names) for names in groups["sample"]], "n_samples": groups["sample"].map(len)},
        index=groups.index,
    )
    rows = [row for several in groups["row"] for row in several]
    if len(rows) > len(groups):
        return np.stack([values[several].mean(axis=0, dtype=np.float64) for several in groups["row"]]).astype(
            np.float32
        ), samples
    return (values if rows == list(range(len(values))) else values[rows]), samples


def _one_column_per_gene(
    values: Float[np.ndarray, "patient gene"], axis: _GeneAxis, matrix: SampleMatrix
) -> tuple[list[int], dict[str, str]]:
    """Returns the columns to keep in their order, of every name that with the highest mean; and the others' names."""
    usable = axis.genes[axis.is_usable]
    if usable.empty:
        raise DataError(f"{matrix.path}: at least one gene with a name and values is required. Found none.")
    several = usable[usable["name"].duplicated(keep=False)]
    if matrix.unit == "zscore" and len(several):
        raise DataError(
            f"{matrix.path}: gene symbols must be unique for z-scores. Found {several['name'].iloc[0]} twice: "
            f"{preview(several.loc[several['name'] == several['name'].iloc[0], 'label'])}. Keep one column."
        )
    means = values[:, several.index].mean(axis=0, dtype=np.float64)
    ordered = several.assign(mean=means).sort_values(["mean", "label"], ascending=[False, True], kind="stable")
    losers = ordered[ordered["name"].duplicated()].sort_index()
    repeated = dict(zip(losers["label"].astype(str), losers["name"].astype(str), strict=True))
    return usable.index.difference(losers.index).tolist(), repeated


def _standardise(table: ExpressionTable, patients: Collection[str]) -> ExpressionTable:
    """Returns a table whose genes have mean 0 and spread 1 among the cohort's patients."""
    wanted = {patient_of_barcode(patient) for patient in patients}
    values = table.values[table.values.index.isin(wanted)] if wanted else table.values
    if len(values) < 2:
        raise DataError(
            f"`standardise: cohort` of expression requires at least two patients. Found {len(values)} of the cohort in "
            f"{preview(table.source.values(), limit=1)}."
        )
    fitted = ExpressionStandardiser.fit(values.to_numpy(), tuple(values.columns))
    few = f"standardise: cohort: mean and spread of only {len(values)} patients; {_FEW_PATIENTS} are advised."
    like = spelt_otherwise(table.values.index, wanted)
    left_out = exclusion_table(
        ("expression", str(patient), f"its patient is not in the cohort{like.get(patient, '')}")
        for patient in table.values.index.difference(values.index)
    )
    return replace(
        table,
        values=pd.DataFrame(fitted.transform(values.to_numpy()), index=values.index, columns=values.columns),
        transform=f"{table.transform}; z-scores over {len(values)} patients of the cohort",
        exclusions=join_exclusions([table.exclusions, left_out]),
        warnings=(*table.warnings, *((few,) if len(values) < _FEW_PATIENTS else ())),
        standardised=True,
        basis=None,
    )
