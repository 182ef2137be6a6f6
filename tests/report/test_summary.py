import json
import re
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest
import yaml
from fake_run import write_audit, write_fake_run

from subfuse.audit.confounding.held_out_sites import CHECK as HELD_OUT
from subfuse.audit.findings import Audit, Finding
from subfuse.errors import counted
from subfuse.evaluation.metrics import duration, metric_title
from subfuse.expression.gene_sets import coverage
from subfuse.report import write_report
from subfuse.report.cohort_section import cohort_section
from subfuse.report.model_card import escaped, model_card
from subfuse.report.patient_section import PictureBudget
from subfuse.report.run_files import RunFiles, read_run
from subfuse.report.statements import singular
from subfuse.report.summary import (
    Caution,
    TaskCard,
    calibration_sentence,
    caution,
    cohort_sentence,
    patients_of_run,
    task_card,
)


def card_of(run: Path, task: str) -> TaskCard:
    return task_card(read_run(run), task, anchor="task-1")


def lines_of(run: Path, task: str) -> dict[str, str]:
    return {line.heading: line.sentence for line in card_of(run, task).lines}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("summary") / "run", patients=50, explained=0)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_fake_run(tmp_path_factory.mktemp("summary") / "audited", patients=50, explained=0)
    write_audit(run)
    return run


def with_audit(run: Path, level: str, found: str, advice: str = "") -> None:
    finding = {"level": level, "check": "calibration", "task": "survival", "model": "subspace", "found": found}
    finding |= {"why": "", "remedy": "Do something.", "short": advice}
    (run / "audit.json").write_text(json.dumps({"counts": {level: 1}, "findings": [finding], "tables": {}}))


def test_a_card_says_what_the_main_model_adds_to_a_trivial_one(run: Path, tmp_path: Path) -> None:
    copy = copytree(run, tmp_path / "run")
    found = {
        "trivial baseline": ("warning", "Subspace fusion is not shown to be better than the best trivial baseline"),
        "added value": ("note", "Subspace fusion is not shown to add to Clinical model (C-index +0.003)"),
        "hospitals held out": ("warning", "Subspace fusion: C-index 0.600 with whole hospitals held out"),
    }
    findings = [
        {
            "level": level,
            "check": check,
            "task": "survival",
            "model": "subspace",
            "found": text,
            "why": "",
            "remedy": "",
            "short": "is not shown to be better: +0.003" if check == "trivial baseline" else "",
        }
        for check, (level, text) in found.items()
    ]
    (copy / "audit.json").write_text(json.dumps({"counts": {}, "findings": findings, "tables": {}}))

    lines = lines_of(copy, "survival")

    assert lines["Against no biology"] == "is not shown to be better: +0.003"
    assert lines["Added value"] == found["added value"][1]  # as an audit of an earlier version has it
    short = next(line for line in model_card(read_run(copy)).splitlines() if line.startswith("- Survival"))
    assert all(text in short.replace("\\", "") for _, text in found.values())
    assert lines["Hospitals held out"] == found["hospitals held out"][1]
    assert not {"Added value", "Hospitals held out"} & set(lines_of(run, "survival"))


def test_a_card_names_the_trivial_model_what_it_reads_and_its_number(run: Path, tmp_path: Path) -> None:
    copy = copytree(run, tmp_path / "run")
    metrics = pd.read_csv(copy / "metrics.csv")
    of_clinical = metrics[(metrics["model"] == "snn") & (metrics["task"] == "survival")].assign(model="clinical")
    pd.concat([metrics, of_clinical.assign(value=0.847)]).to_csv(copy / "metrics.csv", index=False)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["covariates"] = ["age", "gender=male", "idh=mutant", "class=a", "class=b"]
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [{"task": "survival", "model": "snn", "trivial": "site"}]
    rows += [{"task": "survival", "model": "subspace", "trivial": "clinical"}]
    found = {"level": "ok", "check": "added value", "task": "survival", "model": "subspace", "found": "", "why": ""}
    audit = {"counts": {}, "findings": [found | {"remedy": "", "short": "adds to Clinical model: +0.1"}]}
    (copy / "audit.json").write_text(json.dumps(audit | {"tables": {"added_value": rows}}))

    shown = lines_of(copy, "survival")
    assert shown["Best without biology"] == "Clinical model (age, gender, idh, class) 0.847"
    assert shown["Added value"] == "adds to it: +0.1"
    assert "Best without biology" not in lines_of(copy, "grade")
    assert "Clinical model" not in shown
    rows[1]["trivial"] = "site"
    rows += [{"task": "survival", "model": "subspace", "trivial": "clinical"}]
    short = "0.847, difference +0.02 (−0.01 to +0.05); combined +0.1 (+0.05 to +0.2)"
    sentence = "Subspace fusion adds to Clinical model (C-index +0.1); instead of it (C-index 0.847): C-index +0.02"
    audit["findings"] += [found | {"remedy": "", "check": "clinical model", "found": sentence, "short": short}]
    (copy / "audit.json").write_text(json.dumps(audit | {"tables": {"added_value": rows}}))
    shown = lines_of(copy, "survival")
    assert shown["Best without biology"] == "Hospital alone"
    assert shown["Clinical model"] == short
    assert f"{sentence}." in model_card(read_run(copy)).replace("\\", "")


def test_a_card_gives_the_number_of_the_table_and_what_it_means(run):
    table = pd.read_csv(run / "metrics.csv").set_index(["task", "model", "metric"])
    row = table.loc[("survival", "subspace", "c_index")]
    card = card_of(run, "survival")
    assert (card.metric, card.model, card.value) == ("C-index", "Subspace fusion", f"{row['value']:.3f}")
    assert card.interval == f"95\u00a0% interval {row['lower']:.3f} to {row['upper']:.3f}"
    text = card.meaning.replace("\u00a0", " ")
    assert f"gets the higher risk in {row['value']:.0%}".replace("%", " % of pairs (chance: 50 %)") in text
    assert card.size.startswith("50 test patients, ")


def test_a_card_gives_the_verdict_on_fusion_with_its_evidence(audited):
    better, open_ = card_of(audited, "survival"), card_of(audited, "grade")
    assert (better.verdict, better.tone) == ("Fusion helps.", "good")
    assert (open_.verdict, open_.tone) == ("Fusion is not shown to help.", "open")
    value = pd.read_csv(audited / "metrics.csv").set_index(["task", "model", "metric"])["value"]
    shown = lines_of(audited, "survival")
    assert shown["Best single modality"] == f"SNN (expression only) {value[('survival', 'snn', 'c_index')]:.3f}"
    assert shown["Difference"] == "+0.051, 95 % interval +0.011 to +0.092, adjusted p\u00a0=\u00a00.012"
    assert (
        lines_of(audited, "grade")["Difference"]
        == "−0.012, 95 % interval −0.040 to +0.020, adjusted p\u00a0=\u00a00.500"
    )


def test_bars_of_a_card_lie_as_their_numbers_do(audited):
    rows = pd.read_csv(audited / "metrics.csv").query("task == 'survival' and metric == 'c_index'").set_index("model")
    card = card_of(audited, "survival")
    assert [bar.name for bar in card.bars] == ["Subspace fusion", "SNN"]
    scale = [bar_end for bar in card.bars for bar_end in (bar.lower, bar.value, bar.upper)]
    known = rows.loc[["subspace", "snn"], ["lower", "value", "upper"]].to_numpy().ravel()
    expected = (known - 0.5) / (known.max() - 0.5)
    assert scale == pytest.approx(expected, abs=1e-4)
    assert card.chance == 0


def test_a_better_model_than_the_main_one_is_named(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    table = pd.read_csv(run / "metrics.csv")
    table.loc[(table["model"] == "snn") & (table["metric"] == "c_index"), "value"] = 0.987
    table.to_csv(run / "metrics.csv", index=False)
    assert lines_of(run, "survival")["Highest of all"] == "SNN (expression only) 0.987"


def test_an_undefined_number_has_its_reason_and_no_interval(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    table = pd.read_csv(run / "metrics.csv")
    main = (table["model"] == "subspace") & (table["metric"] == "c_index")
    table.loc[main, ["value", "lower", "upper"]] = float("nan")
    table["reason"] = table["reason"].astype(object).mask(main, "1 patients in a fold")
    table.to_csv(run / "metrics.csv", index=False)
    card = card_of(run, "survival")
    assert (card.value, card.is_defined, card.interval, card.meaning) == ("undefined", False, "", "")
    assert lines_of(run, "survival")["Remark"] == "1 patient in a fold"


def test_a_comparison_without_a_test_has_no_verdict(audited, tmp_path):
    run = copytree(audited, tmp_path / "run")
    content = json.loads((run / "audit.json").read_text())
    row = next(row for row in content["tables"]["fusion"] if row["task"] == "survival")
    row |= dict.fromkeys(("lower", "upper", "p_adjusted")) | {"reason": "no interval and no p-value: 3 events"}
    (run / "audit.json").write_text(json.dumps(content))
    card = card_of(run, "survival")
    assert (card.verdict, card.tone) == ("Whether fusion helps could not be tested.", "open")
    assert lines_of(run, "survival")["Difference"] == "+0.051, not tested: no interval and no p-value: 3 events"
    card_text = model_card(read_run(run))
    assert "SNN (expression only), could not be tested: no interval and no p-value: 3 events." in card_text
    assert (
        "not shown to be better than the best single modality, SNN" not in card_text.split("Survival")[1].split("\n")[0]
    )


def test_what_was_not_tested_is_said(run):
    assert card_of(run, "grade").verdict == "Whether fusion helps was not tested."
    assert lines_of(run, "grade")["Probabilities"] == "not tested"
    found = caution(read_run(run))
    assert found.sentence.startswith("This run was not audited")
    assert not found.is_detailed


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ("ok", "no sign that they are off"),
        ("warning", "signs that they are off: recalibrate before use"),
        ("note", "not tested"),
    ],
)
def test_calibration_of_the_main_model_comes_from_the_audit(tmp_path, level, words):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    with_audit(run, level, "subspace: p = 0.4", "recalibrate before use")
    assert lines_of(run, "survival")["Probabilities"] == words
    assert ("and 1 warning." in caution(read_run(run)).sentence) == (level == "warning")


def test_numbers_of_calibration_stand_beside_the_verdict_without_the_models_name(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    of = {"task": "survival", "model": "subspace"}
    for level, detail, sentence in (
        ("ok", "Brier 0.1", "Probabilities: no sign that they are off (Brier 0.1)."),
        ("note", "cannot be checked, 1 patients", "Probabilities: cannot be checked, 1 patient."),
    ):
        finding = Finding.of_model(level, "calibration", detail, **of)
        assert finding.found == f"Subspace fusion: {detail}"
        (run / "audit.json").write_text(json.dumps(Audit((finding,)).to_dict()))
        assert calibration_sentence(read_run(run), "survival") == sentence


def test_inputs_that_were_allowed_although_they_may_be_the_outcome_are_named_beside_their_task(run, tmp_path):
    copy = copytree(run, tmp_path / "run")
    config = yaml.safe_load((copy / "config.yaml").read_text()) | {"allow_inputs": ["PBX4"]}
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    for_both = {task: lines_of(copy, task).get("Outcome in disguise?") for task in ("survival", "grade")}
    assert set(for_both.values()) == {"PBX4; allowed by name"}  # no audit says of which task

    found = (
        Finding("note", "outcome in disguise", "input PBX4 is allowed", task="grade", short="PBX4"),
        Finding("note", "outcome in disguise", "3 input(s) order few patients, some by chance", task="grade"),
        Finding("ok", "outcome in disguise", "none of 9 inputs", task="survival"),
    )
    (copy / "audit.json").write_text(json.dumps(Audit(found).to_dict()))
    assert lines_of(copy, "grade")["Outcome in disguise?"] == "PBX4; allowed by name"
    assert "Outcome in disguise?" not in lines_of(copy, "survival")
    told = [line for line in model_card(read_run(copy)).splitlines() if "in disguise" in line]
    assert [line.split(":")[0] for line in told] == ["- Grade"]
    assert told[0].endswith("Inputs allowed by name that may be the outcome in disguise: PBX4.")
    assert "Outcome in disguise?" not in lines_of(run, "grade")


def test_failures_stand_first_whole_and_once(audited):
    found = caution(read_run(audited))
    assert found == Caution("bad", found.sentence, is_detailed=True)
    assert found.sentence.startswith("Do not use these results before this is settled: patient leakage: 7 persons ")


def test_external_validation_is_named(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    (run / "config.yaml").write_text(yaml.safe_dump({"trained": "run-a", "evaluated": "hospital"}))
    files = read_run(run)
    assert "an external cohort, predicted by the finished models of run-a" in cohort_sentence(files)
    assert "other hospitals" not in caution(files).sentence
    assert files.title == "hospital"
    table = pd.read_csv(run / "metrics.csv").assign(lower=float("nan"), upper=float("nan"))
    table.to_csv(run / "metrics.csv", index=False)
    page = re.sub(r"<[^>]+>", " ", write_report(run).read_text(encoding="utf-8").replace("&nbsp;", " "))
    for text in (page, (run / "MODEL_CARD.md").read_text(encoding="utf-8")):
        assert "Of the mean of the models of all folds, on the external cohort" in text
        assert not re.search(
            "test folds|interval no interval|not those of other hospitals", text.replace("\u00a0", " ")
        )


def test_hospitals_that_were_held_out_whole_are_no_limit(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    files = read_run(run)
    files = replace(files, predictions=files.predictions[files.predictions["model"] == "subspace"])
    tested = files.predictions[files.predictions["split"] == "test"]
    patients = tested.drop_duplicates("patient_id")[["patient_id", "fold"]]

    def of_hospitals(sites: object) -> RunFiles:
        return replace(files, cohort=files.cohort | {"patients": patients.assign(site=sites)})

    by_fold = of_hospitals("H" + patients["fold"].astype(str))
    assert "hospitals" not in caution(by_fold).sentence
    assert "not those of other hospitals" not in model_card(by_fold)
    for mixed in (files, of_hospitals("H"), of_hospitals(["A", "B"] * (len(patients) // 2))):
        assert "Patients of other hospitals may" in caution(mixed).sentence
    for level, is_told in (("ok", True), ("warning", True), ("note", False)):  # of hospitals held out beside the folds
        finding = {"check": HELD_OUT, "level": level, "task": "survival", "model": "subspace", "found": "a gap"}
        measured = replace(files, audit={"findings": [finding]})
        assert ("other hospitals" not in caution(measured).sentence) == is_told


@pytest.mark.parametrize("level", ["ok", "warning"])
def test_the_verdict_leads_where_predictions_are_not_shown_to_be_related_to_the_outcome(tmp_path, level):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    unrelated = "The predictions are not shown to be related to the outcome."
    finding = Finding(level, "label permutation", "p = 0.4", unrelated, task="survival", model="subspace")
    (run / "audit.json").write_text(json.dumps(Audit((finding,)).to_dict()))
    card = card_of(run, "survival")
    assert (card.verdict == unrelated) == card.leads == (level == "warning")
    assert (card.tone == "bad") == card.leads
    page, text = write_report(run).read_text(encoding="utf-8"), (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert (0 < page.find(unrelated) < page.index(card.value)) == card.leads
    assert (0 < text.find(unrelated) < text.index("C-index")) == card.leads


def test_patients_are_counted_in_one_way_wherever_they_are_told(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, explained=0)
    patients = pd.read_csv(run / "cohort" / "patients.csv")
    again = pd.DataFrame([("patient", name, "told twice") for name in (patients["patient_id"][0], "TCGA-99-0000")])
    exclusions = pd.concat(
        [pd.read_csv(run / "cohort" / "exclusions.csv"), again.set_axis(["level", "id", "reason"], axis=1)]
    )
    exclusions.to_csv(run / "cohort" / "exclusions.csv", index=False)
    predictions = pd.read_csv(run / "predictions.csv")
    of_grade = (predictions["task"] == "grade") & (predictions["patient_id"] == patients["patient_id"][1])
    predictions[~of_grade].to_csv(run / "predictions.csv", index=False)
    files = read_run(run)
    one_fold = replace(files, predictions=files.predictions[files.predictions["fold"] == 2])
    assert re.search(r"; \d+ of them are predicted by models that never saw them\.$", patients_of_run(one_fold)[0])
    lines = patients_of_run(files)
    assert lines[0].startswith("40 of 52 patients (12 excluded): ")
    assert lines[0].endswith("; each is predicted by models that never saw them, in 5 folds.")
    assert lines[1].startswith("survival: 40 test patients, ")
    assert lines[2].startswith("grade: 39 test patients; ")
    card = model_card(files)
    assert all(escaped(line) in card for line in lines)
    is_main = (files.predictions["model"] == "subspace") & (
        files.predictions["patient_id"] == patients["patient_id"][2]
    )
    fewer = replace(files, predictions=files.predictions[~is_main])  # as the clinical model predicts everybody
    size = task_card(fewer, "survival", anchor="task-1").size
    assert size.startswith("39 of 40 test patients (1 without slides and expression), ")
    assert f"survival: {size}" in patients_of_run(fewer)
    failed = pd.DataFrame([{"task": "survival", "model": "subspace", "fold": 1, "reason": "out of memory"}])
    size = task_card(replace(fewer, failures=failed), "survival", anchor="task-1").size
    assert size.startswith("39 of 40 test patients (1 not predicted, see failed jobs), ")
    boxes = [(box["count"], box["label"]) for box in cohort_section(files, PictureBudget()).content["flow"]]
    assert boxes[:3] == [("52", "patients found"), ("12", "excluded"), ("40", "in the cohort")]
    few = replace(files, cohort={**files.cohort, "gene_set_coverage": coverage({"tumour": ["A", "B", "C"]}, ["A"])})
    (note,) = cohort_section(few, PictureBudget()).content["notes"]
    assert "gene_sets.tumour: 1 of 3 genes are measured" in note


@pytest.mark.parametrize(("absent", "other"), [("slides", "expression"), ("expression", "slides")])
def test_only_modalities_that_somebody_has_are_named(tmp_path, absent, other):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("grade",), explained=0)
    patients = pd.read_csv(run / "cohort" / "patients.csv").assign(n_slides=1, has_expression=True)
    changes = {"n_slides": 0} if absent == "slides" else {"has_expression": False}
    patients.assign(**changes).to_csv(run / "cohort" / "patients.csv", index=False)
    if absent == "slides":
        pd.DataFrame(columns=["slide_id", "patient_id", "n_patches"]).to_csv(run / "cohort" / "slides.csv", index=False)
    files = read_run(run)
    card = model_card(files)
    told = [
        cohort_sentence(files),
        card[: card.index("- Models compared")],
        card[card.index("## Data") : card.index("- Excluded")],
    ]
    told += [box["label"] for box in cohort_section(files, PictureBudget()).content["flow"]]
    assert absent not in " ".join(told).replace("gene expression", "expression")
    assert f"40 with {'gene ' if other == 'expression' else ''}{other}" in told[0]
    assert f"Subspace fusion ({other} only)" in card
    assert "rest on the other alone" not in card


def test_a_renamed_gene_is_said_and_is_no_exclusion(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), explained=0)
    row = "renamed,METTL7B,not excluded: used as TMT1B\n"
    (run / "cohort" / "exclusions.csv").write_text(f"level,id,reason\n{row}")
    notes = cohort_section(read_run(run), PictureBudget()).content["notes"]
    assert notes[0] == "Nothing was excluded."
    assert notes[1].startswith("METTL7B is an earlier symbol")
    assert "Excluded" not in model_card(read_run(run))


def test_one_of_a_kind_is_singular_everywhere(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), explained=0)
    (run / "cohort" / "exclusions.csv").write_text("level,id,reason\npatient,007,no label\n")
    patients = pd.read_csv(run / "cohort" / "patients.csv").head(1).assign(n_slides=1, has_expression=True)
    patients.to_csv(run / "cohort" / "patients.csv", index=False)
    comparisons = pd.read_csv(run / "comparisons.csv")
    comparisons["reason"] = "1 patients left out"
    comparisons.to_csv(run / "comparisons.csv", index=False)
    with_audit(run, "warning", "1 patients in two folds")
    page = write_report(run).read_text(encoding="utf-8")
    assert "1 patient left out" in page
    assert "1 patient in two folds" in page
    plural = r"(?<![\w.,:;#&-])1 (?:patient|slide|event|fold|warning|failure|note|year|month|gene|cohort|site)s\b"
    for text in (page, (run / "MODEL_CARD.md").read_text(encoding="utf-8")):
        assert re.findall(plural, re.sub(r"<[^>]+>", " ", text)) == []


def test_numbers_take_their_nouns_along():
    assert [counted(n, "fold") for n in (0, 1, 21)] == ["0 folds", "1 fold", "21 folds"]
    assert singular("1 patients, 21 patients, 0.1 patients; AUC 1 years") == (
        "1 patient, 21 patients, 0.1 patients; AUC 1 year"
    )
    assert duration(365) == "1 year"
    assert metric_title("auc_365_days") == "AUC at 1 year"


def test_probabilities_that_cannot_be_recalibrated_are_not_to_be_used(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    with_audit(run, "warning", "subspace: p = 0.01", "do not use them")
    assert lines_of(run, "survival")["Probabilities"] == "signs that they are off: do not use them"
