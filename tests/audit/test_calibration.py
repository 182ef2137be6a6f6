"""Whether probabilities, decisions and promises of a model hold, in words."""

import numpy as np
import pandas as pd
import pytest
from audited_tables import run_of

from subfuse.audit.audit import audit_predictions
from subfuse.audit.calibration import calibration_findings
from subfuse.evaluation.calibration.measures import CALIBRATION_COLUMNS
from subfuse.evaluation.calibration_slopes import SLOPE_COLUMNS

NO_SLOPES = pd.DataFrame(columns=list(SLOPE_COLUMNS))


def test_calibration_is_worded_by_its_evidence() -> None:
    tables = [
        pd.DataFrame(
            [
                ("grade", "snn", measure, np.nan, 0.2, p, np.nan, "Platt", np.nan, 39, "few", None, why)
                for measure, p in (("expected_calibration_error", p_value), ("brier", np.nan))
            ],
            columns=list(CALIBRATION_COLUMNS),
        )
        for p_value, why in ((0.023, None), (0.0004, None), (0.4, None), (np.nan, "3 patients, 5 are needed"))
    ]
    weak, clear, none, few = (calibration_findings(table, NO_SLOPES)[0] for table in tables)

    assert "some evidence that probabilities are off" in weak.found
    assert "clear evidence that probabilities are off" in clear.found
    assert none.level == "ok"
    assert (few.level, "not tested, 3 patients, 5 are needed; expected" in few.found) == ("note", True)
    assert not any("wrong" in finding.found for finding in (weak, clear, none, few))
    assert "cannot be recalibrated" in weak.remedy
    recalibrated = calibration_findings(tables[0].assign(after=0.1), NO_SLOPES)[0]
    assert recalibrated.remedy.startswith("Recalibrate on validation patients (Platt)")


@pytest.mark.parametrize(
    ("task", "noise", "level"), [("grade", 0.3, "ok"), ("grade", None, "note"), ("survival", 1.0, "ok")]
)
def test_the_audit_says_at_which_thresholds_it_is_worth_to_act(
    patients: pd.DataFrame, task: str, noise: float | None, level: str
) -> None:
    rows = run_of(patients, {"ours": noise or 1.0, "clinical": 3.0}, task)
    if noise is None:  # the predictions of others
        ours, columns = rows["model"] == "ours", ["p_G2", "p_G3", "p_G4"]
        rows.loc[ours, columns] = rows.loc[ours, columns].sample(frac=1, random_state=0).to_numpy()
    if task == "survival":
        rows["risk"] = (rows["risk"] - 7 * rows["fold"]) / 10.0 ** rows["fold"]
    audit = audit_predictions(rows, n_bootstrap=100)

    (finding,) = [finding for finding in audit.findings if finding.check == "decision curves"]
    curves = audit.tables["decision_curves"]
    own = curves[(curves["model"] == "ours") & (curves["lower_default"] > 0)]
    assert finding.level == level
    assert (len(own) > 0) == (level == "ok")
    assert set(curves["model"]) == {"ours", "clinical"}
    if level == "ok":
        assert f"{own['threshold'].iloc[0]:.2f}" in finding.found
        assert "more than Clinical model at" in finding.found
