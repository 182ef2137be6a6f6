"""What is said of one patient: mean, spread and range of the models, and promises in words."""

import numpy as np
import pandas as pd

from subfuse.runs.prediction.summary import promised, summarise


def test_the_summary_says_how_far_models_disagree():
    rows = pd.DataFrame({"task": "grade", "model": "concat", "risk_percentile": np.nan, "p_G2": [0.1, 0.4, 0.1]})
    table = summarise(rows.assign(p_G4=1 - rows["p_G2"]))
    assert table["quantity"].tolist() == ["p_G2", "p_G4"]  # what is unknown is left out
    np.testing.assert_allclose(table[["mean", "lowest", "highest"]], [[0.2, 0.1, 0.4], [0.8, 0.6, 0.9]])
    assert table["n_models"].tolist() == [3, 3]
    assert table["spread"].isna().all()
    with_members = rows.assign(
        p_G4=1 - rows["p_G2"], spread_risk_percentile=np.nan, spread_p_G2=0.0, spread_p_G4=np.nan
    )
    np.testing.assert_allclose(summarise(with_members)["spread"], np.std([0.1, 0.4, 0.1], ddof=1))


def test_promises_are_said_in_words_and_not_where_there_are_none():
    mean = pd.DataFrame(
        {
            "task": ["survival", "grade", "grade", "survival"], "model": ["snn", "snn", "concat", "concat"],
            "promised_days": [412.4, np.nan, np.nan, np.nan], "in_set_G2": [np.nan, 1.0, 0.0, np.nan],
            "in_set_G3": [np.nan, 1.0, 0.0, np.nan], "in_set_G4": [np.nan, 0.0, 0.0, np.nan],
        }
    )  # fmt: skip
    assert list(promised(mean)) == [
        "survival · SNN: no event before day 412, with a probability of 90%",
        "grade · SNN: one of G2, G3, with a probability of 90%",
        "grade · Concatenation: no class is sure enough to be promised",
    ]
    assert list(promised(mean[["task", "model"]])) == []
