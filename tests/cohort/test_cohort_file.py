from pathlib import Path

import pytest
import yaml
from cohort_yaml import MINIMAL

from subfuse.clinical.source import GdcPatients
from subfuse.cohort.cohort_file import DrawnSplits, GivenSplits, cohort_file_text, read_cohort_file
from subfuse.cohort.template import TEMPLATE
from subfuse.errors import ConfigurationError
from subfuse.expression.source import PlainMatrix
from subfuse.slides.source import FeatureFiles, FeatureRows, SlideFolder, SlideList


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
        (MINIMAL + "slides: {Feature: a}\n", r"unknown key `slides\.Feature`. Did you mean `features`\?"),
        (
            MINIMAL + "slides: {table: t, encoder: uni, featuers: a}\n",
            r"unknown key `slides\.featuers`. .* `features`\?",
        ),
        (MINIMAL + "expression: {formt: gdc_star, folder: a}\n", r"unknown key `expression\.formt`. .* `format`\?"),
        (MINIMAL + "covariates:\n", "line 3: `covariates` must have an entry. Found none"),
        (MINIMAL + "gene_sets: {}\n", "line 3: `gene_sets` must have an entry. Found none"),
        (MINIMAL + "tasks: {a: {time: t, event: e, ordinal: true}}\n", "a: .*`ordinal` .* not of survival"),
        ("", "sections such as .* Found nothing"),
        (MINIMAL + "slides: {features: a, mpp: 50}\n", r"line 3: slides\.mpp: must be between"),
        (MINIMAL + "slides: {folder: a, mpp: yes}\n", r"line 3: slides\.mpp: must be a number, which true is not\.$"),
        (
            MINIMAL + "splits: {folds: 3, validation: 15%}\n",
            r"`splits\.validation` must be .*'15%'\. Write it as a share, 0\.15\.$",
        ),
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


@pytest.mark.parametrize(("name", "is_read"), [("s" * 90, True), ("s" * 91, False), ("µ" * 46, False)])
def test_a_subspace_leaves_room_for_a_slide_in_the_name_of_a_heat_map(write, name, is_read):
    content = {"name": "a", "patients": {"table": "p.csv"}, "gene_sets": {name: "builtin"}}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    if is_read:
        assert list(read_cohort_file(write(text)).gene_sets) == [name]
    else:
        with pytest.raises(ConfigurationError, match=r"a name of at most 90 bytes is required\. Found 9"):
            read_cohort_file(write(text))


@pytest.mark.parametrize(
    ("section", "name"),
    [
        *(("tasks", name) for name in ("cohort", "Explanations", "predictions.csv", "report.HTML", "config.yaml")),
        ("tasks", "explanations_snn"),
        *(("gene_sets", name) for name in ("total", "all", "slide_id", "x", "audit.json", "occlusion_tumour")),
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


@pytest.mark.parametrize(
    ("tasks", "subspaces", "is_read"),
    [(["a", "a_b"], ["b_c", "c"], False), (["a", "a_b"], ["b", "c"], True), (["a", "a_b"], ["b_total", "c"], False)],
)
def test_a_task_and_a_subspace_make_no_column_of_another_pair(write, tasks, subspaces, is_read):
    content = {
        "name": "a",
        "patients": {"table": "p.csv"},
        "gene_sets": dict.fromkeys(subspaces, "builtin"),
        "tasks": {task: {"column": "grade"} for task in tasks},
    }
    if is_read:
        assert list(read_cohort_file(write(yaml.safe_dump(content))).tasks) == tasks
    else:
        with pytest.raises(ConfigurationError, match=r"Found a_b_(c|total) twice, of task 'a' and of task 'a_b'"):
            read_cohort_file(write(yaml.safe_dump(content)))


def test_every_value_that_is_still_to_be_filled_in_is_named_at_once(tmp_path):
    path = tmp_path / "cohort.yaml"
    lines = [
        "name: c",
        "patients: {table: p.csv, event_values: {1: FILL-IN}}",
        "expression: {table: e.csv, unit: FILL-IN}",
    ]
    path.write_text("\n".join([*lines, "tasks: FILL-IN"]))
    with pytest.raises(ConfigurationError) as error:
        read_cohort_file(path)
    told = str(error.value)
    assert "\n" not in told
    assert "line 2: `patients.event_values.1`: a value is required in the place of FILL-IN" in told
    assert "Also line 3 (`expression.unit`), line 4 (`tasks`)." in told
