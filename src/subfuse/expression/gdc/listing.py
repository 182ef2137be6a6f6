"""Which file of the GDC belongs to which patient: sample sheets, metadata, manifests, and the files there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from subfuse.errors import DataError
from subfuse.exclusions import exclusion_table
from subfuse.expression.samples import TYPE_COLUMNS, SampleOrigin, origin_of_sample, preservation_of, type_of_sample
from subfuse.identifiers import describe_mismatch, patient_of_barcode, site_of_barcode
from subfuse.tables import read_json, read_text_table, records_below, require_columns, usual_columns

STAR_SUFFIXES = (".augmented_star_gene_counts.tsv", ".augmented_star_gene_counts.tsv.gz")
_SHEET_COLUMNS = {"File Name": "a file", "Case ID": "its patient"}
_MANIFEST_COLUMNS = {"id": "the file's identifier", "filename": "its name", "size": "its bytes"}
_LISTED = ["file_id", "file_name", "sample", *SampleOrigin._fields]


def read_gdc_sheet(path: Path) -> pd.DataFrame:
    """Returns the files of a GDC sample sheet: file_id, file_name, sample, patient_id, rank, vial.

    Raises:
        DataError: Unreadable, or not a sample sheet.
    """
    sheet = usual_columns(read_text_table(path), (*_SHEET_COLUMNS, "File ID", "Sample ID", *TYPE_COLUMNS), path)
    require_columns(sheet, _SHEET_COLUMNS, path, optional=("File ID", "Sample ID", *TYPE_COLUMNS))
    rows = []
    for record in sheet.to_dict("records"):
        sample = record.get("Sample ID", "").split(",")[0].strip()
        patient = record["Case ID"].split(",")[0].strip()
        words, preservation = type_of_sample(record), preservation_of(record)
        origin = origin_of_sample(sample, patient, words=words, preservation=preservation)
        name = record["File Name"]
        rows.append((record.get("File ID", ""), name, sample or name, *origin))
    return pd.DataFrame(rows, columns=_LISTED)


def read_gdc_metadata(path: Path) -> pd.DataFrame:
    """Returns the files of a GDC metadata JSON (`metadata.cart`): file_id, file_name, sample, patient_id, rank, vial.

    The aliquot's barcode names sample and patient; `cases`, where the JSON has them, name those without TCGA barcodes.

    Raises:
        DataError: Unreadable, not such a file, or a file whose patient it does not name.
    """
    rows = []
    for record in _json_records(path):
        place = f"{path}, {record['file_name']}"
        entities, cases = (records_below(record, name, place) for name in ("associated_entities", "cases"))
        case = cases[0] if cases else {}
        aliquot = str(entities[0].get("entity_submitter_id") or "") if entities else ""
        patient = str(case.get("submitter_id") or "") or (
            patient_of_barcode(aliquot) if site_of_barcode(aliquot) else ""
        )
        if not patient:
            raise DataError(
                f"{path}: the patient of {record['file_name']} is required. Found only {aliquot or 'no aliquot'}. "
                "Give the sample sheet of the GDC portal as `sample_sheet` instead."
            )
        samples = records_below(case, "samples", place)
        sample = {name: str(value) for name, value in samples[0].items()} if samples else {}
        words = type_of_sample(sample)
        origin = origin_of_sample(aliquot, patient, words=words, preservation=preservation_of(sample))
        name = record["file_name"]
        rows.append((str(record.get("file_id", "")), name, aliquot or name, *origin))
    return pd.DataFrame(rows, columns=_LISTED)


def present_files(
    folder: Path, listing: pd.DataFrame, place: Path, manifest: Path | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the listed STAR files that are there and whole (with `path`), and those that are not."""
    sizes = {} if manifest is None else _manifest_sizes(manifest)
    if not folder.is_dir():
        raise DataError(f"{folder}: a folder of STAR files is required. Found none. Check expression.folder.")
    found = [file for file in sorted(folder.rglob("*.tsv*")) if file.is_file()]
    by_name = {file.name: file for file in found}
    by_folder = {(file.parent.name, file.name): file for file in found}  # the GDC client makes one folder per file
    rows, missing = [], []
    for record in listing[listing["file_name"].str.endswith(STAR_SUFFIXES)].to_dict("records"):
        name = record["file_name"]
        file = by_folder.get((record["file_id"], name)) or by_name.get(name) or by_name.get(name.removesuffix(".gz"))
        if file is None:
            missing.append(("expression", name, f"listed for {record['patient_id']} but not in {folder.name}/"))
        elif file.name in sizes and file.stat().st_size != sizes[file.name]:
            reason = f"{file.stat().st_size} of {sizes[file.name]} bytes: load the file again"
            missing.append(("expression", name, reason))
        else:
            rows.append({**record, "path": file})
    if not rows:
        raise DataError(
            f"{place}: at least one listed file named *{STAR_SUFFIXES[0]} must be in {folder}. "
            f"Found none; listed: {len(missing)}, in the folder: {len(found)}. {_mismatch(listing, found)}. Give the "
            "folder of these files, or their sheet."
        )
    files = pd.DataFrame(rows)
    shared = files["sample"].duplicated(keep=False)  # sheets name the sample, not the aliquot
    files.loc[shared, "sample"] += " (" + files.loc[shared, "file_name"] + ")"
    return files, exclusion_table(missing)


def _mismatch(listing: pd.DataFrame, found: Sequence[Path]) -> str:
    """Returns which files are listed and which are there, without the end of a name that all have."""
    listed, there = (
        [name.removesuffix(".gz").removesuffix(STAR_SUFFIXES[0]) for name in names]
        for names in (listing["file_name"], [file.name for file in found])
    )
    return describe_mismatch(listed, {"in the folder": there}, of_ours="listed")


def _manifest_sizes(path: Path) -> dict[str, int]:
    manifest = read_text_table(path)
    require_columns(manifest, _MANIFEST_COLUMNS, path)
    bad = ~manifest["size"].str.fullmatch(r"\d+")
    if bad.any():
        raise DataError(f"{path}, row {int(bad.idxmax()) + 2}: size must be a number of bytes. Found "
                        f"{manifest['size'][bad].iloc[0]!r}.")  # fmt: skip
    return dict(zip(manifest["filename"], manifest["size"].astype(int), strict=True))


def _json_records(path: Path) -> list[dict[str, Any]]:
    value = read_json(path)
    records = value if isinstance(value, list) else []
    if not records or not all(isinstance(record, dict) and "file_name" in record for record in records):
        raise DataError(f"{path}: a GDC metadata JSON, a list of files with file_name, is required. Found another one.")
    return records
