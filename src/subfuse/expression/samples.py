"""Samples of an expression source: which patient they belong to, and which of several speak for the patient."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.errors import DataError, counted, preview
from subfuse.exclusions import example_of, exclusion_table
from subfuse.identifiers import (
    composed,
    describe_mismatch,
    patient_of_barcode,
    sample_type_of_barcode,
    spelt_otherwise,
    vial_of_barcode,
)
from subfuse.tables import is_missing, read_text_table, require_columns, usual_columns, usual_name

PRIMARY, OTHER_TUMOUR, NORMAL = 0, 1, 2  # ranks of samples: lower ones speak for the patient, normal tissue never
FFPE = 100  # vials of formalin-fixed tissue are numbered from here: behind all frozen ones
_PRESERVATION = ("preservationmethod", "preservation", "isffpe")  # columns, see `usual_name`
TYPE_COLUMNS = ("sample_type", "tissue_type", "tumor_descriptor")  # words for a sample's type, of the GDC and others
_NOT_TUMOUR = ("normal", "control", "kontroll", "non-tumo", "peritumo", "healthy", "adjacent")
_OTHER_TUMOUR = ("recurren", "rezidiv", "relapse", "metasta", "new primary", "xenograft", "cell line", "progress")
_SAYS_NOTHING = re.compile(r"tumou?r|solid|tissue|specimen|not reported|not applicable|unknown|[\s\-'_,;]")


class SampleOrigin(NamedTuple):
    """Which patient a sample belongs to and what speaks for or against it."""

    patient_id: str  # '' if unknown
    rank: int = PRIMARY
    vial: int = 0  # 0 is the first frozen vial, from FFPE on formalin-fixed ones
    type_words: str = ""  # as the source describes it


@dataclass(frozen=True)
class SampleMatrix:
    """Expression as a source holds it: samples × genes in the source's own unit, before any choice."""

    values: Float[np.ndarray, "sample gene"]  # float32; changed in place on the way to the models' scale
    samples: pd.DataFrame  # sample, patient_id, rank, vial, place (words for messages: "row 3"), one row per sample
    genes: pd.DataFrame  # name (symbol or Ensembl identifier), gene_id, gene_type ('' if unknown), label (in reports)
    unit: str
    path: Path  # for messages
    source: Mapping[str, str]
    totals: Float[np.ndarray, " sample"] | None = None  # sums over all genes of the file, where `values` has fewer
    summed: tuple[str, ...] | None = None  # the genes that `totals` run over
    average: bool = False  # True: a patient's samples are averaged; False: one of them is chosen
    exclusions: pd.DataFrame = field(default_factory=exclusion_table)
    warnings: tuple[str, ...] = ()


def rank_of_barcode(sample: str) -> int:
    """Returns the rank of a TCGA sample or aliquot barcode; an unknown type counts as primary.

    Types 1 and 3 are primary tumours, solid or in blood; 10 to 19 are normal tissue and 20 to 29 controls.

    Example:
        >>> rank_of_barcode("TCGA-02-0047-02A"), rank_of_barcode("TCGA-02-0047-11A"), rank_of_barcode("case 7")
        (1, 2, 0)
    """
    code = sample_type_of_barcode(sample)
    if code in (None, 1, 3):
        return PRIMARY
    return NORMAL if 10 <= code < 30 else OTHER_TUMOUR


def rank_of_words(words: str) -> int:
    """Returns the rank of a sample type in words, such as `Recurrent Tumor`; nothing known counts as primary.

    Example:
        >>> rank_of_words("Primary Tumor"), rank_of_words("Solid Tissue Normal"), rank_of_words("Metastasis")
        (0, 2, 1)
        >>> rank_of_words("Not Reported"), rank_of_words("Tumor"), rank_of_words("Additional - New Primary")
        (0, 0, 1)
    """
    lowered = words.lower()
    if any(word in lowered for word in _NOT_TUMOUR):
        return NORMAL
    if is_missing(lowered.strip()) or not _SAYS_NOTHING.sub("", lowered):
        return PRIMARY
    return PRIMARY if "primary" in lowered and "additional" not in lowered else OTHER_TUMOUR


def is_understood(words: str) -> bool:
    """Returns whether a sample's type in words is one that `rank_of_words` knows.

    Example:
        >>> is_understood("Recurrent Tumor"), is_understood("Solid Tissue Normal"), is_understood("Mittelschnitt")
        (True, True, False)
    """
    lowered = words.lower()
    known = rank_of_words(words) in (PRIMARY, NORMAL)
    return known or any(word in lowered for word in _OTHER_TUMOUR)


def not_understood(words: Iterable[str], place: object) -> tuple[str, ...]:
    """Returns a note on the words for types of samples that nothing is known of."""
    unknown = dict.fromkeys(text for text in words if not is_understood(text))
    if not unknown:
        return ()
    return (
        f"{place}: {preview(unknown)} {'are' if len(unknown) > 1 else 'is'} no known type of a sample and taken for "
        "another tumour than the primary one. Write Primary Tumor, Recurrent Tumor, Metastasis or Normal.",
    )


def type_of_sample(record: Mapping[Any, str]) -> str:
    """Returns what a row of `usual_columns` says of its sample's type in words, '' where it says nothing.

    A column `tissue`, which may as well name the organ, counts where it says that there is no tumour.
    """
    told = " ".join(cell for name in TYPE_COLUMNS if not is_missing(cell := str(record.get(name, ""))))
    tissue = str(record.get("tissue", ""))
    return f"{told} {tissue}".strip() if rank_of_words(tissue) == NORMAL else told


def origin_of_sample(
    sample: str, patient: str | None = None, *, words: str = "", preservation: str = ""
) -> SampleOrigin:
    """Returns what barcode and description say of a sample; where they differ, the worse counts.

    Args:
        sample: Its identifier.
        patient: Its patient; None: as the barcode says, or the sample itself.
        words: Its type, such as `Primary Tumor`.
        preservation: How it was kept: `FFPE`, `Frozen`, `OCT`.

    Example:
        >>> origin_of_sample("TCGA-A6-6650-01B-02R-A277-07")
        SampleOrigin(patient_id='TCGA-A6-6650', rank=0, vial=1, type_words='')
    """
    fixed = "ffpe" in preservation.lower() or "formalin" in preservation.lower()
    return SampleOrigin(
        patient_of_barcode(sample if patient is None else patient),
        max(rank_of_barcode(sample), rank_of_words(words)),
        ord(vial_of_barcode(sample) or "A") - ord("A") + (FFPE if fixed else 0),
        words,
    )


def preservation_of(record: Mapping[Any, str]) -> str:
    """Returns what a row of a sample sheet says of its sample's preservation, '' where it says nothing.

    Example:
        >>> preservation_of({"samples.preservation_method": "FFPE"}), preservation_of({"IS_FFPE": "YES"})
        ('FFPE', 'FFPE')
    """
    for name, cell in record.items():
        key = usual_name(str(name))
        if key in _PRESERVATION and not is_missing(cell):
            return ("FFPE" if cell.lower() in ("yes", "true", "1", "y") else "") if key == "isffpe" else cell
    return ""


def read_sample_sheet(path: Path) -> dict[str, SampleOrigin]:
    """Returns where each sample comes from.

    Args:
        path: A table with `sample_id`, `patient_id` and optionally `sample_type` and `preservation_method`, or
            cBioPortal's `data_clinical_sample.txt`, whose first lines start with #.

    Raises:
        DataError: Another table, an empty identifier, or a sample of two patients.
    """
    names = ("sample_id", "patient_id", *TYPE_COLUMNS, "tissue")
    table = usual_columns(read_text_table(path, comment="#"), names, path)
    require_columns(table, {}, path, optional=names)
    if not {"sample_id", "patient_id"} <= set(table):
        raise DataError(f"{path}: the columns sample_id and patient_id are required. Found {preview(table.columns)}.")
    sheet: dict[str, SampleOrigin] = {}
    for record in table.to_dict("records"):
        sample, patient = record["sample_id"], record["patient_id"]
        if is_missing(sample) or is_missing(patient):
            raise DataError(f"{path}: every sample needs an identifier and a patient. Found {sample!r}, {patient!r}.")
        words = type_of_sample(record)
        origin = origin_of_sample(sample, patient, words=words, preservation=preservation_of(record))
        known = sheet.setdefault(composed(sample), origin)
        if known.patient_id != origin.patient_id:
            raise DataError(
                f"{path}: a sample belongs to one patient. Found {sample} of {known.patient_id}, {origin.patient_id}."
            )
    return sheet


def assign_samples(identifiers: list[str], sheet: Path | None) -> pd.DataFrame:
    """Returns sample, patient_id, rank, vial and spelt per identifier; patient_id is '' for samples that a sheet lacks.

    Without a sheet, TCGA barcodes of any length name their patient, and other identifiers are patients themselves.
    `spelt` tells in words of a sample of the sheet that differs in its spelling alone.

    Raises:
        DataError: As `read_sample_sheet`; the sheet has none of the identifiers.
    """
    known = None if sheet is None else read_sample_sheet(sheet)
    if known is None:
        found = [origin_of_sample(identifier) for identifier in identifiers]
    else:
        found = [known.get(composed(identifier), SampleOrigin("")) for identifier in identifiers]
    table = pd.DataFrame(found, columns=list(SampleOrigin._fields))
    table.insert(0, "sample", identifiers)
    if known is None:
        return table.assign(spelt="")
    if not any(composed(identifier) in known for identifier in identifiers):
        raise DataError(
            f"{sheet}: samples of the expression table are required in its sample sheet. Found none of "
            f"{len(identifiers)}. {describe_mismatch(identifiers, {'in the sheet': known}, of_ours='in the table')}. "
            "Give the sheet of these samples, or correct the identifiers."
        )
    like = spelt_otherwise(identifiers, known)
    return table.assign(spelt=[like.get(identifier, "") for identifier in identifiers])


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

    Primary tumour comes before other tumours, normal tissue is never used; then the earliest vial, frozen before FFPE;
    then the largest total count, then the identifier.

    Args:
        samples: sample, patient_id, rank, vial.
        depth: Total count per sample; equal for all where the unit does not tell it.
        path: The source, for messages.

    Raises:
        DataError: There is no tumour sample.
    """
    eligible, reasons = _eligible(samples, path)
    ordered = eligible.assign(depth=depth[eligible.index]).sort_values(
        ["patient_id", "rank", "vial", "depth", "sample"], ascending=[True, True, True, False, True]
    )
    chosen = ordered.drop_duplicates("patient_id")
    best = chosen.set_index("patient_id")[["sample", "rank", "vial", "depth"]].to_dict("index")
    for row in ordered.drop(index=chosen.index).to_dict("records"):
        other = best[row["patient_id"]]
        why = f"{other['sample']} of the same patient is used ({_rule(row, other)})"
        reasons.append(("expression", str(row["sample"]), why))
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


def without_primary(used: pd.DataFrame, path: object) -> tuple[str, ...]:
    """Returns a warning on patients for whom another tumour than the primary one speaks, as they have no other."""
    other = used[used["rank"] == OTHER_TUMOUR].drop_duplicates("patient_id")
    if other.empty:
        return ()
    shown = preview(other["sample"], 3)
    return (
        f"{path}: {counted(len(other), 'patient')} without a primary tumour, whose recurrence or metastasis is used "
        f"({shown}). Remove these samples if they are not meant.",
    )


def _eligible(samples: pd.DataFrame, path: object) -> tuple[pd.DataFrame, list[tuple[str, str, str]]]:
    unknown, normal = samples["patient_id"] == "", samples["rank"] == NORMAL
    unlisted = samples.reindex(columns=["sample", "spelt"], fill_value="")[unknown].itertuples(index=False, name=None)
    reasons = [("expression", str(name), f"not in the sample sheet{spelt}") for name, spelt in unlisted]
    reasons += [("expression", str(name), "normal tissue") for name in samples.loc[normal & ~unknown, "sample"]]
    eligible = samples[~unknown & ~normal]
    if eligible.empty:
        found = f"only normal tissue ({normal.sum()}) and samples outside the sample sheet ({unknown.sum()})"
        example = example_of(exclusion_table(reasons))
        raise DataError(f"{path}: at least one tumour sample is required. Found {found}. {example}")
    return eligible, reasons


def _rule(row: Mapping[Any, Any], best: Mapping[Any, Any]) -> str:
    """Returns in words which rule of `choose_samples` decided between two samples of a patient."""
    if row["rank"] != best["rank"]:
        return "not the primary tumour"
    if row["vial"] != best["vial"]:
        return (
            "frozen tissue comes before FFPE"
            if row["vial"] >= FFPE
            else "the first vial is frozen, later ones are often FFPE"
        )
    return "a lower total" if row["depth"] != best["depth"] else "its identifier comes later"
