import json

import pandas as pd

from subfuse.files import write_json
from subfuse.run_folder.job import Job
from subfuse.run_folder.layout import add_to_provenance
from subfuse.runs.timing import explaining_seconds, training_seconds


def test_seconds_are_summed_over_folds_and_models_without_a_record_are_left_out(tmp_path):
    jobs = [Job("grade", "snn", 0), Job("grade", "snn", 1), Job("grade", "abmil", 0), Job("survival", "snn", 0)]
    for job, seconds in zip(jobs[:3], (1.25, 2.25, 7), strict=True):
        write_json(job.folder(tmp_path) / "provenance.json", {"training_seconds": seconds})
    rows = [(job.task, job.model, job.fold_index, 0) for job in jobs]
    predictions = pd.DataFrame(rows, columns=["task", "model", "fold", "repeat"])
    assert training_seconds(tmp_path, predictions) == {"grade": {"snn": 3.5, "abmil": 7.0}}


def test_explaining_is_added_to_what_is_known_of_a_run(tmp_path):
    add_to_provenance(tmp_path, {"explaining_seconds": {}})
    assert not list(tmp_path.iterdir())  # an unfinished run stays one
    write_json(tmp_path / "provenance.json", {"date": "today"})
    for fold in "01":
        write_json(tmp_path / fold / "provenance.json", {"explaining_seconds": 2.0})
    seconds = explaining_seconds(("grade", "subspace", tmp_path / fold) for fold in "012")
    add_to_provenance(tmp_path, {"explaining_seconds": seconds})
    told = json.loads((tmp_path / "provenance.json").read_text())
    assert told == {"date": "today", "explaining_seconds": {"grade": {"subspace": 4.0}}}
