"""Every model trains and predicts on a GPU without mixing devices, and rarely waits for it; the GPU is pretended."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from brief_training import BRIEF, train
from pretended_gpu import GPU, OneGpu, PretendedGpu, pretend

from small_cohort import deal_folds
from subfuse.devices import deterministic
from subfuse.explanation.cohort import fold_explanation
from subfuse.explanation.cohort.fold_explanation import FoldModel, explain_model
from subfuse.explanation.patient import explain_patient
from subfuse.training.fitting import predict_sides
from subfuse.training.models import MODELS
from subfuse.training.step import JointUpdate

pytestmark = pytest.mark.walk

ONE_EPOCH = BRIEF.model_copy(update={"epochs": 1})
OF_TASK = {model: "grade" if entry.task == "classes" else "survival" for model, entry in MODELS.items()}
READ = [name for name, entry in MODELS.items() if entry.modalities & {"slides", "expression"}]


def small(make_cohort, n_patients=24):
    cohort = make_cohort(n_patients)
    return replace(cohort, pathways={"one": cohort.genes[:4], "two": cohort.genes[2:9]})


@pytest.mark.parametrize("model", READ)
def test_a_model_trains_and_predicts_as_on_the_processor_also_in_a_fixed_order(model, make_cohort, monkeypatch):
    cohort, task = small(make_cohort), OF_TASK[model]
    expected = predict_sides(train(cohort, model, task, ONE_EPOCH), cohort, deal_folds(cohort)[0])
    pretend(monkeypatch)
    with PretendedGpu():
        fixed = ONE_EPOCH.model_copy(update={"deterministic": True})
        fitted = train(cohort, model, task, fixed, fabric=OneGpu())
        assert fitted.device == GPU
        found = predict_sides(fitted, cohort, deal_folds(cohort)[0])
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-5)


def test_what_a_gpu_computes_in_no_fixed_order_is_an_error_where_one_is_asked_for(monkeypatch):
    pretend(monkeypatch)
    with PretendedGpu(), deterministic(True):
        there = torch.ones(1, 1, 2, 2).to(GPU).requires_grad_()
        sampled = torch.nn.functional.grid_sample(there, torch.zeros(1, 1, 1, 2).to(GPU), align_corners=True)
        with pytest.raises(RuntimeError, match="must be computed in a fixed order"):
            sampled.sum().backward()


@pytest.mark.parametrize("task", ["survival", "grade"])
def test_an_update_of_subspace_fusion_waits_four_times_and_every_copy_to_the_gpu_is_queued(
    task, make_cohort, monkeypatch
):
    cohort, counted = make_cohort(48), []
    update = JointUpdate.__call__

    def watched(self, share):
        gpu = PretendedGpu.active
        gpu.waits.clear()
        gpu.copies.clear()
        row = update(self, share)
        counted.append((sum(gpu.waits.values()), dict(gpu.waits), gpu.copies["blocking"]))
        return row

    monkeypatch.setattr(JointUpdate, "__call__", watched)
    pretend(monkeypatch)
    with PretendedGpu():
        train(cohort, task=task, settings=ONE_EPOCH, fabric=OneGpu())
    assert counted
    assert max(waits for waits, _, _ in counted) <= 4, counted[0]
    assert {blocking for _, _, blocking in counted} == {0}


def test_devices_that_are_mixed_are_an_error(monkeypatch):
    pretend(monkeypatch)
    with PretendedGpu() as gpu:
        there = torch.ones(2).to(GPU)
        assert gpu.copies["blocking"] == 1
        with pytest.raises(RuntimeError, match=r"Found on the processor: \[\(2,\)\]"):
            there + torch.ones(2)
        assert float((there * 2).sum()) == 4.0
        assert gpu.waits == {"aten::_local_scalar_dense": 1}


@pytest.mark.parametrize("model", ["subspace", "concat"])
def test_a_patient_is_explained_where_the_model_is(model, make_cohort, monkeypatch, tmp_path):
    cohort, of_both = small(make_cohort, 48), 5
    fitted = train(cohort, model, settings=ONE_EPOCH)
    explain_patient(fitted, cohort.patients[of_both], tmp_path / "processor", fold=0)
    tested = FoldModel("0", fitted, cohort.patients[of_both : of_both + 2])
    explain_model(tested, tmp_path / "models", 0.05)
    pretend(monkeypatch)
    with PretendedGpu():
        explain_patient(fitted.to(GPU), cohort.patients[of_both], tmp_path / "gpu", fold=0)
        monkeypatch.setattr(fold_explanation, "chosen_device", lambda name: GPU)
        explain_model(tested, tmp_path / "of_gpu", 0.05)
    for name in ("genes.csv", "patches.csv"):
        there, here = (pd.read_csv(tmp_path / folder / name) for folder in ("gpu", "processor"))
        pd.testing.assert_frame_equal(there, here, rtol=1e-3, atol=1e-4)
    there, here = (pd.read_csv(next((tmp_path / folder).rglob("contributions.csv"))) for folder in ("of_gpu", "models"))
    pd.testing.assert_frame_equal(there, here, rtol=1e-3, atol=1e-4)
