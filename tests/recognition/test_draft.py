"""Folders as they are, drafted: `check` takes the draft unedited, or names the one line to fill in."""

import io
import os
import shutil

import pytest
import yaml
from recognised_folders import PATIENTS, STUDY, clinical, job_with_tables, study, tpm

from subfuse.cli import main
from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.preparation.plan import plan_cohort
from subfuse.simulation.cohort import simulate

pytestmark = pytest.mark.walk


def drafted(folder, out, capsys):
    """Returns the draft's text and what `init` printed of it."""
    assert main(["init", str(out), "--from", str(folder)]) == 0
    return (out / "cohort.yaml").read_text(), capsys.readouterr().out


def checked(out, capsys):
    """Returns the exit code of `check` and what it prints of an error."""
    code = main(["check", str(out / "cohort.yaml")])
    return code, capsys.readouterr().err


@pytest.mark.slow
def test_the_raw_folder_of_the_demo_needs_no_edit(tmp_path, capsys):
    simulate(tmp_path / "sim", patients=12)
    text, printed = drafted(tmp_path / "sim", tmp_path / "out", capsys)
    ours = read_cohort_file(tmp_path / "out" / "cohort.yaml")
    given = read_cohort_file(tmp_path / "sim" / "cohort.yaml")
    assert (ours.patients.format, ours.expression.format, ours.name) == ("gdc", "gdc_star", "sim")
    assert "QUESTION" not in text.partition("\n")[2] + printed
    assert set(ours.tasks) == set(given.tasks)
    plan, of_given = plan_cohort(ours), plan_cohort(given)
    assert plan.patients.drop(columns="cohort").equals(of_given.patients.drop(columns="cohort"))
    assert [slide.slide_id for slide in plan.slides] == [slide.slide_id for slide in of_given.slides]
    assert checked(tmp_path / "out", capsys)[0] == 0


@pytest.mark.parametrize("meta", [True, False])
def test_a_study_of_cbioportal_needs_no_edit(tmp_path, capsys, meta):
    text, _ = drafted(study(tmp_path / "study", meta=meta), tmp_path / "out", capsys)
    found = yaml.safe_load(text)
    assert found["name"] == (STUDY if meta else "study")
    assert [name.rpartition("/")[2] for name in found["patients"]["table"]] == [
        "data_clinical_patient.txt",
        "data_clinical_sample.txt",
    ]
    assert found["expression"]["table"].endswith("data_mrna_seq_v2_rsem.txt")
    assert "data_mrna_seq_v2_rsem_zscores_ref_all_samples.txt" in text
    assert "data_cna.txt" in text.partition("not recognised")[2]
    assert set(found["tasks"]) == {"survival", "grade"}
    assert checked(tmp_path / "out", capsys)[0] == 0
    assert len(plan_cohort(read_cohort_file(tmp_path / "out" / "cohort.yaml")).patients) == len(PATIENTS)


def test_a_job_of_trident_with_two_tables_asks_for_the_unit_alone(tmp_path, capsys):
    text, printed = drafted(job_with_tables(tmp_path / "data"), tmp_path / "out", capsys)
    lines = text.splitlines()
    asked = [number for number, line in enumerate(lines, start=1) if "QUESTION:" in line]
    assert len(asked) == 1
    assert "unit: FILL-IN" in lines[asked[0] - 1]
    assert f"line {asked[0]}: unit: FILL-IN" in printed
    assert "24 slides, TRIDENT, encoder uni_v1" in text
    code, error = checked(tmp_path / "out", capsys)
    assert code == 2
    assert f"line {asked[0]}: `expression.unit`" in error
    assert "more problem" not in error
    (tmp_path / "out" / "cohort.yaml").write_text(text.replace("FILL-IN", "tpm"))
    assert checked(tmp_path / "out", capsys)[0] == 0
    plan = plan_cohort(read_cohort_file(tmp_path / "out" / "cohort.yaml"))
    assert (len(plan.slides), len(plan.patients), list(plan.tasks)) == (24, 24, ["survival", "grade"])


def test_tables_in_the_job_folder_itself_are_those_of_its_patients(tmp_path, capsys):
    data = job_with_tables(tmp_path / "data")
    for name in ("clinical.csv", "expression.csv"):
        shutil.move(data / name, data / "job" / name)
    text, _ = drafted(data / "job", data / "job", capsys)
    found = yaml.safe_load(text)
    assert (found["slides"]["features"], found["patients"]["table"]) == (".", "clinical.csv")
    (data / "job" / "cohort.yaml").write_text(text.replace("FILL-IN", "tpm"))
    assert checked(data / "job", capsys)[0] == 0


@pytest.mark.parametrize(
    ("diagnosis", "reason"),
    [(["Glioblastoma"] * 24, "Found Glioblastoma."), ([f"text {i}" for i in range(24)], "Found 24 different values")],
)
def test_a_diagnosis_that_nothing_can_learn_is_a_comment_with_its_reason(tmp_path, capsys, diagnosis, reason):
    data = job_with_tables(tmp_path / "data")
    clinical(diagnosis=diagnosis).to_csv(data / "clinical.csv", index=False)
    text, _ = drafted(data, tmp_path / "out", capsys)
    assert list(yaml.safe_load(text)["tasks"]) == ["survival", "grade"]
    (told,) = (line for line in text.splitlines() if "# diagnosis: {column: diagnosis}" in line)
    assert reason in told
    text = text.replace("FILL-IN", "tpm")
    (tmp_path / "out" / "cohort.yaml").write_text(text)
    assert checked(tmp_path / "out", capsys)[0] == 0
    cohort = read_cohort_file(tmp_path / "out" / "cohort.yaml")
    (tmp_path / "out" / "cohort.yaml").write_text(text.partition("\ntasks:")[0] + "\n")
    plan = plan_cohort(read_cohort_file(tmp_path / "out" / "cohort.yaml"))
    assert set(plan.tasks) == set(plan_cohort(cohort).tasks)
    assert any("tasks.diagnosis" in warning and reason in warning for warning in plan.warnings)


def test_an_existing_cohort_file_is_not_overwritten(tmp_path, capsys):
    study(tmp_path / "study")
    (tmp_path / "cohort.yaml").write_text("mine")
    assert main(["init", str(tmp_path), "--from", str(tmp_path / "study")]) == 2
    assert (tmp_path / "cohort.yaml").read_text() == "mine"
    assert "exists already" in capsys.readouterr().err


def test_a_terminal_that_cannot_write_a_letter_shows_a_question_mark(tmp_path, monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", shown)
    data = job_with_tables(tmp_path / "data", mpp=None)
    assert main(["init", str(tmp_path / "out"), "--from", str(data)]) == 0
    assert b"?m per level-0 pixel" in shown.buffer.getvalue()
    assert "µm per level-0 pixel" in (tmp_path / "out" / "cohort.yaml").read_text(encoding="utf-8")


def test_one_folder_is_drafted_and_never_the_current_one_by_mistake(tmp_path, capsys):
    data = job_with_tables(tmp_path / "data")
    for sources, found in (
        (
            [
                "",
            ],
            "an empty name",
        ),
        ([str(data), "other"], "other"),
    ):
        given = [word for source in sources for word in ("--from", source)]
        assert main(["init", str(tmp_path / "out"), *given]) == 2
        error = capsys.readouterr().err
        assert "--from: one folder is required. Found" in error
        assert found in error
    assert not (tmp_path / "out").exists()


def test_a_file_whose_name_is_no_text_is_refused_by_name(tmp_path, capsys):
    data = job_with_tables(tmp_path / "data")
    os.rename(data / "clinical.csv", os.fsencode(data) + b"/kl\xfcnisch.csv")
    assert main(["init", str(tmp_path / "out"), "--from", str(data)]) == 2
    assert "kl\\udcfcnisch.csv: a path of UTF-8 text is required, as YAML is. Rename it." in capsys.readouterr().err
    assert not (tmp_path / "out" / "cohort.yaml").exists()


def test_folders_that_hold_nothing_are_said_in_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("hello\n")
    (tmp_path / "file.csv").write_text("a,b\n")
    for source, code, words in (
        ("empty", 3, "Recognised none; found 1 .txt"),
        ("file.csv", 2, "Found a file"),
        ("absent", 2, "Found none"),
    ):
        assert main(["init", str(tmp_path / "out"), "--from", str(tmp_path / source)]) == code
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_is_told_and_what_is_not_needed_too(tmp_path, capsys):
    data = job_with_tables(tmp_path / "data")
    (data / "old.csv").write_bytes(b"\xff\xfea\x00")
    (data / "shopping.csv").write_text("item,price\nmilk,2\n")
    (data / "hallmark.gmt").write_text("SET\tx\tEGFR\tTP53\n")
    for name in ("wsi/P1.svs", "Patienten.xls", "c.zip", "d.csv.zip", "expr.gct"):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).touch()
    text, _ = drafted(data, tmp_path / "out", capsys)
    assert "old.csv: UTF-8 text is required" in text
    assert "d.csv.zip: a zip file with one table is required" in text
    assert "not used: shopping.csv" in text
    assert "hallmark.gmt" in text
    assert "# not used, since there are features: slides in wsi" in text
    assert "# not read: Patienten.xls, c.zip, expr.gct. Save tables as .csv or .xlsx" in text


def test_patients_without_slides_or_expression_are_asked_about(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    clinical().to_csv(tmp_path / "data" / "p.csv", index=False)
    text, printed = drafted(tmp_path / "data", tmp_path / "out", capsys)
    assert "where are slides, features or expression" in printed
    assert checked(tmp_path / "out", capsys)[0] == 2
    assert yaml.safe_load(text)["patients"]["columns"]["time_days"] == "os_days"


def test_expression_without_patients_is_asked_about(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    tpm().to_csv(tmp_path / "data" / "e.csv")
    _, printed = drafted(tmp_path / "data", tmp_path / "out", capsys)
    assert "which table has a row for each patient" in printed
    path = tmp_path / "out" / "cohort.yaml"
    for key, value in (("expression.unit", "unit: tpm"), ("patients.table", "")):
        code, error = checked(tmp_path / "out", capsys)
        assert code == 2
        assert f"`{key}`" in error
        path.write_text(path.read_text().replace("unit: FILL-IN", value))


@pytest.mark.real_data
@pytest.mark.slow
def test_real_tables_need_their_unit_alone(real_data, tmp_path, capsys):
    text, _ = drafted(real_data / "tcga_gbmlgg", tmp_path, capsys)
    assert text.count("FILL-IN") == 1
    (tmp_path / "cohort.yaml").write_text(text.replace("FILL-IN", "zscore"))
    assert checked(tmp_path, capsys)[0] == 0


def test_folds_that_lie_in_the_folder_are_proposed(tmp_path, capsys):
    data = job_with_tables(tmp_path / "data")
    (data / "splits" / "five").mkdir(parents=True)
    for fold in range(2):
        lines = [f"{i},{PATIENTS[(2 * i + fold) % 24]},{PATIENTS[(2 * i + 1 + fold) % 24]}\n" for i in range(12)]
        (data / "splits" / "five" / f"splits_{fold}.csv").write_text(",train,val\n" + "".join(lines))
    text, _ = drafted(data, tmp_path / "out", capsys)
    assert "\n# splits: {folder: ../data/splits/five}" in text
    (tmp_path / "out" / "cohort.yaml").write_text(text.replace("FILL-IN", "tpm").replace("# splits", "splits"))
    assert checked(tmp_path / "out", capsys)[0] == 0


def test_a_prepared_folder_is_not_drafted_a_second_time(tmp_path, capsys):
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "provenance.json").write_text("{}")
    assert main(["init", str(tmp_path / "out"), "--from", str(tmp_path / "prepared")]) == 2
    assert f"Found a prepared cohort. Go on with: subfuse crossval {tmp_path / 'prepared'}" in capsys.readouterr().err


def test_a_folder_without_a_name_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["init", "", "--from", str(job_with_tables(tmp_path / "data"))])
    assert "the folder for cohort.yaml must have a name. Found an empty one" in capsys.readouterr().err
    assert not (tmp_path / "cohort.yaml").exists()


def test_what_is_wrong_in_a_table_is_a_problem_with_its_path(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = job_with_tables(tmp_path / "in" / "data")
    table = clinical()
    table.assign(os_days=["12 d", *table["os_days"].astype(str)[1:]]).to_csv(data / "clinical.csv", index=False)
    assert main(["init", "out", "--from", "in/data"]) == 0
    printed = capsys.readouterr().out
    assert "# PROBLEM: clinical.csv, row 2: time_days must be a number of days. Found '12 d'" in printed


def test_two_studies_are_a_choice(tmp_path, capsys):
    for name in ("gbm", "lgg"):
        study(tmp_path / "data" / name)
    text, _ = drafted(tmp_path / "data", tmp_path / "out", capsys)
    assert "gbm/data_clinical_patient.txt or ../data/gbm/data_clinical_sample.txt or ../data/lgg" in text
    assert "or one of `cohorts` for each?" in text


def test_endpoints_are_tasks_where_they_can_be_learnt(tmp_path, capsys):
    data = job_with_tables(tmp_path / "data")
    values = {"dss_days": range(24), "dss_event": [1, 0] * 12, "pfi_days": range(24), "pfi_event": 0}
    clinical(**values).to_csv(data / "clinical.csv", index=False)
    text, _ = drafted(data, tmp_path / "out", capsys)
    (tmp_path / "out" / "cohort.yaml").write_text(text.replace("FILL-IN", "tpm"))
    assert checked(tmp_path / "out", capsys)[0] == 0
    plan = plan_cohort(read_cohort_file(tmp_path / "out" / "cohort.yaml"))
    assert list(plan.tasks) == ["survival", "dss", "grade"]
    (told,) = (line for line in text.splitlines() if "# pfi: {time: pfi_days, event: pfi_event}" in line)
    assert "no event in pfi_event" in told


def test_the_only_molecular_class_is_a_task(tmp_path, capsys):
    data = job_with_tables(tmp_path / "data")
    words = {"isMSIH": ["MSIH", "nonMSIH", "nonMSIH", ""] * 6}
    for columns in ({}, {"os_days": None, "event": None, "grade": None}):
        clinical(**words, **columns).to_csv(data / "clinical.csv", index=False)
        text, _ = drafted(data, tmp_path / f"out{len(columns)}", capsys)
        path = tmp_path / f"out{len(columns)}" / "cohort.yaml"
        path.write_text(text.replace("FILL-IN", "tpm"))
        assert checked(path.parent, capsys)[0] == 0
        plan = plan_cohort(read_cohort_file(path))
        assert list(plan.tasks) == [*([] if columns else ["survival", "grade"]), "isMSIH"]
        assert plan.tasks["isMSIH"].classes == ("MSIH", "nonMSIH")


def test_which_of_several_molecular_classes_is_predicted_is_asked(tmp_path, capsys):
    data = job_with_tables(tmp_path / "data")
    words = {"isMSIH": ["MSIH", "nonMSIH"] * 12, "KRAS": ["mutated", "wild type", "wild type"] * 8}
    clinical(**words).to_csv(data / "clinical.csv", index=False)
    text, printed = drafted(data, tmp_path / "out", capsys)
    assert "QUESTION: which of isMSIH, KRAS are to be predicted?" in printed
    path = tmp_path / "out" / "cohort.yaml"
    path.write_text(text.replace("FILL-IN", "tpm").replace("# KRAS: {", "KRAS: {"))
    assert checked(path.parent, capsys)[0] == 0
    assert list(plan_cohort(read_cohort_file(path)).tasks) == ["survival", "grade", "KRAS"]
    clinical(**words, os_days=None, event=None, grade=None).to_csv(data / "clinical.csv", index=False)
    text, _ = drafted(data, tmp_path / "alone", capsys)
    path = tmp_path / "alone" / "cohort.yaml"
    path.write_text(text.replace("unit: FILL-IN", "unit: tpm"))
    code, error = checked(path.parent, capsys)
    number = next(i for i, line in enumerate(text.splitlines(), start=1) if line.startswith("tasks: FILL-IN"))
    assert code == 2
    assert f"line {number}: `tasks`: a value is required in the place of FILL-IN" in error


def test_the_only_table_that_can_be_of_patients_is_named(tmp_path, capsys):
    data = job_with_tables(tmp_path / "data")
    table = clinical().drop(columns=["age", "grade"])
    table.columns = ["Nummer", "Überlebenszeit (Monate)", "verstorben"]
    table.to_csv(data / "clinical.csv", index=False)
    text, _ = drafted(data, tmp_path / "out", capsys)
    assert "Is it ../data/clinical.csv, with Nummer, Überlebenszeit (Monate), verstorben?" in text


def test_a_folder_that_may_not_be_read_is_told(tmp_path, capsys, monkeypatch):
    data = job_with_tables(tmp_path / "data")
    (data / "locked").mkdir()
    monkeypatch.setattr("subfuse.recognition.kinds.os.access", lambda path, mode: path.name != "locked")
    text, _ = drafted(data, tmp_path / "out", capsys)
    assert "# not read, since the system does not permit it: locked" in text


@pytest.mark.parametrize("by_genes", [False, True])
def test_identifiers_of_the_tables_are_compared(tmp_path, capsys, by_genes):
    data = job_with_tables(tmp_path / "data")
    values = tpm().iloc[:20]
    (values.T if by_genes else values).to_csv(data / "expression.csv")
    text, _ = drafted(data, tmp_path / "out", capsys)
    assert "# 24 patients in all\n# by their identifiers, 24 have slides and 20 have expression\n" in text
    strange = values.set_axis([f"S{i}" for i in range(20)])
    (strange.T if by_genes else strange).to_csv(data / "expression.csv")
    text, printed = drafted(data, tmp_path / "again", capsys)
    assert "24 have slides and 0 have expression" in text
    assert "PROBLEM: no patient has expression: patients: TCGA-02-0000" in printed


def test_why_the_first_table_is_none_that_is_known_is_said(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shopping.csv").write_text("item,price\nmilk,2\n")
    assert main(["init", str(tmp_path / "out"), "--from", str(tmp_path / "data")]) == 3
    assert "shopping.csv has the columns item, price. Run" in capsys.readouterr().err
