"""What CONTRIBUTING says about adding a model is all that it takes."""

import re
from pathlib import Path

import numpy as np
import pytest

from small_cohort import deal_folds
from subfuse.cli import build_parser
from subfuse.model import baselines
from subfuse.report.statements import model_label
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.run import load_run
from subfuse.training import models
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

pytestmark = pytest.mark.walk

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def blocks(section: str) -> dict[str, str]:
    """The Python blocks of a section of the page, by the words of their first line, which say where they belong."""
    text = PAGE.read_text(encoding="utf-8").partition(f"**{section}.**")[2].partition("\n**")[0]
    return dict(re.findall(r"^```python\n# (.*?)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def add_the_model(tmp_path, monkeypatch) -> str:
    """Follows the page: writes the class where it belongs and adds the entry. Returns the model's name."""
    (place, source), (table, entry) = blocks("Adding a model").items()
    assert Path(place).parts[:-1] == ("src", "subfuse", "model", "baselines")
    assert table == "MODELS in src/subfuse/training/models.py"
    (tmp_path / Path(place).name).write_text(source)
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])
    ((name, described),) = eval(f"{{{entry}}}", dict(vars(models))).items()  # as if it stood in the table
    monkeypatch.setitem(models.MODELS, name, described)
    return name


def test_one_class_and_one_entry_add_a_model(make_cohort, tmp_path, monkeypatch, capsys):
    name, cohort, run = add_the_model(tmp_path, monkeypatch), make_cohort(16), tmp_path / "run"
    result = cross_validate(
        cohort,
        task="grade",
        models=[name, "logistic"],
        folds=deal_folds(cohort),
        plan=TrainingPlan(training=TrainingSettings(epochs=1), architecture=ArchitectureSettings(embed_dim=16)),
        allow_inputs=["GENE0"],  # shows the latent behind the outcome
        out=run,
    )
    assert result.failures.empty
    assert set(result.metrics["model"]) == {name, "logistic"}
    predicted = load_run(run).predict(cohort, model=name).set_index("patient_id")["p_G4"]
    assert predicted.index.is_unique
    assert set(predicted.index) == {p.patient_id for p in cohort if p.slides}
    assert np.isfinite(predicted).all()
    assert model_label(name) == f"{models.MODELS[name].title} (slides only)"
    with pytest.raises(SystemExit, match="0"):
        build_parser("crossval").parse_args(["crossval", "--help"])
    assert name in capsys.readouterr().out
