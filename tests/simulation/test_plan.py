"""What is written for whom: files and gaps of every simulated patient, under identifiers as the GDC gives them."""

from pathlib import Path

import numpy as np
import pytest

from subfuse.identifiers import patient_of_barcode, sample_type_of_barcode, site_of_barcode
from subfuse.simulation.genes import draw_genes
from subfuse.simulation.patients import draw_patients
from subfuse.simulation.plan import SITES, STAR_SUFFIX, PatientJob, draw_uuid, plan_jobs

PATIENTS = 7


def planned(seed: int = 0) -> list[PatientJob]:
    truth = draw_patients(PATIENTS, visibility=0.8, generator=np.random.default_rng(1))
    genes = draw_genes(np.random.default_rng(2))
    return plan_jobs(Path("out"), truth, genes, np.random.SeedSequence(3).spawn(PATIENTS), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def jobs() -> list[PatientJob]:
    return planned()


def test_every_file_belongs_to_its_patient_and_no_name_comes_twice(jobs):
    for job in jobs:
        names = (*job.slide_ids, *(sample.sample_id for sample in job.samples))
        assert {patient_of_barcode(name) for name in names} == {job.patient_id}
    slides = [slide for job in jobs for slide in job.slide_ids]
    places = [(sample.folder, sample.file_name) for job in jobs for sample in job.samples]
    assert len(set(slides)) == len(slides)
    assert len(set(places)) == len(places)
    assert all(name.endswith(STAR_SUFFIX) for _, name in places)


def test_hospitals_take_turns(jobs):
    assert [site_of_barcode(job.patient_id) for job in jobs] == [SITES[i % len(SITES)] for i in range(PATIENTS)]


def test_the_last_two_lack_a_modality_and_the_first_has_a_recurrence_before_the_primary_tumour(jobs):
    assert [bool(job.slide_ids) for job in jobs] == [True] * 6 + [False]
    types = [[sample_type_of_barcode(sample.sample_id) for sample in job.samples] for job in jobs]
    assert types == [[2, 1], [1], [1], [1], [1], [], [1]]
    assert [sample.sample_type for sample in jobs[0].samples] == ["Recurrent Tumor", "Primary Tumor"]


def test_each_modality_gets_its_own_view_of_the_latents(jobs):
    views = draw_patients(PATIENTS, visibility=0.8, generator=np.random.default_rng(1)).views
    np.testing.assert_array_equal([(job.slide_view, job.expression_view) for job in jobs], views)


def test_identifiers_depend_on_their_seed_alone(jobs):
    def names(planned_jobs: list[PatientJob]) -> list[tuple]:
        return [(job.patient_id, job.slide_ids, job.samples) for job in planned_jobs]

    assert names(planned()) == names(jobs) != names(planned(seed=1))
    assert draw_uuid(np.random.default_rng(0)).version == 4
