"""Tables of twenty patients, their cohort file, and what is planned and prepared from them."""

from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.cohort.cohort_file import CohortFile, read_cohort_file
from subfuse.preparation.plan import CohortPlan

N = 20
SECTIONS = {
    "name": "name: small",
    "patients": "patients: {table: patients.csv}",
    "slides": "slides: {folder: slides}",
    "expression": "expression: {table: expression.csv, unit: tpm}",
    "gene_sets": "gene_sets: {tumour: sets.gmt, microenvironment: {gmt: sets.gmt, sets: [B]}}",
    "splits": "splits: {folds: 4, seed: 3}",
}


def write_tables(folder: Path) -> Path:
    """Patients p00 to p19: even ones have a slide, those divisible by 3 expression; p01 neither; p02 no outcome."""
    clinical = pd.DataFrame(
        {
            "patient_id": [f"p{i:02d}" for i in range(N)],
            "time_days": [100.0 + 50 * i for i in range(N)],
            "event": pd.array([i % 4 < 2 for i in range(N)], dtype="boolean"),
            "grade": [f"G{2 + i % 3}" for i in range(N)],
        }
    )
    clinical.loc[2, ["time_days", "event", "grade"]] = None
    clinical.loc[4, "time_days"] = -1.0
    clinical.loc[6, "grade"] = None
    clinical.to_csv(folder / "patients.csv", index=False)
    slides = folder / "slides"
    slides.mkdir()
    for i in [*range(0, N, 2), 99]:
        (slides / f"p{i:02d}_a.svs").touch()
    (slides / "p00_b.svs").touch()
    measured = [*range(0, N, 3), 5, 7, 11, 13, 17, 19, 77]
    values = np.random.default_rng(0).gamma(2.0, 3.0, size=(len(measured), 4)).round(3)
    table = pd.DataFrame(values, index=[f"p{i:02d}" for i in measured], columns=["G1", "G2", "G3", "G4"])
    table.to_csv(folder / "expression.csv", index_label="case")
    (folder / "sets.gmt").write_text("A\td\tG1\tG9\nB\td\tG3\tG2\n")
    return folder


def cohort_file_of(folder: Path, *without: str, **changes: str) -> CohortFile:
    sections = {name: text for name, text in (SECTIONS | changes).items() if name not in without}
    path = folder / "cohort.yaml"
    path.write_text("\n".join(sections.values()) + "\n")
    return read_cohort_file(path)


def slide_table(plan: CohortPlan, out: Path, *failed: str) -> pd.DataFrame:
    rows = []
    for slide in plan.slides:
        if slide.slide_id not in failed:
            path = Path("wsi") / f"{slide.slide_id}.h5"
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).touch()
            rows.append({"slide_id": slide.slide_id, "patient_id": slide.patient_id, "features": str(path)})
    return pd.DataFrame(rows, columns=["slide_id", "patient_id", "features"])


def reasons(exclusions: pd.DataFrame, level: str) -> dict[str, str]:
    chosen = exclusions[exclusions["level"] == level]
    return dict(zip(chosen["id"], chosen["reason"], strict=True))


COVARIATES = "patients: {table: patients.csv, columns: {time_days: time_days, event: event, age: age, sex: sex}}"


def add_covariates(folder: Path) -> Path:
    """Ages 40 to 59, unknown for p03; sex Male or female, unknown for p05 and p06, for which nothing is known."""
    table = pd.read_csv(folder / "patients.csv").drop(columns="grade")
    table["age"] = [40.0 + i for i in range(N)]
    table["sex"] = ["Male" if i % 3 else " female" for i in range(N)]
    table.loc[[3, 6], "age"] = None
    table.loc[[5, 6], "sex"] = "not reported"
    table.to_csv(folder / "patients.csv", index=False)
    return folder
