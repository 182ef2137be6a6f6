"""Bad input is a one-line error or an exclusion with its reason; exit codes as documented; nothing half-written."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from subfuse.cli import main

GENES = ("EGFR", "CD44", "GFAP", "CD3D", "CD163", "VWF")


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A small valid cohort of plain tables: 12 patients with expression and outcome."""
    random = np.random.default_rng(0)
    ids = [f"P{i:02d}" for i in range(12)]
    clinical = pd.DataFrame({"patient_id": ids, "time_days": random.integers(100, 3000, 12), "event": [0, 1] * 6})
    clinical.to_csv(tmp_path / "patients.csv", index=False)
    expression = pd.DataFrame(random.gamma(2, 20, (12, len(GENES))), columns=list(GENES), index=ids)
    expression.to_csv(tmp_path / "expression.csv", index_label="patient_id")
    content = {
        "name": "small",
        "patients": {"table": "patients.csv"},
        "expression": {"table": "expression.csv", "unit": "tpm"},
        "tasks": {"survival": {"time": "time_days", "event": "event"}},
        "splits": {"folds": 2, "validation": 0.3},
    }
    path = tmp_path / "cohort.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def edit(path: Path, **sections) -> None:
    content = yaml.safe_load(path.read_text())
    content.update(sections)
    path.write_text(yaml.safe_dump(content))


def edit_table(path: Path, change) -> None:
    change(pd.read_csv(path)).to_csv(path, index=False)


def set_first(column, value):
    return lambda table: table.assign(**{column: [value, *table[column].tolist()[1:]]})


def remove_table(path):
    (path.parent / "patients.csv").unlink()


def repeat_patient(path):
    edit_table(path.parent / "patients.csv", lambda table: pd.concat([table, table.head(1)]))


def three_events(path):
    edit_table(path.parent / "patients.csv", set_first("event", 2))


def unknown_key(path):
    edit(path, patients={"table": "patients.csv", "colums": {"patient_id": "id"}})


def foreign_gene_set(path):
    (path.parent / "tumour.gmt").write_text("SET\tnobody\tNOTAGENE1\tNOTAGENE2\n")
    edit(path, gene_sets={"tumour": "tumour.gmt", "microenvironment": "builtin"})


def undeclared_censoring(path):
    edit_table(path.parent / "patients.csv", lambda table: table.rename(columns={"event": "censored"}))
    edit(path, patients={"table": "patients.csv", "columns": {"patient_id": "patient_id", "time_days": "time_days",
                                                              "event": "censored"}})  # fmt: skip


def negative_expression(path):
    edit_table(path.parent / "expression.csv", set_first("GFAP", -3.0))


CASES = [
    (remove_table, 3, "patients.csv"),
    (repeat_patient, 3, "P00"),
    (three_events, 3, "event"),
    (unknown_key, 2, "Did you mean `columns`?"),
    (foreign_gene_set, 3, "tumour"),
    (undeclared_censoring, 2, "event_values"),
    (negative_expression, 3, "GFAP"),
]


@pytest.mark.parametrize("command", ["check", "prepare"])
@pytest.mark.parametrize(("damage", "code", "named"), CASES, ids=[case[0].__name__ for case in CASES])
def test_unusable_input_is_one_line_with_its_exit_code(cohort, tmp_path, capsys, damage, code, named, command):
    damage(cohort)
    out = tmp_path / "prepared"
    arguments = [command, str(cohort)] + (["--out", str(out)] if command == "prepare" else [])
    assert main(arguments) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("subfuse: error: ")
    assert named in lines[0]
    assert not out.exists()


def test_the_undamaged_cohort_is_prepared(cohort, tmp_path):
    assert main(["prepare", str(cohort), "--out", str(tmp_path / "prepared")]) == 0
    assert len(pd.read_csv(tmp_path / "prepared" / "patients.csv")) == 12


def exclusions_after(cohort, tmp_path, *options) -> pd.DataFrame:
    assert main(["prepare", str(cohort), "--out", str(tmp_path / "prepared"), "--workers", "1", *options]) == 0
    return pd.read_csv(tmp_path / "prepared" / "exclusions.csv").set_index("id")


def test_a_patient_without_any_modality_is_excluded_with_the_reason(cohort, tmp_path):
    edit_table(tmp_path / "expression.csv", lambda table: table.iloc[1:])
    excluded = exclusions_after(cohort, tmp_path)
    assert "no slide and no expression" in excluded.loc["P00", "reason"]
    assert len(pd.read_csv(tmp_path / "prepared" / "patients.csv")) == 11


def test_a_negative_time_excludes_the_patient_with_the_reason(cohort, tmp_path):
    edit_table(tmp_path / "patients.csv", set_first("time_days", -5))
    assert exclusions_after(cohort, tmp_path).loc[["P00"], "reason"].str.contains("negative").any()


@pytest.fixture
def slides(cohort, tmp_path) -> Path:
    """The cohort with three image slides: a good one, an empty one, one without a resolution."""
    random = np.random.default_rng(1)
    folder = tmp_path / "slides"
    folder.mkdir()
    tissue = random.normal((200, 120, 170), 25, (600, 600, 3)).clip(0, 255).astype(np.uint8)
    for name, pixels in {"good": tissue, "empty": np.full((600, 600, 3), 245, np.uint8), "no-mpp": tissue}.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    table = pd.DataFrame(
        {"slide_id": ["good", "empty", "no-mpp"], "patient_id": ["P00", "P01", "P02"], "mpp": [0.5, 0.5, None]}
    )
    table.to_csv(tmp_path / "slides.csv", index=False)
    edit(cohort, slides={"table": "slides.csv", "folder": "slides"})
    return cohort


def test_slides_that_cannot_be_used_are_excluded_and_the_rest_goes_on(slides, tmp_path):
    excluded = exclusions_after(slides, tmp_path)
    assert set(excluded.index) == {"empty", "no-mpp"}
    assert "tissue" in excluded.loc["empty", "reason"]
    assert "mpp" in excluded.loc["no-mpp", "reason"]
    assert pd.read_csv(tmp_path / "prepared" / "slides.csv")["slide_id"].tolist() == ["good"]
    assert not list((tmp_path / "prepared").rglob("*.part*"))


def test_check_names_a_slide_without_resolution_and_writes_nothing(slides, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(["check", str(slides)]) == 0
    assert "no-mpp" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_prepared_folder_of_another_cohort_is_not_touched(cohort, tmp_path, capsys):
    exclusions_after(cohort, tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "prepared").rglob("*") if path.is_file()}
    edit(cohort, name="other")
    assert main(["prepare", str(cohort), "--out", str(tmp_path / "prepared")]) == 2
    assert "another cohort file or encoder" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["crossval", "nowhere"], 3, "nowhere"),
        (["report", "nowhere"], 3, "nowhere"),
        (["predict", "nowhere", "--cohort", "nowhere"], 2, "nowhere"),
        (["check", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["convert", "nowhere.pth"], 3, "nowhere.pth"),
    ],
)
def test_missing_folders_and_files_are_named(tmp_path, monkeypatch, capsys, arguments, code, named):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert named in lines[0]
    assert not list(tmp_path.iterdir())


def test_wrong_usage_is_exit_code_two(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["crossval", "prepared", "--train.epocs", "3"])
    assert stopped.value.code == 2
    with pytest.raises(SystemExit) as stopped:
        main(["crossval", "prepared", "--train.lr", "-1"])
    assert stopped.value.code == 2


def test_debug_shows_the_traceback(tmp_path):
    from subfuse.errors import ConfigurationError

    with pytest.raises(ConfigurationError):
        main(["--debug", "check", str(tmp_path / "nowhere.yaml")])
