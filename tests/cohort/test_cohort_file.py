import os
from pathlib import Path

import pytest
import yaml

from subfuse.clinical.source import GdcPatients
from subfuse.cohort.cohort_file import CohortFile, DrawnSplits, GivenSplits, cohort_file_text, read_cohort_file
from subfuse.cohort.task import TaskSpec
from subfuse.cohort.template import TEMPLATE
from subfuse.errors import ConfigurationError
from subfuse.expression.source import PlainMatrix
from subfuse.slides.source import FeatureFiles, FeatureRows, SlideFolder, SlideList


def _line(start: str) -> int:
    return next(n for n, line in enumerate(TEMPLATE.splitlines(), 1) if line.startswith(start))


MINIMAL = "name: small\npatients: {table: patients.csv}\n"


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "cohort.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_template_is_valid_and_has_every_section(write):
    cohort_file = read_cohort_file(write(TEMPLATE))
    shown = {name for name in CohortFile.model_fields if f"\n{name}:" in TEMPLATE}
    of_some = {"cohorts", "batch", "strata"}
    assert shown == set(CohortFile.model_fields) - of_some
    assert all(f"\n# {name}:" in TEMPLATE for name in of_some)
    assert cohort_file.slides is not None
    assert list(cohort_file.tasks or {}) == ["survival", "grade", "diagnosis"]


def test_whole_numbers_are_class_names_and_other_values_need_quotes(write):
    task = "tasks: {grade: {column: grade, classes: %s}}\n"
    tasks = read_cohort_file(write(MINIMAL + task % "[2, 3, '4']")).tasks
    assert tasks is not None
    assert tasks["grade"].classes == ("2", "3", "4")
    for value, kind in (
        ("[2.5, 3]", "a number"),
        ("[yes, no]", "Found yes, .*yes or no"),
        ("[null, b]", "Found null, .*no value"),
        ("[2020-01-02, b]", "a date"),
    ):
        with pytest.raises(ConfigurationError, match=rf"classes\.0` must be text\. .*{kind}: write it in quotes"):
            read_cohort_file(write(MINIMAL + task % value))
    with pytest.raises(ConfigurationError, match=r"line 2: `patients\.include\.0` must be text\. Found 12.*quotes"):
        read_cohort_file(write("name: small\npatients: {table: p.csv, include: [12]}\n"))


def test_paths_are_relative_to_the_file(write, tmp_path):
    assert read_cohort_file(write(MINIMAL)).patients.table == (tmp_path / "patients.csv",)


def test_absolute_paths_and_several_tables_stay(write):
    text = "name: a\npatients: {table: [/x/a.tsv, /x/b.tsv], format: gdc}\n"
    assert read_cohort_file(write(text)).patients.table == (Path("/x/a.tsv"), Path("/x/b.tsv"))


def test_paths_may_hold_environment_variables(write, monkeypatch):
    text = "name: a\npatients: {table: '${SUBFUSE_TEST_FOLDER}/p.csv'}\n"
    monkeypatch.setenv("SUBFUSE_TEST_FOLDER", "/x")
    assert read_cohort_file(write(text)).patients.table == (Path("/x/p.csv"),)
    monkeypatch.delenv("SUBFUSE_TEST_FOLDER")
    with pytest.raises(ConfigurationError, match=r"patients\.table\.0: the environment variable in .* is not set"):
        read_cohort_file(write(text))


def test_defaults(write):
    cohort_file = read_cohort_file(write(MINIMAL))
    assert list(cohort_file.gene_sets) == ["tumour", "microenvironment"]
    assert (cohort_file.splits, cohort_file.role) == (DrawnSplits(folds=5, by="patient", repeats=1), "develop")
    assert cohort_file.tasks is None


@pytest.mark.parametrize(
    "text",
    [
        TEMPLATE,
        MINIMAL,
        MINIMAL + "gene_sets: {a: sets.gmt, tumour: {sets: [X]}, b: {gmt: c.gmt, sets: [Y, Z]}}\n",
        MINIMAL + "splits: {folder: folds, validation: 0.2}\n",
        "name: a\npatients: {table: p.csv, columns: {event: vital_status}, event_values: {1: true, 0: false}}\n",
    ],
)
def test_resolved_copy_reads_back_equal(write, text):
    cohort_file = read_cohort_file(write(text))
    assert read_cohort_file(write(cohort_file_text(cohort_file))) == cohort_file


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("fold:", "folds:", r"line \d+: unknown key `splits.fold`. Did you mean `folds`\?"),
        ("  tabel: slides.csv", "  table: slides.csv", r"unknown key `slides.tabel`. Did you mean `table`\?"),
        ("{colum: grade,", "{column: grade,", r"unknown key `tasks.grade.colum`. Did you mean `column`\?"),
        ("tumour: {gmtt: a.gmt}", "tumour: builtin", r"`gene_sets.tumour.gmtt`. Did you mean `gmt`\? Valid: gmt, sets"),
        ("patents:", "\npatients:", r"unknown key `patents`. Did you mean `patients`\?"),
        ("unit: tmp", "unit: tpm", "expression.unit` must be .*log2_tpm,.* Found 'tmp'"),
        (
            "time: pfs_days",
            "time: time_days",
            rf"line {_line('  survival:')}: tasks.survival: a cohort has one follow-up",
        ),
        ("seed: 0\nname: again", "seed: 0", r"line \d+: name occurs twice"),
    ],
)
def test_mistakes_are_named_in_one_line(write, wrong, right, message):
    assert right in TEMPLATE
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_cohort_file(write(TEMPLATE.replace(right, wrong, 1)))
    assert "\n" not in str(caught.value)
    assert "cohort.yaml, line " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "valid YAML"),
        ("name: a\nrole\nseed: 1\n", "line 2: valid YAML is required. Found: a key without a colon after it"),
        ("- a\n- b\n", "sections such as"),
        ("name: a\n", "`patients` is required"),
        (MINIMAL + "slides: {}\n", "slides: give a `folder`"),
        (MINIMAL + "slides: {folder: a, features: b}\n", "not folder and features"),
        (MINIMAL + "slides: {folder: a, encoder: uni}\n", "`encoder` names what made `features`"),
        (MINIMAL + "slides: {feature_table: a, encoder: uni}\n", "`encoder` names what made `features`"),
        (MINIMAL + "slides: {include: [a], folder: }\n", "line 3: slides: give a `folder`"),
        (
            MINIMAL + "slides: {foldr: a}\n",
            r"unknown key `slides\.foldr`. Did you mean `folder`\? Valid: .*features, folder",
        ),
        (MINIMAL + "slides: {feature: a}\n", r"unknown key `slides\.feature`. Did you mean `features`\?"),
        (MINIMAL + "slides: {features: a, mpp: 50}\n", r"line 3: slides\.mpp: must be between"),
        (MINIMAL + "slides: s\n", r"line 3: `slides` must have keys\. Found 's'"),
        (MINIMAL + "expression: e.csv\n", r"line 3: `expression` must have keys\. Found 'e\.csv'"),
        ("name: a\npatients: p.csv\n", r"line 2: `patients` must have keys\. Found 'p\.csv'"),
        ("name: a\npatients: {table: p, format: [gdc]}\n", r"Found \['gdc'\]: write it without brackets, as gdc"),
        ("name: a\npatients: {table: p, format: gcd}\n", r"one of plain, gdc, cbioportal\. .*Did you mean gdc\?"),
        ("name: a\npatients: {table: p, format: gdc, event_valeus: x}\n", "Did you mean `event_values`"),
        (
            "name: a\npatients: {table: p, format: gdc, labels: {formt: x}}\n",
            r"labels\.formt`\. Valid: columns, table\.",
        ),
        (MINIMAL + "splits: {folds: 3, folder: x}\n", "either `folds` or a `folder`"),
        (MINIMAL + "expression: {unit: tpm, folder: x}\n", "`folder` belongs to format gdc_star and ivygap"),
        (MINIMAL + "expression: {table: x}\n", "line 3: `expression.unit` is required"),
        (MINIMAL + "expression: {format: xena, tabel: x}\n", r"unknown key `expression\.tabel`. Did you mean `table`"),
        (MINIMAL + "expression: {format: star, folder: x}\n", "line 3: `expression.format` must be .*plain,.*gdc_star"),
        (
            MINIMAL + "expression: {unit: zscore, format: gdc_star, folder: x, sample_sheet: y}\n",
            r"expression.unit` must be .*counts, tpm, fpkm, fpkm_uq\. Found 'zscore'",
        ),
        (MINIMAL + "splits: {folder: x, by: site}\n", "`folder` of given folds excludes"),
        (MINIMAL + "splits: {foldr: x}\n", r"unknown key `splits\.foldr`. Did you mean `folder`"),
        (MINIMAL + "splits: 5\n", r"`splits` must have keys\. Found 5"),
        (MINIMAL + "tasks: {a: {time: time_days}}\n", "tasks.a: give either `column`"),
        (MINIMAL + "tasks: {a: {column: b, event: c}}\n", "excludes"),
        (MINIMAL + "tasks: {a: {column: b, classes: [x, x]}}\n", "distinct"),
        ("name: a\npatients: {table: a.tsv, format: gdc, event_values: {Dead: true}}\n", "format plain"),
        (
            MINIMAL + "tasks:\n  WHO grad: {column: b}\n  who grad: {column: b}\n",
            "line 5: tasks.who grad: names must differ .* Found 'WHO grad' and 'who grad'",
        ),
        (
            MINIMAL + "tasks:\n  a: {column: b}\n  yes: {column: b}\n",
            "line 5: `tasks.yes` must be text. Found yes, which",
        ),
        (MINIMAL + "seed: 1\nname:\n", "name occurs twice"),
        ("patients: {table: a}\nname:\n", "line 2: `name` must be text. Found nothing. Write it"),
        (MINIMAL + "splits: {folds: 1}\n", r"line 3: `splits.folds` must be .*Found 1"),
    ],
)
def test_impossible_sections(write, text, message):
    with pytest.raises(ConfigurationError, match=message):
        read_cohort_file(write(text))


def test_empty_keys_of_other_kinds_declare_nothing(write):
    text = "name: a\npatients: {table: p, format: gdc, time_unit: }\nslides: {features: f, folder: , feature_table: }\n"
    cohort_file = read_cohort_file(write(text + "expression: {table: e, unit: tpm, folder: }\n"))
    assert read_cohort_file(write(cohort_file_text(cohort_file))) == cohort_file
    assert isinstance(cohort_file.patients, GdcPatients)
    assert isinstance(cohort_file.slides, FeatureFiles)
    assert isinstance(cohort_file.expression, PlainMatrix)


@pytest.mark.parametrize("keys", ["", "by: patient, repeats: 1, ", "folds: , "])  # as earlier versions wrote them
def test_given_folds_may_say_that_nothing_is_drawn(write, tmp_path, keys):
    splits = read_cohort_file(write(MINIMAL + f"splits: {{{keys}folder: x, seed: 3}}\n")).splits
    assert splits == GivenSplits(folder=tmp_path / "x", seed=3)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ("table: t", SlideList),
        ("table: t, folder: f", SlideFolder),
        ("folder: f, include: [a], mpp: 0.5", SlideFolder),
        ("table: t, features: f, encoder: uni", FeatureFiles),
        ("table: t, feature_table: f", FeatureRows),
    ],
)
def test_slides_are_of_the_kind_whose_key_is_given(write, keys, kind):
    cohort_file = read_cohort_file(write(MINIMAL + f"slides: {{{keys}}}\n"))
    assert type(cohort_file.slides) is kind
    assert read_cohort_file(write(cohort_file_text(cohort_file))) == cohort_file


SEVERAL = """
name: both
cohorts:
  - {name: a, patients: {table: a.csv}, slides: {folder: /slides}}
  - name: b
    role: external
    patients: {table: [b.csv, /c.csv]}
tasks: {grade: {column: grade}}
"""


def test_several_cohorts_read_back_equal(write, tmp_path):
    cohort_file = read_cohort_file(write(SEVERAL))
    assert [(member.name, member.role) for member in cohort_file.members] == [("a", "develop"), ("b", "external")]
    assert cohort_file.members[1].patients.table == (tmp_path / "b.csv", Path("/c.csv"))
    assert read_cohort_file(write(cohort_file_text(cohort_file))) == cohort_file


def test_a_file_of_one_cohort_has_one_member(write):
    cohort_file = read_cohort_file(write(TEMPLATE))
    (member,) = cohort_file.members
    assert (member.name, member.role, member.slides) == ("my-cohort", "develop", cohort_file.slides)


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("- name: a", "- name: b", "distinct names"),
        ("- name: external", "- name: b", r"line 3: cohorts: distinct names other than develop and external"),
        ("    rolle: external", "    role: external", r"line 6: unknown key `cohorts.1.rolle`. Did you mean `role`\?"),
        ("    role: b\n    role: a", "    role: external", r"line 7: cohorts.1.role occurs twice"),
        ("patients: {tabel: a.csv}", "patients: {table: a.csv}", r"`cohorts.0.patients.tabel`. Did you mean `table`"),
        ("role: develop\ntasks:", "tasks:", r"line \d+: role: this belongs to each entry of `cohorts`"),
        ("splits: {folder: x, repeats: 2}\ntasks:", "tasks:", "`folder` of given folds excludes"),
        ("splits: {repeats: 0}\ntasks:", "tasks:", "splits.repeats. must be .*Found 0"),
    ],
)
def test_mistakes_in_several_cohorts(write, wrong, right, message):
    assert right in SEVERAL
    with pytest.raises(ConfigurationError, match=message):
        read_cohort_file(write(SEVERAL.replace(right, wrong, 1)))


def test_missing_file_names_the_remedy(tmp_path):
    with pytest.raises(ConfigurationError, match="subfuse init"):
        read_cohort_file(tmp_path / "none.yaml")


def test_task_kinds():
    assert TaskSpec(time="time_days", event="event").is_survival
    assert not TaskSpec(column="grade").is_survival


def test_ordered_classes_are_declared_with_their_order(tmp_path: Path) -> None:
    path = tmp_path / "cohort.yaml"
    text = "name: c\npatients: {table: p.csv}\ntasks: {grade: {column: grade, %s}}\n"
    path.write_text(text % "classes: [G2, G3], ordinal: true")
    assert read_cohort_file(path).tasks["grade"].ordinal
    path.write_text(text % "ordinal: true")
    with pytest.raises(ConfigurationError, match="`ordinal` needs `classes` in their order"):
        read_cohort_file(path)


ELSEWHERE = ["../../evil", "..", ".", ".hidden", "a/b", "a\\b", "x" * 300, "a\x07b", "a\u202eb", "", " grade", "=1+1",
             "+x", "-x", "@x"]  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize(
    "file",
    [
        lambda name: {"name": name},
        lambda name: {"tasks": {name: {"column": "grade"}}},
        lambda name: {"gene_sets": {name: "builtin"}},
        lambda name: {"patients": None, "cohorts": [{"name": name, "patients": {"table": "p.csv"}}]},
    ],
    ids=["cohort", "task", "subspace", "one of several cohorts"],
)
def test_names_that_would_lead_elsewhere_are_refused(write, file, name):
    content = {"name": "small", "patients": {"table": "p.csv"}} | file(name)
    with pytest.raises(ConfigurationError, match="a name must be") as caught:
        read_cohort_file(write(yaml.safe_dump({key: value for key, value in content.items() if value is not None})))
    assert len(str(caught.value)) < 500


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("task_name_is_a_path/cohort.yaml", r"tasks\.\.\./\.\./evil: a name must be"),
        ("yaml_bombs/bomb.yaml", "line 6: at most 200000 entries"),
        ("yaml_bombs/self.yaml", "line 1: an alias must not stand within its own anchor"),
        ("yaml_bombs/deep.yaml", "line 1: at most 30 levels"),
    ],
)
def test_given_cohort_files_are_refused_in_one_line(cases, file, named):
    with pytest.raises(ConfigurationError, match=named) as caught:
        read_cohort_file(cases / file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "name"),
    [
        *(("tasks", name) for name in ("cohort", "Explanations", "predictions.csv", "report.HTML", "config.yaml")),
        ("tasks", "explanations_snn"),
        *(("gene_sets", name) for name in ("total", "all", "slide_id", "x", "audit.json")),
    ],
)
def test_names_that_every_run_has_already_are_refused(write, section, name):
    entry = {"column": "grade"} if section == "tasks" else "builtin"
    text = yaml.safe_dump({"name": "a", "patients": {"table": "p.csv"}, section: {name: entry}}, sort_keys=False)
    with pytest.raises(ConfigurationError, match=f"line 5: {section}.{name}: '{name}' belongs to a file or folder"):
        read_cohort_file(write(text))


@pytest.mark.parametrize("name", ["grade", "WHO 2021", "Überleben", "overall.survival", "5-year", "a_b"])
def test_ordinary_names_are_kept(write, name):
    text = yaml.safe_dump({"name": name, "patients": {"table": "p.csv"}, "tasks": {name: {"column": "x"}}})
    assert list(read_cohort_file(write(text)).tasks) == [name]


def test_names_that_one_folder_would_hold_are_refused(write):
    with pytest.raises(ConfigurationError, match="upper and lower case"):
        read_cohort_file(write(MINIMAL + "tasks: {Grade: {column: a}, grade: {column: b}}\n"))


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + MINIMAL, "line 6: at most 200000 entries"),
        ("x: &x {" + "y: *x, " * 3 + "}\n" + MINIMAL, r"within its own anchor. Found \*x"),
        ("name: &n [*n]\n", r"within its own anchor. Found \*n"),
        ("name: " + "[" * 5000 + "]" * 5000, "at most 30 levels"),
        ("name: " + "[" * 5000, "at most 30 levels"),
        ("".join(f"{' ' * i}a:\n" for i in range(1000)), "at most 30 levels"),
        ("# " + "x" * 1_100_000 + "\n" + MINIMAL, "at most 1 MB"),
        (MINIMAL + "splits: {seed: " + "9" * 5000 + "}\n", "cohort.yaml"),
        (MINIMAL + "role: 2001-99-99\n", "valid YAML is required"),
        (MINIMAL + "role: " + "x" * 5000, "`role` must be one of develop, external. Found 'xxx"),
    ],
    ids=[
        "aliases",
        "self in a mapping",
        "self",
        "deep",
        "deep and open",
        "deep blocks",
        "large",
        "digits",
        "date",
        "long",
    ],
)
def test_hostile_yaml_is_refused_in_one_short_line(write, text, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_cohort_file(write(text))
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("expression: {table: e.csv, unit: TPM}", "Found 'TPM'; tpm is, which differs only in case"),
        (
            "expression: {table: e.csv, unit: log2-tpm}",
            "Found 'log2-tpm'; log2_tpm is, which differs only in case, zer",
        ),
        ("expression: {table: e.csv, unit: tmp}", r"one of counts, .*Found 'tmp'\. Did you mean tpm\?"),
        ("expression: {table: e.csv, unit: yes}", "Found True"),
        ("expression: {table: e.csv, unit: 'log2(tpm+1)'}", r"Found 'log2\(tpm\+1\)'\. log2_tpm is what is meant\.$"),
        ("expression: {table: e.csv, unit: log2(FPKM + 1)}", r"\. log2_fpkm is what is meant\.$"),
        ("expression: {table: e.csv, unit: 'log2(tpm+0.001)'}", r"\. log2_tpm_001 is what is meant\.$"),
        ("expression: {table: e.csv, unit: log2_tpm+1}", r"\. log2_tpm is what is meant\.$"),
        ("expression: {table: e.csv, unit: [tpm]}", r"Found \['tpm'\]: write it without brackets, as tpm\.$"),
        ("expression: {table: e.csv, unit: cpm}", r"Found 'cpm'\.$"),
        ("expression: {table: e.csv, unit: log10_tpm}", r"Found 'log10_tpm'\.$"),
        ("expression: {table: e.csv, unit: ln_tpm}", r"Found 'ln_tpm'\.$"),
        ("expression: {table: e.csv, unit: count}", r"Found 'count'\. Did you mean counts\?$"),
        ("tasks: {g: grade}", r"`tasks.g` must have keys\. Found 'grade': write `g: \{column: grade\}`\.$"),
        ("tasks: [grade]", r"`tasks` must have keys\. .*: write `tasks: \{grade: \{column: grade\}\}`\.$"),
        ("slides: {folder: s, mpp: '0,5'}", r"`slides.mpp` must be a number\. Found '0,5'\. .*decimal point, as 0\.5"),
        ("splits: {by: hospital}", r"Found 'hospital'\. Did you mean site\?$"),
        ("splits: {folds: 3.5}", r"`splits.folds` must be a whole number\. Found 3\.5\.$"),
        ("splits: {folds: 1}", r"`splits.folds` must be greater than or equal to 2\. Found 1\.$"),
        (
            "expression: {table: e.csv, format: Xena}",
            "`expression.format` must be one of plain, .*; xena is, which diff",
        ),
        ("expression: {table: e.csv, unit: tpm, standardise: Cohort}", "must be cohort. Found 'Cohort'; cohort is"),
        (
            "role: External",
            "`role` must be one of develop, external. Found 'External'; external is, which differs only",
        ),
        ("splits: {by: Site}", "`splits.by` must be one of patient, site. Found 'Site'; site is"),
        (
            "slides: {folder: s, include: primary}",
            r"`slides.include` must be a list. Found 'primary': write \[primary\]",
        ),
    ],
)
def test_a_setting_of_few_values_names_them_and_the_one_that_is_meant(write, line, message):
    with pytest.raises(ConfigurationError, match=f"line 3: .*{message}"):
        read_cohort_file(write(f"name: a\npatients: {{table: p.csv}}\n{line}\n"))


def test_aliases_that_stay_small_are_read(write):
    text = "name: a\npatients: &p {table: p.csv}\ntasks: {g: &t {column: g}, h: *t}\n"
    assert read_cohort_file(write(text)).tasks["h"].column == "g"


def test_a_pipe_or_a_folder_is_no_cohort_file(tmp_path):
    os.mkfifo(tmp_path / "cohort.yaml")
    for path in (tmp_path / "cohort.yaml", tmp_path):
        with pytest.raises(ConfigurationError, match="Found a folder, pipe or device"):
            read_cohort_file(path)


def test_a_name_with_a_line_break_is_told_in_one_line(write):
    with pytest.raises(ConfigurationError) as raised:
        read_cohort_file(write(MINIMAL + 'tasks: {"a\\nb": {column: grade}}\n'))
    assert "\n" not in str(raised.value)
