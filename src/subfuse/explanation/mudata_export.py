"""A prepared cohort, and what a run predicted of it, as MuData, from which scverse tools go on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subfuse.bounded_files import other_than_file
from subfuse.cohort.cohort import Patient, read_cohort, read_patients, read_resolved, roles_of
from subfuse.cohort.fold_files import SPLITS, read_repeats
from subfuse.cohort.marker import EXPRESSION, read_mark
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.evaluation.regression.columns import PREDICTED_VALUE
from subfuse.expression.table import read_expression_h5ad, to_anndata
from subfuse.features.store import read_features
from subfuse.files import atomic_path, remove_parts, require_place
from subfuse.run_folder.cohort_copy import changed_since
from subfuse.run_folder.layout import require_run
from subfuse.run_folder.names import PREDICTIONS
from subfuse.run_folder.tables import read_predictions
from subfuse.training.models import main_model

_SUFFIX = ".h5mu"
_PREDICTED = ("risk", "survival_", "p_", PREDICTED_VALUE)  # of the columns of predictions.csv


def export_mudata(prepared: Path, out: Path, *, run: Path | None = None) -> Any:
    """Writes the patients of all cohorts of a prepared folder as MuData, atomically, and returns it.

    `rna` holds expression (patients × genes, with `uns["unit"]` and `uns["scale"]`), `slides` one vector per patient:
    the mean over all patches, or slide vectors, of its slides, as `uns["vectors"]` says. Each has the patients that
    have it. `obs` holds the columns of `patients.csv`, and which fold tests a patient: `fold`, `fold_repeat_1`, ... for
    further repeats, of the prepared folder or of the run, as `uns["folds"]` says.

    Args:
        prepared: The prepared folder.
        out: File to write, which must not be there yet.
        run: Run on this cohort: the held-out predictions of its main model are `TASK_risk`, `TASK_survival_DAYS`
            (of horizons that all folds share), `TASK_p_CLASS` and `TASK_predicted_value` in `obs`, means over the
            repeats.

    Raises:
        ConfigurationError: `out` is there or has another suffix; nothing was prepared; or `run` is no finished run.
        DataError: The folder is not completely prepared, or the run is of another cohort or tested nobody.
    """
    if out.suffix != _SUFFIX:
        raise ConfigurationError(f"OUT must end in {_SUFFIX}. Found {out.name}. Give it that suffix.")
    if out.exists() or other_than_file(out) is not None:
        raise ConfigurationError(f"{out} exists already. Remove it, or give another file.")
    roles = roles_of(prepared)
    require_place(out.parent)
    remove_parts(out)
    encoder = read_mark(prepared).get("encoder")
    tested, predicted, told = (_tested_in(prepared), pd.DataFrame(), {}) if run is None else _held_out(run, prepared)
    patients = [p for role in dict.fromkeys(roles.values()) for p in read_cohort(prepared, role)]

    import mudata

    modalities = {}
    if any(patient.expression is not None for patient in patients):
        table = read_expression_h5ad(prepared / EXPRESSION)
        measured = [patient.patient_id for patient in patients if patient.expression is not None]
        modalities["rna"] = to_anndata(replace(table, values=table.values.loc[measured]))
    if any(patient.slides for patient in patients):
        modalities["slides"] = _slide_vectors(patients, encoder)
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData(modalities)
        data.obs = _observed(prepared, pd.concat([tested, predicted], axis=1)).loc[data.obs_names]
        data.uns["cohorts"] = roles
        if not tested.empty:
            data.uns["folds"] = "of the prepared folder" if run is None else "of the run"
        if told:
            data.uns["predictions"] = told
        with atomic_path(out) as temporary:
            data.write(temporary)
    return data


def _slide_vectors(patients: Sequence[Patient], encoder: str | None) -> Any:
    """Returns AnnData of the patients with slides × features, from one slide in memory after the other."""
    import anndata

    means, n_patches, one_vector = {}, {}, True
    for patient in (patient for patient in patients if patient.slides):
        total, count = np.zeros(()), 0
        for path in patient.slides:
            slide = read_features(path)
            total, count = total + slide.features.sum(axis=0, dtype=np.float64), count + len(slide.features)
            one_vector &= len(slide.features) == 1 and not slide.has_coordinates
        means[patient.patient_id], n_patches[patient.patient_id] = (total / count).astype(np.float32), count
    values = np.stack(list(means.values()))
    return anndata.AnnData(
        X=values,
        obs=pd.DataFrame({"n_vectors" if one_vector else "n_patches": n_patches}, index=list(means)),
        var=pd.DataFrame(index=[f"feature_{i}" for i in range(values.shape[1])]),
        uns={
            "vectors": "mean of slide vectors" if one_vector else "mean of patch features",
            "encoder": encoder or "unknown",
        },
    )


def _observed(prepared: Path, added: pd.DataFrame) -> pd.DataFrame:
    """Returns what is known of each patient: covariates and outcomes as numbers and truths, other text as categories.

    Args:
        prepared: The prepared folder.
        added: Further columns: folds and predictions.

    Raises:
        DataError: Two columns would have one name: a group in a file has no `/` in its name.
    """
    table = read_patients(prepared).set_index("patient_id").rename_axis(None)
    resolved = read_resolved(prepared)
    numeric = {name for name in resolved.covariates if "=" not in name}  # see `coded`
    for task in (resolved.single_tasks or {}).values():
        numeric |= {name for name in (task.time, task.column if task.is_regression else None) if name}
        if task.event is not None and task.cause is None:
            table[task.event] = task.cases(table)
    texts = [name for name in numeric if table[name].dtype == object]
    table[texts] = table[texts].apply(pd.to_numeric)
    observed = pd.concat([table, added.reindex(table.index)], axis=1)
    columns = [str(name).replace("/", "_") for name in observed]
    twice = sorted({name for name in columns if columns.count(name) > 1 or name == "_index"})
    if twice:
        raise DataError(
            f"{prepared}: columns of other names are required, each once. Found {preview(twice)} ('/' becomes '_'; "
            "fold and predictions are added). Rename the column in the clinical table and prepare again."
        )
    observed.columns = pd.Index(columns)
    texts = [name for name in columns if observed[name].dtype == object]
    return observed.astype(dict.fromkeys(texts, "category"))


def _tested_in(prepared: Path) -> pd.DataFrame:
    """Returns for each repeat the number of the first fold that tests a patient; nothing of cohorts without folds."""
    repeats = read_repeats(prepared / SPLITS) if (prepared / SPLITS).exists() else ()
    return _columns_of_folds(
        {p: k for k, fold in reversed(list(enumerate(folds))) for p in fold.test} for folds in repeats
    )


def _columns_of_folds(repeats: Iterable[Mapping[str, int]]) -> pd.DataFrame:
    """Returns a column for each repeat, of a patient's fold in it."""
    columns = {f"fold_repeat_{r}" if r else "fold": folds for r, folds in enumerate(repeats)}
    return pd.DataFrame({name: pd.Series(folds, dtype="Int64") for name, folds in columns.items()})


def _held_out(run: Path, prepared: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Returns a run's folds as `_tested_in` does, the predictions of its tested patients by its main model, and whose.

    Predictions have a column `TASK_QUANTITY` each.

    Raises:
        ConfigurationError: It is no finished run.
        DataError: It is of another cohort, or tested nobody.
    """
    require_run(run)
    table = read_predictions(run / PREDICTIONS)
    table = table[table["split"] == "test"]
    if table.empty:
        raise DataError(
            f"{run / PREDICTIONS}: predictions of tested patients (split: test) are required. Found none. Give a run "
            "of `subfuse crossval`."
        )
    strangers = sorted(set(table["patient_id"]) - set(read_patients(prepared)["patient_id"]))
    changed = f"patients that are not in it: {preview(strangers)}" if strangers else changed_since(run, prepared)
    if changed:
        raise DataError(
            f"{run}: a run on {prepared} as it is now is required. Found another cohort ({changed}). Give the folder "
            "that the run was made from."
        )
    model = main_model(list(table["model"].unique()))
    parts = []
    for task, rows in table[table["model"] == model].groupby("task", sort=False):
        known = rows.dropna(axis=1)  # a fold's own horizons are known of its patients alone
        columns = [c for c in known if c == _PREDICTED[0] or str(c).startswith(_PREDICTED[1:])]
        parts.append(known.groupby("patient_id")[columns].mean().add_prefix(f"{task}_"))
    folds = _columns_of_folds(
        dict(rows.groupby("patient_id", as_index=False)["fold"].min().itertuples(index=False, name=None))
        for _, rows in table.groupby("repeat")
    )
    return folds, pd.concat(parts, axis=1), {"model": model, "repeats": int(table["repeat"].nunique())}
