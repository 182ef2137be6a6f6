from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from subfuse.cli import main
from subfuse.cohort.cohort import read_cohort
from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.cohort.fold_files import read_repeats
from subfuse.cohort.marker import mark_complete
from subfuse.errors import ConfigurationError, DataError
from subfuse.exclusions import exclusion_table
from subfuse.expression.table import ExpressionTable
from subfuse.preparation.plan import CohortPlan, plan_cohort
from subfuse.preparation.prepared import write_prepared
from subfuse.preparation.sources import pool_expression, restrict_expression

GENES = {"a": ["G1", "G2", "G3", "G5"], "b": ["G3", "G4", "G2", "G1"], "c": ["G1", "G3", "G2"]}
SIZES = {"a": 14, "b": 9, "c": 5}
SHARED = """
gene_sets: {tumour: sets.gmt}
tasks: {survival: {time: time_days, event: event}, grade: {column: grade}}
covariates: [age, sex]
"""


@pytest.fixture
def folder(tmp_path):
    """Cohorts a (14 patients, one slide each for the first three), b (9) and c (5), all with expression."""
    random = np.random.default_rng(0)
    for cohort, n in SIZES.items():
        ids = [f"{cohort}{i:02d}" for i in range(n)]
        table = pd.DataFrame({"patient_id": ids, "time_days": 100.0 + 50 * random.permutation(n)})
        table["event"] = [i % 3 > 0 for i in range(n)]
        table["grade"] = [f"G{2 + i % 2}" for i in range(n)]
        if cohort != "c":
            table["age"] = 50 + random.integers(0, 20, size=n)
        table["sex"] = "male" if cohort == "b" else ["female" if i % 2 else "male" for i in range(n)]
        table["site"] = [f"{cohort}-{i % 3}" for i in range(n)]
        table.to_csv(tmp_path / f"{cohort}.csv", index=False)
        genes = GENES[cohort]
        values = pd.DataFrame(random.gamma(2.0, 3.0, size=(n, len(genes))).round(3), index=ids, columns=genes)
        values.to_csv(tmp_path / f"{cohort}_expression.csv", index_label="case")
    (tmp_path / "slides").mkdir()
    for i in range(3):
        (tmp_path / "slides" / f"a{i:02d}_x.svs").touch()
    (tmp_path / "sets.gmt").write_text("A\td\tG1\tG9\nB\td\tG3\tG4\n")
    return tmp_path


def entry(name: str, role: str, *, unit: str = "tpm", slides: str = "", table: str = "") -> str:
    expression = f"expression: {{table: {table or name}_expression.csv, unit: {unit}}}"
    return f"  - {{name: {name}, role: {role}, patients: {{table: {table or name}.csv}}, {expression}{slides}}}\n"


def plan_of(folder: Path, *entries: str, splits: str = "{folds: 3, seed: 1}", shared: str = SHARED) -> CohortPlan:
    entries = entries or (
        entry("a", "develop", slides=", slides: {folder: slides}"), entry("b", "develop", unit="fpkm"),
        entry("c", "external"),
    )  # fmt: skip
    path = folder / "cohort.yaml"
    path.write_text(f"name: all\ncohorts:\n{''.join(entries)}{shared}splits: {splits}\n")
    return plan_cohort(read_cohort_file(path))


def prepare(folder: Path, plan: CohortPlan) -> Path:
    out = folder / "prepared"
    slides = pd.DataFrame(
        [(s.slide_id, s.patient_id, f"{s.slide_id}.h5") for s in plan.slides],
        columns=["slide_id", "patient_id", "features"],
    )
    out.mkdir()
    for name in slides["features"]:
        (out / name).touch()
    write_prepared(out, read_cohort_file(folder / "cohort.yaml"), plan, slides)
    mark_complete(out, {})
    return out


def test_develop_cohorts_are_pooled_and_external_ones_are_in_no_fold(folder):
    plan = plan_of(folder)
    assert plan.roles == {"a": "develop", "b": "develop", "c": "external"}
    assert plan.patients["cohort"].value_counts().to_dict() == SIZES
    assert plan.patients["patient_id"].is_monotonic_increasing
    in_folds = {p for fold in plan.folds for p in fold.train + fold.validation + fold.test}
    assert in_folds == set(plan.patients.loc[plan.patients["cohort"] != "c", "patient_id"])
    for fold in plan.folds:  # the mixture of cohorts is kept
        assert sum(p.startswith("a") for p in fold.test) in (4, 5)
        assert sum(p.startswith("b") for p in fold.test) == 3


def test_genes_that_a_table_names_otherwise_are_recorded_and_nothing_is_excluded(folder):
    for cohort, others in (("a", {"G3": "METTL7B", "G5": "PPAP2B"}), ("b", {"G3": "TMT1B"})):
        path = folder / f"{cohort}_expression.csv"
        pd.read_csv(path, index_col="case").rename(columns=others).to_csv(path)
    (folder / "sets.gmt").write_text("A\td\tG1\tTMT1B\n")
    plan = plan_of(folder, entry("b", "develop"), entry("a", "develop"))
    assert "1 renamed (METTL7B as TMT1B)" in plan.summary()
    assert plan.exclusions[plan.exclusions["id"] == "PLPP3"]["reason"].tolist() == [
        "measured in a (as PPAP2B) but not in b"
    ]
    out = prepare(folder, plan)
    written = pd.read_csv(out / "exclusions.csv")
    pd.testing.assert_frame_equal(written[written["level"] != "renamed"], plan.exclusions)
    assert written[written["level"] == "renamed"]["id"].tolist() == ["METTL7B"]
    assert "used as TMT1B" in written["reason"].iloc[-1]
    assert read_cohort(out).names_in_table == {"TMT1B": "METTL7B"}


def test_genes_are_matched_by_name_and_dropped_ones_counted(folder):
    plan = plan_of(folder)
    assert plan.expression is not None
    assert list(plan.expression.values.columns) == ["G1", "G2", "G3"]
    assert (plan.expression.unit, plan.expression.scale) == ("log2_tpm", "log2_tpm")
    genes = plan.exclusions[plan.exclusions["level"] == "gene"]
    assert dict(zip(genes["id"], genes["reason"], strict=True)) == {
        "G4": "measured in b but not in a and c",
        "G5": "measured in a but not in b and c",
    }
    raw = pd.read_csv(folder / "a_expression.csv", index_col=0)
    np.testing.assert_allclose(
        plan.expression.values.loc["a03"], np.log2(raw.loc["a03", ["G1", "G2", "G3"]] + 1), rtol=1e-5
    )
    alone = plan_of(folder, entry("b", "develop", unit="fpkm"), shared="gene_sets: {t: sets.gmt}\n")
    assert alone.expression is not None
    shared = list(plan.expression.values.columns)
    pd.testing.assert_frame_equal(
        plan.expression.values.loc["b00":"b08"], alone.expression.values[shared], check_names=False
    )


def test_genes_of_one_cohort_in_another_case_are_told(folder):
    shared = SHARED.replace("covariates: [age, sex]", "")
    genes = pd.read_csv(folder / "b_expression.csv", index_col="case")
    genes.rename(columns={"G1": "g1"}).to_csv(folder / "b_expression.csv")
    plan = plan_of(folder, entry("a", "develop"), entry("b", "develop"))
    reasons = plan.exclusions.set_index("id")["reason"]
    assert reasons["G1"] == "measured in a but not in b (it has g1)"
    genes.rename(columns=str.lower).to_csv(folder / "b_expression.csv")
    with pytest.raises(DataError, match=r"must share genes.* 3 differ only in case \(`g1` for G1, "):
        plan_of(folder, entry("a", "develop"), entry("b", "develop"))
    with pytest.raises(DataError, match=r"gene_sets.tumour: .* 3 differ only in case \(`g1` for G1, "):
        plan_of(folder, entry("b", "develop"), shared=shared)
    genes.rename(columns={"G1": "g1"}).to_csv(folder / "b_expression.csv")
    (warning,) = [
        text for text in plan_of(folder, entry("b", "develop"), shared=shared).warnings if "only in case" in text
    ]
    assert "(`g1` for G1): use one spelling" in warning


def test_check_prints_the_plan_of_every_cohort(folder, capsys):
    plan_of(folder, entry("a", "develop"), entry("b", "develop"), entry("c", "external"))
    assert main(["check", str(folder / "cohort.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "c (external): 5 patients" in printed
    assert "covariates: age known for 23" in printed
    assert "Expression of the cohorts" in printed
    assert "measured in a but not in b and c" in printed
    assert not (folder / "prepared").exists()


def test_harmonisation_compares_every_cohort_with_the_first(folder):
    plan = plan_of(folder, entry("c", "external"), entry("b", "develop"), entry("a", "develop"))
    table = plan.harmonisation
    assert list(zip(table["cohort"], table["reference"], table["gene_set"], strict=True)) == [
        ("a", "b", "tumour"), ("a", "b", "all genes"), ("c", "b", "tumour"), ("c", "b", "all genes"),
    ]  # fmt: skip
    assert table["n_shared"].tolist() == [2, 3, 2, 3]
    assert table["missing"].tolist() == ["G4", "G4", "G4", "G4"]
    read = pd.read_csv(prepare(folder, plan) / "harmonisation.csv", keep_default_na=False)
    assert read["gene_set"].tolist() == table["gene_set"].tolist()
    assert plan_of(folder, entry("a", "develop")).harmonisation.empty


def test_roles_read_back_from_one_prepared_folder(folder):
    plan = plan_of(folder, splits="{folds: 3, repeats: 2}")
    out = prepare(folder, plan)
    sizes = {role: len(read_cohort(out, role=role)) for role in (None, "develop", "external", "a", "b", "c")}
    assert sizes == {None: 23, "develop": 23, "external": 5, "a": 14, "b": 9, "c": 5}
    develop, external = read_cohort(out), read_cohort(out, role="external")
    assert (develop.name, external.name) == ("all", "c")
    assert develop.genes == external.genes == ("G1", "G2", "G3")
    assert develop.covariates == external.covariates == ("age", "sex=male")
    assert develop.tasks == external.tasks
    assert develop.tasks["grade"].classes == ("G2", "G3")
    by_id = {patient.patient_id: patient for patient in (*develop, *external)}
    assert {patient.cohort for patient in external} == {"c"}
    assert by_id["c01"].covariates == {"sex": "female"}
    assert "age" not in by_id["c01"].labels
    assert [path.name for path in by_id["a02"].slides] == ["a02_x.h5"]
    assert read_repeats(out / "splits" / "default") == plan.repeats
    assert plan_cohort(read_cohort_file(out / "cohort.yaml")).repeats == plan.repeats
    with pytest.raises(ConfigurationError, match=r"Found 'd'; cohorts: a \(develop\), b \(develop\), c \(external\)"):
        read_cohort(out, role="d")


def test_cohorts_may_share_their_sources(folder):
    """One matrix and one folder of slides for a and b: each patient once, nobody listed as excluded."""
    tables = [pd.read_csv(folder / f"{name}_expression.csv", index_col=0)[["G1", "G2", "G3"]] for name in "ab"]
    stranger = pd.DataFrame(1.0, index=["x00"], columns=["G1", "G2", "G3"])
    pd.concat([*tables, stranger]).to_csv(folder / "both_expression.csv", index_label="case")
    for name in ("b00_x.svs", "y00_x.svs"):
        (folder / "slides" / name).touch()
    entries = [
        entry(name, "develop", slides=", slides: {folder: slides}").replace(f"{name}_expr", "both_expr")
        for name in "ab"
    ]
    plan = plan_of(folder, *entries)
    assert plan.expression is not None
    assert plan.expression.values.index.tolist() == plan.patients["patient_id"].tolist()
    assert len(plan.patients) == 23
    assert [slide.slide_id for slide in plan.slides] == ["a00_x", "a01_x", "a02_x", "b00_x"]
    assert plan.exclusions[["level", "id"]].to_numpy().tolist() == [["slide", "y00_x"], ["expression", "x00"]]


def test_folds_of_whole_sites(folder):
    plan = plan_of(folder, splits="{folds: 4, by: site}")
    site = plan.patients.set_index("patient_id")["site"]
    for fold in plan.folds:
        assert not set(site[list(fold.test)]) & set(site[list(fold.train + fold.validation)])


def test_only_external_cohorts(folder):
    plan = plan_of(folder, entry("a", "external"), entry("b", "external"), shared="gene_sets: {t: sets.gmt}\n")
    assert (plan.folds, plan.repeats) == ((), ())
    assert plan.tasks["grade"].classes is None
    assert len(read_cohort(prepare(folder, plan))) == 23


def test_summary_and_warnings_name_the_cohort(folder):
    table = pd.read_csv(folder / "b.csv")
    table["event"] = False
    table.to_csv(folder / "b.csv", index=False)
    plan = plan_of(folder)
    lines = plan.summary().splitlines()
    assert "a (develop): 14 patients" in lines
    assert "  slides: 3, of 3 patients" in lines
    assert "c (external): 5 patients" in lines
    assert "  covariates: age known for 23, sex=male known for 28" in lines
    assert sum(warning.startswith("b: event is false for every patient") for warning in plan.warnings) == 1


@pytest.mark.parametrize(
    ("entries", "error", "message"),
    [
        ([("a", "develop", "tpm"), ("b", "external", "zscore")], DataError,
         r"one scale. Found log2_tpm \(unit tpm\) in a and zscore \(unit zscore\) in b"),
        ([("a", "develop", "tpm"), ("c", "develop", "rsem")], DataError, "log2_tpm .* in a and log2_cpm .* in c"),
    ],
)  # fmt: skip
def test_scales_must_agree(folder, entries, error, message):
    with pytest.raises(error, match=message):
        plan_of(folder, *(entry(name, role, unit=unit) for name, role, unit in entries))


def test_a_patient_belongs_to_one_cohort(folder):
    with pytest.raises(DataError, match=r"a patient belongs to one cohort. Found a00, a01, .* in a and again \(14"):
        plan_of(folder, entry("a", "develop"), entry("again", "external", table="a"))


def test_a_slide_belongs_to_one_cohort(folder):
    (folder / "more").mkdir()
    (folder / "more" / "a00_x.svs").touch()
    table = pd.DataFrame({"slide_id": ["a00_x"], "patient_id": ["b00"]})
    table.to_csv(folder / "more.csv", index=False)
    with pytest.raises(DataError, match=r"a slide belongs to one cohort. Found a00_x in a and b"):
        plan_of(folder, entry("a", "develop", slides=", slides: {folder: slides}"),
                entry("b", "develop", slides=", slides: {folder: more, table: more.csv}"))  # fmt: skip


def test_labels_that_no_model_would_know(folder):
    table = pd.read_csv(folder / "c.csv")
    table["grade"] = "G1"
    table.to_csv(folder / "c.csv", index=False)
    with pytest.raises(DataError, match=r"tasks.grade: every label of grade must be one of G2, G3. Found G1"):
        plan_of(folder)


def relabelled(folder: Path, labels: list[str]) -> None:
    table = pd.read_csv(folder / "a.csv")
    table["grade"] = [*labels, *[labels[-1]] * (len(table) - len(labels))]
    table.to_csv(folder / "a.csv", index=False)


def test_labels_in_two_cases_are_refused_unless_declared(folder):
    relabelled(folder, ["high", "High", "low", "High", "low"])
    with pytest.raises(DataError, match=r"more than case. Found High \(2 patients\) and high \(1\). Write High in all"):
        plan_of(folder, entry("a", "develop"))
    declared = SHARED.replace("{column: grade}", "{column: grade, classes: [low, high, High]}")
    assert plan_of(folder, entry("a", "develop"), shared=declared).tasks["grade"].classes == ("low", "high", "High")


def test_whole_numbers_with_a_decimal_zero_are_the_classes_that_were_declared(folder):
    relabelled(folder, ["2.0", "", "3.0"])
    declared = SHARED.replace("{column: grade}", "{column: grade, classes: ['2', '3']}")
    plan = plan_of(folder, entry("a", "develop"), shared=declared)
    assert set(plan.patients["grade"].dropna()) == {"2", "3"}
    relabelled(folder, ["2.0", "2.5", "3.0"])
    with pytest.raises(DataError, match=r"Found 2\.0, 2\.5, 3\.0"):
        plan_of(folder, entry("a", "develop"), shared=declared)


@pytest.mark.parametrize(
    ("declared", "labels", "remedy"),
    [
        ("[g3, g2]", "G3", r"G2 and g2 differ only in case: write `classes: \[G3, G2\]`"),
        ("[G2, g3]", "G3", r"G3 and g3 differ only in case: write `classes: \[G2, G3\]`"),
        ("[G2, G3+]", "G3-", r"Found G3, G3-. Add them to `classes`"),  # a sign is no spelling
        ("[G2, G3]", "g2", r"g2 and G2 differ only in case: write G2 in these cells"),
        ("[G2, G3]", "G4", r"Found G4. Add them to `classes`"),
    ],
)
def test_classes_in_another_case_are_told_with_what_to_write(folder, declared, labels, remedy):
    table = pd.read_csv(folder / "a.csv")
    table["grade"] = ["G2", *["G3"] * (len(table) - 2), labels]
    table.to_csv(folder / "a.csv", index=False)
    shared = SHARED.replace("{column: grade}", f"{{column: grade, classes: {declared}}}")
    with pytest.raises(DataError, match=remedy):
        plan_of(folder, entry("a", "develop"), shared=shared)


def test_a_cohort_without_patients_is_named(folder):
    pd.read_csv(folder / "b.csv").assign(time_days=None, event=None, grade=None).to_csv(folder / "b.csv", index=False)
    with pytest.raises(DataError, match=r"b: at least one patient .* unknown outcome of survival, grade \(9\)"):
        plan_of(folder)


@pytest.mark.parametrize(
    "identifier",
    ["../b00", "b/00", "b\\00", ".b00", "..", "b\x0100", "b\u202e00", "b\t00", "b" * 151, "ü" * 76, "=b00", "@b00"],
)
def test_identifiers_that_cannot_name_a_folder(folder, identifier):
    if "\t" in identifier:
        identifier = f'"{identifier}"'
    text = (folder / "b.csv").read_text().replace("b00,", f"{identifier},")
    (folder / "b.csv").write_text(text)
    with pytest.raises(DataError, match="b: patient identifiers name folders: printable") as caught:
        plan_of(folder)
    assert len(str(caught.value)) < 300


def test_identifiers_with_spaces_and_letters_of_any_language_are_fine(folder):
    for name in ("b.csv", "b_expression.csv"):
        (folder / name).write_text((folder / name).read_text().replace("b00,", "Müller 患者 7,"))
    assert "Müller 患者 7" in set(plan_of(folder).patients["patient_id"])


def table_of(genes: list[str], *patients: str, unit: str = "tpm") -> ExpressionTable:
    values = np.arange(len(patients) * len(genes), dtype=np.float32).reshape(len(patients), len(genes))
    return ExpressionTable(
        pd.DataFrame(values, index=list(patients), columns=genes), unit, f"from {unit}", {"table": "x.csv"},
        exclusions=exclusion_table([("gene", f"old {patients[0]}", "why")]),
    )  # fmt: skip


def test_pooled_tables_keep_values_and_provenance():
    first, second = table_of(["B", "A", "C"], "q", "s"), table_of(["A", "D", "B"], "p", "r")
    pooled, dropped = pool_expression({"one": first, "two": second})
    assert pooled is not None
    assert pooled.values.to_dict("index") == {
        "p": {"B": 2, "A": 0}, "q": {"B": 0, "A": 1}, "r": {"B": 5, "A": 3}, "s": {"B": 3, "A": 4},
    }  # fmt: skip
    assert pooled.source == {"one: table": "x.csv", "two: table": "x.csv"}
    assert pooled.transform == "one: from tpm; two: from tpm"
    assert pooled.exclusions["id"].tolist() == ["old q", "old p"]
    assert dropped["id"].tolist() == ["C", "D"]
    assert pool_expression({})[0] is None
    assert pool_expression({"one": first})[0] is first
    with pytest.raises(DataError, match=r"must share genes. Found none in all of them \(one: B, A, C; two: X\)"):
        pool_expression({"one": first, "two": table_of(["X"], "p")})


def test_a_mistyped_patient_is_named_with_the_one_that_has_no_expression():
    cohort = [f"PT-{i:03d}" for i in range(40)]
    measured = [name for name in cohort if name not in ("PT-007", "PT-017", "PT-031")]
    _, left_out = restrict_expression(table_of(["A"], "PT-O07", "PT-108", *measured), cohort)
    why = "its patient is not in the cohort"
    assert dict(zip(left_out["id"], left_out["reason"], strict=True)) == {
        "PT-O07": f"{why}; PT-007 is, which differs in one character",
        "PT-108": why,  # PT-008, one character away, is measured itself
    }


def test_slides_and_ready_features_are_not_mixed(folder):
    (folder / "features.csv").write_text("slide_id,f1,f2\nb00_x,0.1,0.2\nb01_x,0.3,0.4\n")
    with pytest.raises(ConfigurationError, match=r"made by one encoder. Found features of b and slides of a"):
        plan_of(folder, entry("a", "develop", slides=", slides: {folder: slides}"),
                entry("b", "develop", slides=", slides: {feature_table: features.csv}"))  # fmt: skip


def test_survival_without_an_event_is_refused_before_training(folder):
    table = pd.read_csv(folder / "a.csv")
    table["event"] = False
    table.to_csv(folder / "a.csv", index=False)
    with pytest.raises(
        DataError, match=r"tasks.survival: patients with an event are required .* Found 14 with a follow"
    ):
        plan_of(folder, entry("a", "develop"))
    assert "survival" in plan_of(folder, entry("a", "external")).tasks


@pytest.mark.real_data
def test_identifiers_that_do_not_match_are_shown_from_both_sides(cases: Path) -> None:
    told = (
        r"e\.tsv: .* patients: TARGET-30-PAAXYZ, TARGET-30-PABXYZ, TARGET-30-PACXYZ and 17 more; "
        r"expression: TARGET-30-PAAXYZ-01A-01R, .* nearest: TARGET-30-PAAXYZ and TARGET-30-PAAXYZ-01A-01R"
    )
    with pytest.raises(DataError, match=told):
        plan_cohort(read_cohort_file(cases / "identifiers_do_not_match" / "a2.yaml"))
