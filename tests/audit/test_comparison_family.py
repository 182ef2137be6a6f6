"""One family of comparisons, quoted wherever two models are compared."""

import numpy as np
import pandas as pd
from audited_tables import found, run_of

from subfuse.audit.audit import audit_predictions
from subfuse.audit.comparison_family import compared_with_reference


def test_a_pair_has_one_adjusted_p_wherever_it_is_told(patients: pd.DataFrame) -> None:
    table = run_of(patients, {"subspace": 1.0, "snn": 1.1, "cox": 1.2, "abmil": 1.5, "concat": 1.3}, task="survival")
    told = compared_with_reference(table, n_bootstrap=100, seed=0)
    audit = audit_predictions(table, n_bootstrap=100, seed=0)

    assert list(told["model"]) == ["snn", "cox", "abmil", "concat"]
    fusion = audit.tables["fusion"]
    shared = fusion[fusion["model"] == "subspace"].merge(told, left_on="reference", right_on="model")
    assert len(shared) == 1  # the best single modality; late fusion is of the audit alone
    np.testing.assert_allclose(shared["p_adjusted_x"], shared["p_adjusted_y"])
    np.testing.assert_allclose(shared["difference_x"], -shared["difference_y"])
    np.testing.assert_allclose(shared["lower_x"], -shared["upper_y"])
    p_cox = told.set_index("model").loc["cox", "p_adjusted"]
    linear = [text for text in found(audit, "linear baseline") if text.startswith("Subspace fusion ")]
    assert f"adjusted p = {p_cox:.2g}" in linear[0]
