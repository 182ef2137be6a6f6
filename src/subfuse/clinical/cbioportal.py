"""Clinical files of a cBioPortal study: attributes of patients, and of their samples where there is such a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.clinical.columns import first_known, known_text, labels_of_portal, map_columns, parse_days
from subfuse.errors import DataError, preview
from subfuse.exclusions import exclusion_table
from subfuse.expression.samples import NORMAL, choose_samples, origin_of_sample, preservation_of
from subfuse.tables import is_missing, read_text_table, require_columns

_CBIOPORTAL_LABELS = {
    "grade": ("GRADE", "TUMOR_GRADE", "HISTOLOGICAL_GRADE"),
    "diagnosis": ("CANCER_TYPE_DETAILED", "HISTOLOGICAL_DIAGNOSIS", "HISTOLOGY"),
    "age": ("AGE", "DIAGNOSIS_AGE"),
    "gender": ("SEX", "GENDER"),
}
_EVENTS = {"deceased": True, "dead": True, "living": False, "alive": False}  # after a leading `1:` or `0:`
_PLACE = "#place"  # among attributes, none of which begins in this way


def read_cbioportal(
    paths: Sequence[Path], columns: Mapping[str, str] | None = None, *, derives_diagnosis: bool = False
) -> tuple[pd.DataFrame, tuple[str, ...], pd.DataFrame]:
    """Returns one row per patient, with `place`; notes; and the samples that do not speak for their patient.

    A file with a column SAMPLE_ID describes samples. Its attributes join the patients, by the rule for samples of
    expression (`choose_samples`): normal tissue never, the primary tumour before others. The others give
    the values that the first lacks. OS_MONTHS × 30.4375 are days.

    Raises:
        ConfigurationError: A mapped attribute is missing, or one that the format defines.
        DataError: Not a clinical file of cBioPortal, an unknown word in OS_STATUS, or a time that cannot be read.
    """
    tables = [_read(path) for path in paths]
    samples, notes, left_out = _one_row_per_patient([table for table in tables if "SAMPLE_ID" in table], paths)
    patients = [table for table in tables if "SAMPLE_ID" not in table]
    raw = pd.concat(patients, ignore_index=True) if patients else samples
    if patients and not samples.empty:
        own = [name for name in samples if name == "PATIENT_ID" or name not in raw]
        strangers = sorted(set(samples["PATIENT_ID"]) - set(raw["PATIENT_ID"]))
        if strangers:
            notes = (*notes, f"{len(strangers)} patient(s) are only in the file of samples ({preview(strangers)})")
        raw = raw.merge(samples[own], on="PATIENT_ID", how="left")
    raw = raw.fillna("")
    labels = labels_of_portal(
        "cbioportal", _CBIOPORTAL_LABELS, [str(name) for name in raw], columns, derives_diagnosis=derives_diagnosis
    )
    named = {"patient_id": "PATIENT_ID", "place": _PLACE, **labels}
    table = map_columns(raw, named, paths[0], section="patients")
    if "OS_STATUS" not in raw or "OS_MONTHS" not in raw:
        return table, (*notes, "no OS_STATUS and OS_MONTHS: the follow-up of every patient is unknown"), left_out
    table["event"] = _events(raw["OS_STATUS"], raw[_PLACE])
    table["time_days"] = parse_days(raw["OS_MONTHS"], raw[_PLACE], "OS_MONTHS", unit="months")
    return table, notes, left_out


def _read(path: Path) -> pd.DataFrame:
    table = read_text_table(path, comment="#")
    require_columns(table, {"PATIENT_ID": "the patient, in clinical files of cBioPortal"}, path)
    table[_PLACE] = [f"{path}, row {row + 1} after the header" for row in range(len(table))]
    return table


def _one_row_per_patient(
    tables: Sequence[pd.DataFrame], paths: Sequence[Path]
) -> tuple[pd.DataFrame, tuple[str, ...], pd.DataFrame]:
    if all(table.empty for table in tables):
        return pd.DataFrame({"PATIENT_ID": [], _PLACE: []}, dtype=object), (), exclusion_table()
    samples = pd.concat(tables, ignore_index=True).fillna("")
    names = [str(name) for name in samples if name != "SAMPLE_ID"]
    origins = [
        origin_of_sample(
            row["SAMPLE_ID"], row["PATIENT_ID"], words=row.get("SAMPLE_TYPE", ""), preservation=preservation_of(row)
        )
        for row in samples.to_dict("records")
    ]
    samples = samples.assign(sample=samples["SAMPLE_ID"]).join(pd.DataFrame(origins, index=samples.index))
    _, left_out = choose_samples(samples, np.zeros(len(samples)), preview(paths))
    tumours = samples[samples["rank"] != NORMAL].sort_values(["rank", "vial", "sample"], kind="stable")
    known = tumours.assign(**{name: known_text(tumours[name]) for name in names})
    several = int((known["patient_id"].value_counts() > 1).sum())
    table, _ = first_known(known, names, "samples")
    note = f"{several} patient(s) have several samples; the primary tumour's attributes come first"
    return table.reset_index(drop=True), (note,) if several else (), left_out.assign(level="sample")


def _events(cells: pd.Series, places: pd.Series) -> pd.Series:
    known = cells[~cells.map(is_missing)]
    words = known.str.lower().str.replace(r"^[01]:", "", regex=True)
    unclear = ~words.isin(list(_EVENTS))
    is_event = words.map(lambda word: _EVENTS.get(word, False)).astype(bool)
    bad = unclear | (known.str.match("[01]:") & (known.str.startswith("1:") != is_event))
    if bad.any():
        row = bad.idxmax()
        raise DataError(
            f"{places[row]}: OS_STATUS must be 1:DECEASED, DECEASED, 0:LIVING or LIVING. Found "
            f"{preview(sorted(known[bad].unique()))}. Correct or empty the cells."
        )
    return is_event.reindex(cells.index).astype("boolean")
