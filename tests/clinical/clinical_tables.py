"""A plain table of patients, written and read."""

from pathlib import Path

from clinical_sections import patients_section
from subfuse.clinical.reading import read_clinical


def plain(tmp_path: Path, text: str, **section):
    path = tmp_path / "patients.csv"
    path.write_text(text, encoding="utf-8")
    return read_clinical(patients_section(table=path, **section))
