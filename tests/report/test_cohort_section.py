"""The cohort in the report: who was found, used and excluded, and with what."""

import re

import pandas as pd
from fake_run import write_fake_run

from subfuse.report import write_report


def test_the_flow_of_patients_and_the_quality_of_slides_are_those_of_the_tables(run, page, text):
    patients = pd.read_csv(run / "cohort" / "patients.csv")
    exclusions = pd.read_csv(run / "cohort" / "exclusions.csv").query("level == 'patient'")
    words = " ".join(" ".join(page.text).split())
    both = ((patients["n_slides"] > 0) & patients["has_expression"]).sum()
    for count, label in (
        (len(patients) + len(exclusions), "patients found"),
        (len(exclusions), "excluded"),
        (len(patients), "in the cohort"),
        (int((patients["n_slides"] > 0).sum()), f"with slides ({patients['n_slides'].sum()} slides)"),
        (int(both), "with both"),
    ):
        assert f"{count} {label}" in words
    lowest, highest = pd.read_csv(run / "cohort" / "slide_quality.csv")["tissue_mm2"].agg(["min", "max"])
    assert re.search(rf"<td[^>]*>2 of 2</td><td[^>]*>{lowest:g}</td><td[^>]*>158</td><td[^>]*>{highest:g}</td>", text)
    assert "12% of the stained area is pen marks and was left out" in words


def test_exclusions_are_counted_by_reason(run, text):
    exclusions = pd.read_csv(run / "cohort" / "exclusions.csv")
    for reason, count in exclusions["reason"].value_counts().items():
        row = re.search(rf">{re.escape(reason)}</td>\s*<td class=\"number\">(\d+)</td>", text)
        assert int(row[1]) == count


def test_numeric_looking_identifiers_keep_their_zeros(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), optional=False)
    (run / "cohort").mkdir()
    (run / "cohort" / "exclusions.csv").write_text("level,id,reason\npatient,007,no label\n")
    assert ">007<" in write_report(run).read_text()
