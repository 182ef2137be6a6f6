"""A cohort in one workbook gives what its tables give as CSV, and each sheet counts as a table of its own."""

import datetime
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from subfuse.audit.any_origin.prediction_files import read_prediction_files
from subfuse.cli import main
from subfuse.cohort.cohort import read_cohort
from subfuse.errors import ConfigurationError
from workbook_files import write_ods, write_xlsx

pytestmark = pytest.mark.walk

PATIENTS = [f"{i:04}" for i in range(1, 25)]
GENES = ["EGFR", "CD44", "TP53", "CD163", "GFAP"]
WRITERS = {"xlsx": write_xlsx, "ods": write_ods}


def _tables() -> dict[str, list[list]]:
    """Sheets of a cohort; identifiers have leading zeros."""
    random = np.random.default_rng(0)
    return {
        "Patients 2024": [
            ["id", "time_days", "event", "age"],
            *([p, i * 30 + 60, i % 3 > 0, 40.5 + i] for i, p in enumerate(PATIENTS)),
        ],
        "Markers": [["id", "idh"], *([p, "WT" if i % 2 else "Mutant"] for i, p in enumerate(PATIENTS))],
        "RNA": [["gene", *PATIENTS], *([gene, *random.gamma(2, 20, len(PATIENTS)).tolist()] for gene in GENES)],
        "Images": [["slide_id", "a", "b"], *([f"{p}-A", *random.normal(size=2).tolist()] for p in PATIENTS)],
        "Names": [["previous", "approved"], ["OLD1", "EGFR"]],
    }


def _cohort_file(folder: Path, place: dict[str, str]) -> Path:
    content = {
        "name": "small",
        "patients": {
            "table": place["Patients 2024"],
            "columns": {"patient_id": "id", "time_days": "time_days", "event": "event", "age": "age"},
            "labels": {"table": place["Markers"], "columns": {"patient_id": "id", "idh": "idh"}},
        },
        "expression": {"table": place["RNA"], "unit": "tpm", "aliases": place["Names"]},
        "slides": {"feature_table": place["Images"]},
        "tasks": {"survival": {"time": "time_days", "event": "event"}, "idh": {"column": "idh"}},
        "covariates": ["age"],
        "splits": {"folds": 2},
    }
    path = folder / f"{Path(place['RNA']).suffix[1:4]}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module", params=WRITERS)
def folders(request, tmp_path_factory) -> tuple[Path, Path, Path]:
    """Folder of the sources, and what is prepared from the workbook and from CSV."""
    folder, tables = tmp_path_factory.mktemp("cohort"), _tables()
    name = f"cohort.{request.param}"
    WRITERS[request.param](folder / name, tables)
    for sheet, (header, *rows) in tables.items():
        pd.DataFrame(rows, columns=header).to_csv(folder / f"{sheet}.csv", index=False)
    prepared = []
    for kind, place in (("sheets", f"{name}#{{}}"), ("csv", "{}.csv")):
        file = _cohort_file(folder, {sheet: place.format(sheet) for sheet in tables})
        assert main(["check", str(file)]) == 0
        assert main(["prepare", str(file), "--out", str(folder / kind)]) == 0
        prepared.append(folder / kind)
    return folder, *prepared


def test_sheets_give_what_tables_give(folders):
    _, sheets, csv = folders
    for table in ("patients.csv", "exclusions.csv", "splits/fold_0.csv"):
        if (csv / table).exists():
            assert (sheets / table).read_text() == (csv / table).read_text(), table
    of_sheets, of_csv = read_cohort(sheets), read_cohort(csv)
    assert [p.patient_id for p in of_sheets] == PATIENTS
    assert of_sheets.gene_aliases == of_csv.gene_aliases == {"OLD1": "EGFR"}
    for one, other in zip(of_sheets, of_csv, strict=True):
        np.testing.assert_array_equal(one.expression, other.expression)
        assert (one.columns, one.time_days, one.event) == (other.columns, other.time_days, other.event)
        assert len(one.slides) == len(other.slides) == 1


def test_another_sheet_is_another_input(folders, tmp_path):
    folder = folders[0]
    (name,) = [path.name for path in folder.glob("cohort.*") if path.suffix in (".xlsx", ".ods")]
    tables = _tables()
    tables["RNA 2"] = [
        tables["RNA"][0],
        *([gene, *(2 * np.asarray(values)).tolist()] for gene, *values in tables["RNA"][1:]),
    ]
    WRITERS[Path(name).suffix[1:]](tmp_path / name, tables)
    told = []
    for sheet in ("RNA", "RNA 2"):
        place = {each: f"{name}#{each}" for each in tables}
        file = _cohort_file(tmp_path, place | {"RNA": place[sheet]})
        assert main(["prepare", str(file), "--out", str(tmp_path / "prepared")]) == 0
        told.append(json.loads((tmp_path / "prepared" / "provenance.json").read_text()))
        assert (tmp_path / f"{name}#{sheet}").as_posix() in told[-1]["table_sha256"]
    assert told[0]["cohort_sha256"] != told[1]["cohort_sha256"]
    assert read_cohort(tmp_path / "prepared").patients  # its marks agree with what was written


@pytest.mark.parametrize("cell", [datetime.date(2026, 3, 1), "1-Mar"])
def test_genes_that_became_dates_are_refused_by_name(folders, tmp_path, capsys, cell):
    tables = _tables()
    tables["RNA"][2][0] = cell
    write_xlsx(tmp_path / "c.xlsx", tables)
    assert main(["check", str(_cohort_file(tmp_path, {sheet: f"c.xlsx#{sheet}" for sheet in tables}))]) == 3
    said = capsys.readouterr().err
    shown = cell if isinstance(cell, str) else cell.isoformat()
    assert (
        f"c.xlsx#RNA: symbols of genes are required. Found dates that the spreadsheet made of them: {shown} (row 3)"
        in said
    )


def test_a_cell_that_cannot_be_used_is_named_with_its_row(tmp_path, capsys):
    tables = _tables()
    for sheet, row, column, cell, said in (
        ("Patients 2024", 3, 1, datetime.date(2020, 1, 2), r"c.xlsx#Patients 2024, row 4"),
        ("RNA", 2, 3, "12,5", "c.xlsx#RNA, row 3 (CD44), column 0003: a number is required. Found '12,5'"),
        ("Images", 5, 1, "high", "c.xlsx#Images, row 6: column 'a' must hold numbers"),
    ):
        changed = {name: [list(each) for each in rows] for name, rows in tables.items()}
        changed[sheet][row][column] = cell
        write_xlsx(tmp_path / "c.xlsx", changed)
        assert main(["check", str(_cohort_file(tmp_path, {name: f"c.xlsx#{name}" for name in tables}))]) == 3
        assert said in capsys.readouterr().err


def test_an_absent_workbook_is_named(folders, tmp_path, capsys):
    place = {sheet: f"c.xlsx#{sheet}" for sheet in _tables()}
    assert main(["check", str(_cohort_file(tmp_path, place))]) == 3
    assert "c.xlsx#Names: a readable table is required. Found: No such file" in capsys.readouterr().err


def test_predictions_of_several_models_may_be_sheets_of_one_workbook(tmp_path):
    random = np.random.default_rng(1)
    header = ["patient_id", "fold", "time_days", "event", "risk"]
    people = [[p, i % 2, 30 + 7 * i, i % 3 > 0] for i, p in enumerate(PATIENTS)]
    models = {name: [[*row, float(random.normal())] for row in people] for name in ("ours", "theirs")}
    path = write_xlsx(tmp_path / "models.xlsx", {name: [header, *rows] for name, rows in models.items()})
    named = [tmp_path / f"models.xlsx#{name}" for name in models]
    found = read_prediction_files(named).predictions
    for name, rows in models.items():
        pd.DataFrame(rows, columns=header).to_csv(tmp_path / f"{name}.csv", index=False)
    expected = read_prediction_files([tmp_path / f"{name}.csv" for name in models]).predictions
    assert sorted(found["risk"]) == sorted(expected["risk"])
    assert set(found["patient_id"]) == set(PATIENTS)
    assert set(found["model"]) == {"ours", "theirs"}
    with pytest.raises(ConfigurationError, match=r"every file must be given once"):
        read_prediction_files([named[0], named[0]])
    shutil.copy(path, tmp_path / "again.xlsx")
    with pytest.raises(ConfigurationError, match=r"every file must be given once"):
        read_prediction_files([named[0], tmp_path / "again.xlsx#ours"])
