"""Samples of an expression source: which patient they belong to, and which of several speak for the patient."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.data.barcodes import patient_of_barcode, sample_type_of_barcode
from subfuse.data.exclusions import exclusion_table
from subfuse.data.tables import read_text_table
from subfuse.errors import DataError, preview

PRIMARY, OTHER_TUMOUR, NORMAL = 0, 1, 2  # ranks of samples: lower ones speak for the patient, normal tissue never
_SHEET_COLUMNS = (("sample_id", "patient_id", "sample_type"), ("SAMPLE_ID", "PATIENT_ID", "SAMPLE_TYPE"))


@dataclass(frozen=True)
class SampleMatrix:
    """Expression as a source holds it: samples × genes in the source's own unit, before any choice."""

    values: Float[np.ndarray, "sample gene"]  # float32; changed in place on the way to the models' scale
    samples: pd.DataFrame  # sample, patient_id, rank, place (words for messages: "row 3 (P7)"), one row per sample
    genes: pd.DataFrame  # name (symbol or Ensembl identifier), gene_id, gene_type ('' if unknown), label (in reports)
    unit: str
    path: Path  # for messages
    source: Mapping[str, str]
    totals: Float[np.ndarray, " sample"] | None = None  # sums over all genes of the file, where `values` has fewer
    n_genes: int | None = None  # number of genes that `totals` run over
    average: bool = False  # True: a patient's samples are averaged; False: one of them is chosen
    exclusions: pd.DataFrame = field(default_factory=exclusion_table)
    warnings: tuple[str, ...] = ()


def rank_of_barcode(sample: str) -> int:
    """Returns the rank of a TCGA sample or aliquot barcode; an unknown type counts as primary.

    Example:
        >>> rank_of_barcode("TCGA-02-0047-02A"), rank_of_barcode("TCGA-02-0047-11A"), rank_of_barcode("case 7")
        (1, 2, 0)
    """
    code = sample_type_of_barcode(sample)
    if code is None or code == 1:
        return PRIMARY
    return NORMAL if 10 <= code < 20 else OTHER_TUMOUR


def rank_of_words(words: str) -> int:
    """Returns the rank of a sample type in words, such as `Recurrent Tumor`; nothing known counts as primary.

    Example:
        >>> rank_of_words("Primary Tumor"), rank_of_words("Solid Tissue Normal"), rank_of_words("Metastasis")
        (0, 2, 1)
    """
    lowered = words.lower()
    if "normal" in lowered:
        return NORMAL
    return PRIMARY if "primary" in lowered or not lowered.strip(" -") else OTHER_TUMOUR


def read_sample_sheet(path: Path) -> dict[str, tuple[str, int]]:
    """Returns sample identifier to patient and rank.

    Args:
        path: A table with `sample_id`, `patient_id` and optionally `sample_type`, or cBioPortal's
            `data_clinical_sample.txt`, whose first lines start with #.

    Raises:
        DataError: Another table, an empty identifier, or a sample of two patients.
    """
    table = read_text_table(path, comment="#")
    columns = next((names for names in _SHEET_COLUMNS if set(names[:2]) <= set(table)), None)
    if columns is None:
        raise DataError(f"{path}: the columns sample_id and patient_id are required. Found {preview(table.columns)}.")
    sheet: dict[str, tuple[str, int]] = {}
    for record in table.to_dict("records"):
        sample, patient = record[columns[0]], patient_of_barcode(record[columns[1]])
        if not sample or not patient:
            raise DataError(f"{path}: every sample needs an identifier and a patient. Found {sample!r}, {patient!r}.")
        words = record.get(columns[2], "")
        rank = rank_of_words(words) if words else rank_of_barcode(sample)
        if sheet.setdefault(sample, (patient, rank))[0] != patient:
            raise DataError(
                f"{path}: a sample belongs to one patient. Found {sample} of {sheet[sample][0]}, {patient}."
            )
    return sheet


def assign_samples(identifiers: list[str], sheet: Mapping[str, tuple[str, int]] | None) -> pd.DataFrame:
    """Returns sample, patient_id and rank per identifier; samples that a given sheet lacks have patient_id ''.

    Without a sheet, TCGA barcodes of any length name their patient, and other identifiers are patients themselves.
    """
    if sheet is None:
        found = [(patient_of_barcode(identifier), rank_of_barcode(identifier)) for identifier in identifiers]
    else:
        found = [sheet.get(identifier, ("", PRIMARY)) for identifier in identifiers]
    table = pd.DataFrame(found, columns=["patient_id", "rank"])
    table.insert(0, "sample", identifiers)
    return table


def refuse_repeated(samples: pd.DataFrame, path: object) -> None:
    """Checks that no sample occurs twice, and no patient both as such and by its samples.

    Raises:
        DataError: Names file and identifiers.
    """
    repeated = samples.loc[samples["sample"].duplicated(), "sample"]
    if len(repeated):
        raise DataError(
            f"{path}: each patient or sample is required once. Found several of {preview(repeated.unique())}. "
            "Keep one, or give sample barcodes."
        )
    whole = set(samples.loc[samples["sample"].str.upper() == samples["patient_id"], "patient_id"])
    parts = samples[(samples["sample"].str.upper() != samples["patient_id"]) & samples["patient_id"].isin(whole)]
    if len(parts):
        first = parts.iloc[0]
        raise DataError(
            f"{path}: barcodes of one length per patient are required. Found {first['patient_id']} and "
            f"{first['sample']} ({parts['patient_id'].nunique()} such patient(s)). Keep the patient or its samples."
        )


def choose_samples(
    samples: pd.DataFrame, depth: Float[np.ndarray, " sample"], path: object
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns one sample per patient, sorted by patient, with its row number as index; and the others with reasons.

    Primary tumour comes before other tumours, normal tissue is never used; then the largest total decides, then the
    identifier.

    Args:
        samples: sample, patient_id, rank.
        depth: Total per sample: counts, or whatever the unit adds up to.
        path: The source, for messages.

    Raises:
        DataError: There is no tumour sample.
    """
    eligible, reasons = _eligible(samples, path)
    ordered = eligible.assign(depth=depth[eligible.index]).sort_values(
        ["patient_id", "rank", "depth", "sample"], ascending=[True, True, False, True]
    )
    chosen = ordered.drop_duplicates("patient_id")
    best = chosen.set_index("patient_id")[["sample", "rank"]].to_dict("index")
    for row in ordered.drop(index=chosen.index).to_dict("records"):
        reasons.append(("expression", str(row["sample"]), _why_not(row, best[row["patient_id"]])))
    return chosen, exclusion_table(reasons)


def group_samples(samples: pd.DataFrame, path: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the samples of every patient that are averaged, sorted by patient; and the others with reasons.

    Only a patient's lowest rank is used: the primary tumour where there is one.

    Raises:
        DataError: There is no tumour sample.
    """
    eligible, reasons = _eligible(samples, path)
    lowest = eligible.groupby("patient_id")["rank"].transform("min")
    used = eligible["rank"] == lowest
    for row in eligible[~used].to_dict("records"):
        reasons.append(("expression", str(row["sample"]), f"an earlier tumour of {row['patient_id']} is used"))
    return eligible[used].sort_values(["patient_id", "sample"]), exclusion_table(reasons)


def _eligible(samples: pd.DataFrame, path: object) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    unknown, normal = samples["patient_id"] == "", samples["rank"] == NORMAL
    reasons = [("expression", str(name), "not in the sample sheet") for name in samples.loc[unknown, "sample"]]
    reasons += [("expression", str(name), "normal tissue") for name in samples.loc[normal & ~unknown, "sample"]]
    eligible = samples[~unknown & ~normal]
    if eligible.empty:
        found = f"only normal tissue ({normal.sum()}) and samples outside the sample sheet ({unknown.sum()})"
        raise DataError(f"{path}: at least one tumour sample is required. Found {found}.")
    return eligible, reasons


def _why_not(row: Mapping[Any, Any], best: Mapping[Any, Any]) -> str:
    rule = "a lower total" if row["rank"] == best["rank"] else "not the primary tumour"
    return f"{best['sample']} of the same patient is used ({rule})"
