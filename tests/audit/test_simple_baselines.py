from collections.abc import Collection, Mapping
from dataclasses import replace

import pandas as pd
import pytest
from audited_tables import run_of

from subfuse.audit.audit import audit_predictions
from subfuse.audit.audited_task import audited_tasks
from subfuse.audit.comparison_family import compare_task
from subfuse.audit.simple_baselines import added_to_clinical, compare_with_simple, what_is_added
from subfuse.cli.audit_text import audit_lines
from subfuse.evaluation.benefit import added_value
from subfuse.evaluation.comparisons import compare_models
from subfuse.evaluation.metrics import number
from subfuse.training.models import model_title

CLINICAL = "clinical model"


def found(
    rows: pd.DataFrame, check: str = "linear baseline", modalities: Mapping[str, Collection[str]] = {}
) -> list[tuple[str, str]]:
    (task,) = audited_tasks(rows, modalities, n_bootstrap=300)
    _, comparisons = compare_task(task, reference="none")
    findings = compare_with_simple(task, comparisons)
    return [(f.level, f.found) for f in findings if f.check == check]


@pytest.mark.parametrize(("task", "linear"), [("survival", "cox"), ("grade", "logistic")])
def test_a_model_below_a_linear_one_is_seen_to(patients: pd.DataFrame, task: str, linear: str) -> None:
    rows = run_of(patients, {"subspace": 0.1, "theirs": 4.0, linear: 1.5, "clinical": 5.0}, task)

    levels = {text.split(" is ")[0]: (level, text) for level, text in found(rows)}

    assert set(levels) == {"Subspace fusion", "theirs"}
    assert levels["Subspace fusion"][0] == "ok"
    assert f"is better than the best linear model, {model_title(linear)} " in levels["Subspace fusion"][1]
    assert levels["theirs"][0] == "warning"
    assert f"is not shown to be better than the best linear model, {model_title(linear)} " in levels["theirs"][1]


def test_a_difference_that_may_be_chance_is_a_warning_below_and_a_note_above(patients: pd.DataFrame) -> None:
    rows = run_of(patients, {"snn": 1.0, "cox": 1.0})
    above = compare_models(rows, reference="cox", n_bootstrap=1)["difference"].iloc[0] > 0
    swapped = rows.replace({"model": {"snn": "cox", "cox": "snn"}})

    levels = [found(rows)[0], found(swapped)[0]]

    better, worse = levels if above else levels[::-1]
    assert (better[0], worse[0]) == ("note", "warning")
    assert all("is not shown to be better than" in text for _, text in levels)  # either way it may be chance


def test_the_numbers_are_those_of_the_paired_comparison(patients: pd.DataFrame) -> None:
    rows = run_of(patients, {"abmil": 0.5, "snn": 1.0, "cox": 1.5, "clinical": 6.0})
    rows = rows[rows["model"] != "clinical"]
    expected = compare_models(rows, reference="cox", n_bootstrap=300, seed=0)

    for (_, text), row in zip(found(rows), expected.itertuples(), strict=True):
        difference, lower, upper = (number(value, signed=True) for value in (row.difference, row.lower, row.upper))
        assert f"C-index {difference}, 95 % interval {lower} to {upper}" in text
        p_value = "p < 0.001" if row.p_adjusted < 0.001 else f"p = {row.p_adjusted:.3f}"
        assert f"adjusted {p_value}" in text


def test_without_a_linear_model_the_audit_says_that_it_cannot_tell(patients: pd.DataFrame) -> None:
    audit = audit_predictions(run_of(patients, {"subspace": 0.5, "snn": 1.0}), n_bootstrap=20)

    (note,) = [finding for finding in audit.findings if finding.check == "linear baseline"]
    assert note.level == "note"
    known = "(cox, cox-both, cox-slides)"
    assert f"{known} is needed, and there is none" in note.found


def test_a_linear_model_that_ranks_nobody_is_named(patients: pd.DataFrame) -> None:
    rows = run_of(patients, {"snn": 1.0, "cox": 1.0})

    ((level, text),) = found(rows.assign(risk=rows["risk"].where(rows["model"] == "snn", 0.0)))

    assert level == "note"
    assert "C-index of Cox regression is undefined" in text


def test_linear_models_alone_have_nothing_to_be_compared_with(patients: pd.DataFrame) -> None:
    assert found(run_of(patients, {"cox": 1.0, "clinical": 2.0})) == []


def test_an_undefined_comparison_says_why(patients: pd.DataFrame) -> None:
    rows = run_of(patients, {"cox": 1.0, "snn": 1.0})
    apart = rows[(rows["model"] == "cox") | (rows["fold"] == -1)]
    nobody = rows[rows["model"] == "snn"].assign(patient_id=lambda t: "other-" + t["patient_id"].astype(str))

    ((level, text),) = found(pd.concat([apart, nobody]))

    assert level == "note"
    assert "cannot be compared" in text


@pytest.mark.parametrize(("noise", "level"), [(3.0, "warning"), (1.0, "note"), (0.1, "ok")])
def test_the_main_model_must_be_better_than_what_needs_no_biology(patients: pd.DataFrame, noise, level) -> None:
    rows = run_of(patients, {"subspace": noise, "snn": 6.0, "cox": 6.0, "clinical": 1.5, "site": 6.0})

    ((found_level, text),) = found(rows, "trivial baseline")

    assert found_level == level
    words = "is better than" if level == "ok" else "is not shown to be better than"
    assert text.startswith(f"Subspace fusion {words} the best trivial baseline, Clinical model (")


def test_what_a_foreign_model_reads_says_whether_it_is_trivial(patients: pd.DataFrame) -> None:
    rows = run_of(patients, {"theirs": 0.1, "age and sex": 6.0})

    ((level, text),) = found(rows, "trivial baseline", {"theirs": {"slides"}, "age and sex": {"covariates"}})
    ((note, missing),) = found(rows, "trivial baseline", {"theirs": {"slides"}})

    assert level == "ok"
    assert "is better than the best trivial baseline, age and sex (" in text
    assert note == "note"
    assert "(batch, clinical, site) is needed, and there is none" in missing


@pytest.mark.parametrize(("noises", "level", "verb"), [
    ({"ours": 0.5, "clinical": 2.0, "batch": 9.0}, "ok", "adds to Clinical model"),
    ({"ours": 60.0, "clinical": 0.5, "batch": 9.0}, "note", "is not shown to add to Clinical model"),
])  # fmt: skip
def test_the_audit_says_what_the_main_model_adds_to_the_best_trivial_one(
    patients: pd.DataFrame, noises: dict[str, float], level: str, verb: str
) -> None:
    audit = audit_predictions(run_of(patients, {**noises, "cox": 1.5}), n_bootstrap=100)

    (finding,) = [finding for finding in audit.findings if finding.check == "added value"]
    rows = audit.tables["added_value"]
    row = rows.set_index("model").loc["ours"]
    assert finding.level == level
    difference, lower = (number(row[name], signed=True) for name in ("difference", "lower"))
    assert finding.found.startswith(f"ours {verb} (C-index {difference}, 95 % interval {lower}")
    assert set(rows["model"]) == {"ours", "cox"}
    assert set(rows["trivial"]) == {"clinical"}
    assert f"survival: {finding.found}." in list(audit_lines(audit))[1]


@pytest.mark.parametrize("task", ["survival", "grade"])
def test_where_the_hospital_is_the_best_trivial_model_the_clinical_one_is_told_too(
    patients: pd.DataFrame, task: str
) -> None:
    table = run_of(patients, {"subspace": 0.5, "snn": 1.0, "site": 2.0, "clinical": 2.5, "batch": 4.0}, task)
    audit = audit_predictions(table, n_bootstrap=100)
    of_best, of_clinical = ([f for f in audit.findings if f.check == check] for check in ("added value", CLINICAL))
    (best,), (finding,) = of_best, of_clinical
    (read,) = audited_tasks(table)
    adds = added_value(read, "clinical", ["subspace"], n_bootstrap=100, seed=0).iloc[0]
    pairs = compare_models(table, reference="clinical", n_bootstrap=100, seed=0).set_index("model")
    difference, value = number(pairs.loc["subspace", "difference"], signed=True), number(read.values["clinical"])

    assert "adds to Hospital alone" in best.found
    assert finding.level == "ok"
    metric = "C-index" if task == "survival" else "AUC"
    assert (
        f"adds to Clinical model ({metric} {number(adds['difference'], signed=True)}, 95 % interval " in finding.found
    )
    assert f"; instead of it ({metric} {value}): {metric} {difference}, 95 % interval " in finding.found
    assert finding.short.startswith(f"{value}, difference {difference} (")
    assert f"); combined {number(adds['difference'], signed=True)} (" in finding.short
    lines = list(audit_lines(audit))
    assert lines[1:3] == [f"{task}: {best.found}.", f"{task}: {finding.found}."]
    rows = audit.tables["added_value"]
    assert list(rows.loc[rows["model"] == "subspace", "trivial"]) == ["site", "clinical"]  # the best one first
    if task == "grade":  # nobody would act on the hospital
        assert set(audit.tables["decision_curves"]["model"]) == {"subspace", "snn", "clinical"}


@pytest.mark.parametrize(
    "noises", [{"subspace": 0.5, "clinical": 1.5, "site": 6.0}, {"subspace": 0.5, "site": 1.5}, {"subspace": 0.5}]
)
def test_the_clinical_model_is_told_once_where_it_is_the_best_and_not_where_there_is_none(
    patients: pd.DataFrame, noises: dict[str, float]
) -> None:
    (task,) = audited_tasks(run_of(patients, noises), n_bootstrap=20)
    _, comparisons = compare_task(task, reference="subspace")
    assert added_to_clinical(task, comparisons)[0] == []


def test_what_the_clinical_model_reads_decides_and_not_its_name(patients: pd.DataFrame) -> None:
    modalities = {"theirs": {"slides"}, "age": {"covariates"}, "age and sex": {"covariates"}, "centre": {"site"}}
    rows = run_of(patients, {"theirs": 0.5, "age": 9.0, "age and sex": 2.0, "centre": 1.5})
    (task,) = audited_tasks(rows, modalities, n_bootstrap=50)
    _, comparisons = compare_task(task, reference="none")  # the pair is compared whatever the reference is
    (finding,), _ = added_to_clinical(task, comparisons)
    assert finding.short.startswith(f"{number(task.values['age and sex'])}, difference +")


def test_where_nothing_can_be_told_of_the_clinical_model_the_reason_is(patients: pd.DataFrame) -> None:
    rows = run_of(patients, {"ours": 1.0, "clinical": 2.0, "site": 1.0})
    first = rows["patient_id"].isin(rows["patient_id"].unique()[:4])
    (task,) = audited_tasks(rows.assign(event=first), n_bootstrap=10)
    task = replace(task, values={**task.values, "site": task.values["clinical"] + 0.01})
    _, comparisons = compare_task(task, reference="none")
    (finding,), _ = added_to_clinical(task, comparisons)
    assert finding.level == "note"
    assert finding.found.startswith("cannot be told whether ours adds to Clinical model: ")
    assert f"; instead of it (C-index {number(task.values['clinical'])}): not tested, " in finding.found
    assert finding.short.endswith("; what is added cannot be told")


def test_a_model_that_gets_no_weight_is_said_to(patients: pd.DataFrame) -> None:
    rows = run_of(patients, {"ours": 1.0, "clinical": 1.0})
    rows.loc[rows["model"] == "ours", "risk"] *= -1
    (task,) = audited_tasks(rows, {}, n_bootstrap=20)
    (finding,), _ = what_is_added(task)
    assert finding.level == "note"
    assert finding.found.startswith("ours adds nothing to Clinical model: combined by weights from ")
    assert finding.found.endswith(finding.short.rpartition(": ")[2])
    assert finding.short == "nothing beside Clinical model: its weight is 0 in all folds"


def test_without_events_it_cannot_be_told_what_is_added(patients: pd.DataFrame) -> None:
    rows = run_of(patients, {"ours": 1.0, "clinical": 1.0})
    first = rows["patient_id"].isin(rows["patient_id"].unique()[:4])

    audit = audit_predictions(rows.assign(event=first), n_bootstrap=10)

    (finding,) = [finding for finding in audit.findings if finding.check == "added value"]
    assert finding.level == "note"
    assert finding.found.startswith("cannot be told whether ours adds to ")
    assert "10 events" in finding.found


def test_to_beat_a_trivial_model_below_chance_says_nothing(patients: pd.DataFrame) -> None:
    rows = run_of(patients, {"subspace": 0.1, "clinical": 1.0})
    of_clinical = rows["model"] == "clinical"
    rows.loc[of_clinical, "risk"] *= -1
    (task,) = audited_tasks(rows, n_bootstrap=50)

    ((level, text),) = found(rows, "trivial baseline")
    (added,), _ = what_is_added(task)

    assert (level, added.level) == ("note", "note")
    value = f"{task.values['clinical']:.3f}"
    says_nothing = f"C-index of Clinical model, the best of its kind here, is not above chance ({value})"
    assert text.endswith(f"which says nothing: {says_nothing}")
    assert added.found == f"cannot be told what Subspace fusion adds: {says_nothing}"


def test_a_simple_model_that_is_not_shown_to_be_related_to_the_outcome_is_not_recommended(
    patients: pd.DataFrame,
) -> None:
    (task,) = audited_tasks(run_of(patients, {"subspace": 4.0, "cox": 1.5, "clinical": 2.0}), {}, n_bootstrap=50)
    _, comparisons = compare_task(task, reference="none")
    remedies = [
        " ".join(f.remedy for f in compare_with_simple(task, comparisons, unrelated=unrelated))
        for unrelated in ((), ("cox", "clinical"))
    ]
    assert "else prefer the linear model" in remedies[0]
    assert "else prefer the trivial one" in remedies[0]
    assert "prefer" not in remedies[1]
    for kind in ("linear", "trivial"):
        assert f"the {kind} model is no alternative: it is not shown to be related to the outcome" in remedies[1]


def test_a_simple_model_whose_inputs_the_cohort_has_is_named(patients: pd.DataFrame) -> None:
    (task,) = audited_tasks(run_of(patients, {"subspace": 1.0, "cox": 1.5}), {}, n_bootstrap=50)
    _, comparisons = compare_task(task, reference="none")

    def remedy(runnable: tuple[str, ...]) -> str:
        findings = compare_with_simple(task, comparisons, runnable=runnable)
        return next(f.remedy for f in findings if f.check == "trivial baseline")

    assert remedy(()).startswith("Declare `covariates` and `batch`")
    assert "give age, sex, markers and site with `--patients`" in remedy(())
    assert "`--models ... clinical`" in remedy(("subspace", "cox", "clinical"))
