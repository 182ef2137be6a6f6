import pandas as pd
import pytest

from subfuse.errors import DataError
from subfuse.files import write_json, write_table
from subfuse.run_folder.explanations import (
    explained,
    explained_tasks,
    explanation_name,
    explanations_of,
    lost_of_explanations,
    read_explained,
    read_explained_task,
)
from subfuse.run_folder.names import COHORT

GENES = pd.DataFrame({"gene": ["NA", "SEPT1"], "subspace": ["None", "007"], "contribution": [0.5, -0.25]})


@pytest.fixture
def run(tmp_path):
    """A run with one explained patient, and with what the models of one task rely on."""
    patient, task = explanations_of(tmp_path) / "007" / "grade", explanations_of(tmp_path) / "cohort" / "grade"
    ledger = [{"subspace": "None", "modality": "slides", "contribution": 1.5}]
    write_json(patient / "explanation.json", {"patient_id": "007", "ledger": ledger})
    write_table(patient / "genes.csv", GENES)
    write_table(patient / "patches.csv", pd.DataFrame({"slide_id": ["007", "None"], "x": [1, 2], "total": [0.5, 1.5]}))
    for name in ("genes", "gene_values", "gene_stability", "enrichment"):
        write_table(task / f"{name}.csv", GENES)
    write_json(task / "faithfulness.json", {"genes": {}})
    write_json(task / "summary.json", {"n_patients": 1})
    return tmp_path


def test_names_stay_as_they_were_written(run):
    found = read_explained(explanations_of(run) / "007" / "grade")
    pd.testing.assert_frame_equal(found.genes, GENES)
    assert found.subspaces == ["None", "007"]
    assert found.patches()["slide_id"].tolist() == ["007", "None"]
    assert found.points().empty
    of_task = read_explained_task(explanations_of(run) / "cohort" / "grade")
    assert of_task.task == "grade"
    pd.testing.assert_frame_equal(of_task.enrichment, GENES)
    assert of_task.curves.empty


def test_explanations_of_other_models_are_apart(run):
    write_json(explanations_of(run, "snn") / "008" / "grade" / "explanation.json", {})
    assert explained(explanations_of(run)) == [explanations_of(run) / "007" / "grade"]
    assert explained(explanations_of(run, "snn")) == [explanations_of(run, "snn") / "008" / "grade"]
    assert explained_tasks(run) == [explanations_of(run) / "cohort" / "grade"]


@pytest.mark.parametrize(
    "name", ["007/grade/genes.csv", *(f"cohort/grade/{name}" for name in ("faithfulness.json", "gene_values.csv"))]
)
def test_a_file_is_lost_where_those_beside_it_are_there(run, name):
    assert lost_of_explanations(run) == []
    (explanations_of(run) / name).unlink()
    assert lost_of_explanations(run) == [explanations_of(run) / name]


def test_models_without_genes_lose_none(run):
    for name in ("genes", "gene_values", "gene_stability", "enrichment"):
        (explanations_of(run) / "cohort" / "grade" / f"{name}.csv").unlink()
    assert lost_of_explanations(run) == []
    assert read_explained_task(explanations_of(run) / "cohort" / "grade").enrichment is None


def test_an_explanation_without_its_content_is_refused(run):
    (explanations_of(run) / "007" / "grade" / "explanation.json").write_text("{")
    with pytest.raises(DataError, match="complete JSON"):
        read_explained(explanations_of(run) / "007" / "grade")


def test_what_a_patient_is_called_leads_to_no_other_folder(tmp_path):
    hostile = ["..", "../x", "a/b", ".hidden", COHORT, "a b", "C:x"]
    names = [explanation_name(name) for name in [*hostile, "TCGA-02-0047", "007"]]
    assert len({*names, COHORT}) == len(names) + 1
    assert all((tmp_path / name).resolve().parent == tmp_path.resolve() for name in names)
    assert names[-2:] == ["TCGA-02-0047", "007"]


@pytest.mark.parametrize("name", ["cohort", "cohort-other", "failures.csv"])
def test_no_patient_takes_the_place_of_another_file(name):
    assert explanation_name(name).startswith("patient-")
