"""What is wrong in a cohort file, in one line with its place and the remedy; hostile files."""

import os

import pytest
from cohort_yaml import MINIMAL

from subfuse.cohort.cohort_file import cohort_file_text, read_cohort_file
from subfuse.cohort.template import TEMPLATE
from subfuse.errors import ConfigurationError


def _line(start: str) -> int:
    return next(n for n, line in enumerate(TEMPLATE.splitlines(), 1) if line.startswith(start))


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
            rf"line {_line('  survival:')}: tasks.survival: a follow-up of the cohort is required",
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


def test_a_key_is_called_as_it_is_written(write):
    text = MINIMAL + "slides: {features: uni, copys: true}\n"
    with pytest.raises(ConfigurationError, match=r"unknown key `slides.copys`. Did you mean `copy`\?.*\bcopy, encoder"):
        read_cohort_file(write(text))
    cohort_file = read_cohort_file(write(text.replace("copys", "copy")))
    assert "copy: true" in cohort_file_text(cohort_file)


def test_missing_file_names_the_remedy(tmp_path):
    with pytest.raises(ConfigurationError, match="subfuse init"):
        read_cohort_file(tmp_path / "none.yaml")


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
            "slides: {folder: s, stain: null}",
            r"Found None, which YAML reads as no value\. Write `none`, or leave it out",
        ),
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
