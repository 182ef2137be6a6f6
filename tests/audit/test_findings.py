"""Findings: of which model, in which order, and what stops a run."""

import json
import re

import pandas as pd
import pytest
from audited_tables import QUICK, run_of

from subfuse.audit.audit import audit_predictions
from subfuse.audit.disguised_outcomes import CHECK
from subfuse.audit.findings import LEVELS, Finding, raise_for_failures
from subfuse.errors import DataError
from subfuse.training.models import MODELS


def test_a_finding_that_begins_with_a_model_is_of_that_model(patients: pd.DataFrame) -> None:
    audit = audit_predictions(run_of(patients, {"subspace": 0.5, "snn": 1.0, "cox": 2.0, "abmil": 3.0}), **QUICK)

    titles = {model: MODELS[model].title for model in ("subspace", "snn", "cox", "abmil")}
    named = [
        (m, f) for f in audit.findings for m, title in titles.items() if f.found.startswith((f"{title}:", f"{title} "))
    ]
    assert {model for model, _ in named} == set(titles)
    assert all(finding.model == model for model, finding in named)
    texts = " ".join(f"{finding.found} {finding.remedy}" for finding in audit.findings)
    assert not re.search(r"\b(subspace|snn|abmil|c_index)\b", texts)  # names of options are for typing


def test_repeats_and_folds_of_several_tasks_fit_into_json(patients: pd.DataFrame) -> None:
    survival = run_of(patients, {"subspace": 0.5, "snn": 1.0})
    table = pd.concat([survival, survival.assign(repeat=1), run_of(patients, {"snn": 1.0}, task="grade")])

    content = json.loads(json.dumps(audit_predictions(table, **QUICK).to_dict(), allow_nan=False))

    assert sum(content["counts"].values()) == len(content["findings"])
    order = [LEVELS.index(finding["level"]) for finding in content["findings"]]
    assert order == sorted(order)
    assert {"fusion", "calibration", "reliability", "hazard_ratios"} <= set(content["tables"])


def test_a_refusal_names_all_inputs_though_it_explains_the_first_few() -> None:
    findings = [Finding("failure", CHECK, f"input G{i}: it is the outcome", "Why.", f"Remove G{i}.") for i in range(5)]
    with pytest.raises(DataError, match=r"Remove G0\. All of them: G0, G1, G2, G3, G4\.$"):
        raise_for_failures(findings, all_of_them=[f"G{i}" for i in range(5)])
    with pytest.raises(DataError, match=r"Remove G0\.$"):
        raise_for_failures(findings[:1], all_of_them=["G0"])
