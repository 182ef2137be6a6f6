from dataclasses import replace

import pytest

from small_cohort import deal_folds
from subfuse.cohort.fold_files import SPLITS, write_repeats
from subfuse.errors import ConfigurationError
from subfuse.runs.folds import choose_folds, choose_repeats, folds_of_sites


@pytest.fixture
def cohort(make_cohort, tmp_path):
    """24 patients of 6 sites, in a folder with two repeats of three folds."""
    cohort = make_cohort()
    patients = tuple(replace(p, site=f"s{i % 6}") for i, p in enumerate(cohort))
    cohort = replace(cohort, patients=patients, root=tmp_path)
    write_repeats(tmp_path / SPLITS, own(cohort))
    write_file(tmp_path, "")
    return cohort


def own(cohort):
    first = deal_folds(cohort, 3)
    return first, (first[2], first[0], first[1])


def write_file(folder, splits):
    (folder / "cohort.yaml").write_text(f"name: small\npatients: {{table: p.csv}}\nsplits: {{{splits}}}\n")


def test_the_cohorts_own_folds_come_first(cohort):
    assert choose_repeats(cohort, None, seed=0) == own(cohort)
    assert choose_repeats(cohort, 3, repeats=1, seed=0) == own(cohort)[:1]
    assert choose_folds(cohort, None, seed=0) == own(cohort)[0]
    longer = choose_repeats(cohort, None, repeats=4, seed=0)
    assert longer[:2] == own(cohort)
    assert longer[:3] == choose_repeats(cohort, None, repeats=3, seed=0)
    assert len(set(longer)) == 4
    assert all(len(folds) == 3 for folds in longer)


def test_another_number_of_folds_is_drawn(cohort):
    drawn = choose_repeats(cohort, 4, repeats=2, seed=0)
    assert [len(folds) for folds in drawn] == [4, 4]
    assert len(choose_repeats(cohort, 4, seed=0)) == 1
    assert drawn == choose_repeats(replace(cohort, root=None), 4, repeats=2, seed=0)
    assert drawn != choose_repeats(cohort, 4, repeats=2, seed=1)


def test_drawing_follows_the_cohort_file(cohort, tmp_path):
    write_file(tmp_path, "folds: 3, by: site, validation: 0.4, stratify: [grade]")
    site = {p.patient_id: p.site for p in cohort}
    for fold in choose_folds(cohort, 2, seed=0):
        assert not {site[p] for p in fold.test} & {site[p] for p in fold.train + fold.validation}
        assert len(fold.validation) == round(0.4 * (24 - len(fold.test)))


def test_given_folds_are_used_as_they_are(cohort):
    given = deal_folds(cohort, 2)
    assert choose_repeats(cohort, given, seed=0) == (given,)
    with pytest.raises(ConfigurationError, match=r"folds that are given are used once. Found 2"):
        choose_repeats(cohort, given, repeats=2, seed=0)


def test_impossible_numbers(cohort):
    with pytest.raises(ConfigurationError, match=r"repeats must be at least 1. Found 0"):
        choose_repeats(cohort, None, repeats=0, seed=0)
    with pytest.raises(ConfigurationError, match=r"folds must be at least 2. Found 1"):
        choose_repeats(cohort, 1, seed=0)
    with pytest.raises(ConfigurationError, match="has no folds, as one that is external"):
        choose_folds(replace(cohort, root=None), None, seed=0)


def test_folds_of_whole_hospitals_are_no_more_than_the_hospitals(cohort, tmp_path):
    site = {p.patient_id: p.site for p in cohort}
    folds = folds_of_sites(cohort, 50, seed=0)
    assert len(folds) == len(set(site.values()))
    for fold in folds:
        assert not {site[p] for p in fold.test} & {site[p] for p in fold.train + fold.validation}
    with pytest.raises(ConfigurationError, match=r"two hospitals or more. Found 0. Map `site`"):
        folds_of_sites(replace(cohort, patients=tuple(replace(p, site=None) for p in cohort)), 3, seed=0)
    write_file(tmp_path, "folds: 3, by: site")
    with pytest.raises(ConfigurationError, match="of whole hospitals already"):
        folds_of_sites(cohort, 3, seed=0)
