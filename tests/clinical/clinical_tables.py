"""A plain table of patients, written and read."""

from pathlib import Path

from subfuse.clinical.reading import read_clinical
from subfuse.clinical.source import PatientsSection


def plain(tmp_path: Path, text: str, **section):
    path = tmp_path / "patients.csv"
    path.write_text(text, encoding="utf-8")
    return read_clinical(PatientsSection(table=path, **section))
