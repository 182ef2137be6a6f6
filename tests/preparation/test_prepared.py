"""Folds of a folder that is prepared again: other ones are told, and those of before can be kept."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from subfuse.cohort.fold import Fold
from subfuse.cohort.fold_files import SPLITS, read_repeats
from subfuse.preparation.prepare import prepare


def write_cohort(place: Path, alive: set[str], **splits: object) -> Path:
    names = [f"P{i:02d}" for i in range(16)]
    events = [name not in alive for name in names]
    pd.DataFrame({"patient_id": names, "time_days": range(100, 116), "event": events}).to_csv(
        place / "patients.csv", index=False
    )
    values = np.random.default_rng(0).uniform(1, 9, size=(16, 3)).round(2)
    pd.DataFrame(values, index=names, columns=["A1", "A2", "A3"]).to_csv(place / "rna.csv", index_label="case")
    (place / "sets.gmt").write_text("A\td\tA1\tA2\tA3\n")
    content = {
        "name": "small",
        "patients": {"table": "patients.csv"},
        "expression": {"table": "rna.csv", "unit": "tpm"},
        "gene_sets": {"tumour": "sets.gmt"},
        "tasks": {"survival": {"time": "time_days", "event": "event"}},
        "splits": splits or {"folds": 2, "validation": 0.3},
    }
    (place / "cohort.yaml").write_text(yaml.safe_dump(content))
    return place / "cohort.yaml"


def prepared_again(place: Path, alive: set[str], **splits: object) -> tuple[list[str], tuple[Fold, ...]]:
    """Returns what is said of other folds, and the folds."""
    done = prepare(write_cohort(place, alive, **splits), place / "prepared")
    [folds] = read_repeats(place / "prepared" / SPLITS)
    return [line for line in done.warnings if "folds are others than before" in line], folds


def test_other_folds_are_told_with_the_patients_who_changed_and_those_of_before_can_be_kept(tmp_path):
    alive = {f"P{i:02d}" for i in range(0, 16, 3)}
    said, first = prepared_again(tmp_path, alive)
    assert (said, prepared_again(tmp_path, alive)) == ([], ([], first))

    [said], others = prepared_again(tmp_path, alive - {"P03"})
    assert others != first
    assert "since patients have changed (other event: P03): runs on the old ones cannot be continued" in said
    kept = Path(re.search(r"`splits: \{folder: (.*)\}`", said)[1])
    assert kept.is_absolute()

    [said], again = prepared_again(tmp_path, alive - {"P03"}, folder=str(kept))
    assert again == first
    assert said.endswith("since the rules for them have changed: runs on the old ones cannot be continued")
    assert prepared_again(tmp_path, alive - {"P03"}, folder=str(kept)) == ([], first)
