"""A slide or the expression of one patient is not found again among others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from small_cohort import deal_folds
from subfuse.audit.leakage import chance_limit, check_expression, check_patients, check_slides, near_duplicates
from subfuse.cohort.cohort import Cohort
from subfuse.errors import DataError
from subfuse.features.store import read_features, write_features


def assignment(cohort: Cohort) -> pd.DataFrame:
    rows = [
        (0, k, split, patient)
        for k, fold in enumerate(deal_folds(cohort))
        for split in ("train", "validation", "test")
        for patient in getattr(fold, split)
    ]
    return pd.DataFrame(rows, columns=["repeat", "fold", "split", "patient_id"])


def test_a_slide_of_two_patients_is_found_whatever_its_name(cohort: Cohort, tmp_path: Path) -> None:
    first, second = cohort.patients[3], cohort.patients[4]
    copy = tmp_path / "another name.h5"
    write_features(copy, read_features(first.slides[0]), tile_px=256)
    patients = tuple(replace(p, slides=(copy,)) if p is second else p for p in cohort)

    crossing = check_slides(replace(cohort, patients=patients), assignment(cohort))
    together = check_slides(
        replace(cohort, patients=patients), assignment(cohort)[lambda rows: rows["split"] == "train"]
    )

    assert check_slides(cohort, assignment(cohort))[0].level == "ok"
    assert (crossing[0].level, together[0].level) == ("failure", "warning")
    assert f"{first.patient_id} = {second.patient_id}" in crossing[0].found


def test_a_task_without_anybody_else_than_trained_patients_is_refused_as_that() -> None:
    rows = pd.DataFrame({"task": "grade", "model": "m", "repeat": 0, "fold": 0, "patient_id": list("abc")})
    both = pd.concat([rows.assign(split="train"), rows.assign(split="test")], ignore_index=True)
    with pytest.raises(DataError, match=r"did not train on are required\. Found all 3 tested persons of task grade in"):
        check_patients(both)

    one = pd.DataFrame([{**both.iloc[0], "patient_id": "d", "split": "test"}])
    kept, (finding,) = check_patients(pd.concat([both, one], ignore_index=True))
    assert finding.level == "failure"
    assert kept.loc[kept["split"] == "test", "patient_id"].tolist() == ["d"]


def test_nearly_the_same_expression_is_found(cohort: Cohort) -> None:
    source, generator = cohort.patients[5], np.random.default_rng(0)
    copied = (source.expression + 0.02 * generator.normal(size=24)).astype(np.float32)
    patients = tuple(replace(p, expression=copied) if p is cohort.patients[8] else p for p in cohort)

    findings = check_expression(replace(cohort, patients=patients), assignment(cohort))

    assert findings[0].level == "failure"
    assert "P005 = P008" in findings[0].found
    assert check_expression(cohort, assignment(cohort))[0].level == "ok"


@pytest.mark.parametrize("n_patients", [6, 9, 12, 24])
def test_genes_that_are_the_same_in_everybody_tell_nobody_apart_however_their_mean_is_rounded(
    cohort: Cohort, n_patients: int
) -> None:
    generator = np.random.default_rng(n_patients)
    values = generator.normal(size=(n_patients, 60)).astype(np.float32)
    constant = np.repeat(generator.normal(size=(1, 300)).astype(np.float32), n_patients, axis=0)
    assert constant.std(axis=0).any()

    def found(values: np.ndarray) -> list[str]:
        profiles = zip(cohort.patients, values, strict=False)
        patients = tuple(replace(patient, expression=profile) for patient, profile in profiles)
        return [finding.found for finding in check_expression(replace(cohort, patients=patients), assignment(cohort))]

    assert chance_limit(np.hstack([values, constant])) == pytest.approx(chance_limit(values), abs=1e-4)
    assert found(np.hstack([values, constant])) == found(values)
    assert found(values) == [f"{n_patients} expression profiles, no two of them nearly the same"]
    assert "0 genes that differ" in found(constant)[0]


def test_near_duplicates_are_those_of_corrcoef() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=(40, 30)) + 10 * generator.random(30)
    values[17] = values[3] + 0.05 * generator.normal(size=30)
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    rows, columns = np.nonzero(np.triu(np.corrcoef(standard) > 0.99, k=1))

    assert near_duplicates(values, above=0.99) == list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(3, 17)]


@pytest.mark.parametrize(("n_genes", "n_factors"), [(20, 2), (30, 3), (50, 2)])
def test_genes_that_rise_and_fall_together_raise_no_alarm_and_hide_no_copy(n_genes: int, n_factors: int) -> None:
    alike_by_chance = 0
    for seed in range(8):
        generator = np.random.default_rng(seed)
        factors, loadings = generator.normal(size=(80, n_factors)), generator.normal(size=(n_factors, n_genes))
        values = factors @ loadings + 0.2 * generator.normal(size=(80, n_genes))
        alike_by_chance += len(near_duplicates(values, above=0.99))
        assert not near_duplicates(values, above=max(0.99, chance_limit(values)))
        values[17] = values[3]
        assert near_duplicates(values, above=max(0.99, chance_limit(values))) == [(3, 17)]
    assert alike_by_chance > 0 or n_genes > 20


def test_the_limit_of_independent_genes_is_that_of_random_directions_and_of_two_genes_none() -> None:
    generator = np.random.default_rng(0)
    drawn = np.corrcoef(generator.normal(size=(2000, 49)))  # as many directions as centred profiles of 50 genes have
    np.fill_diagonal(drawn, -1)
    assert chance_limit(generator.normal(size=(600, 50))) == pytest.approx(drawn.max(), abs=0.06)
    assert chance_limit(generator.normal(size=(80, 2))) > 0.9999
