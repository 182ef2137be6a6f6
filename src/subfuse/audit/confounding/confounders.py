"""Whether hospital or batch stand behind a result: inputs may tell them, outcomes and predictions go with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from subfuse.audit.audited_task import AuditedTask
from subfuse.audit.confounding.embeddings import Embeddings
from subfuse.audit.confounding.signal import (
    Told,
    explained_share,
    martingale_residuals,
    strongest_columns,
    told_apart,
    told_by,
)
from subfuse.audit.confounding.strata import MARKERS
from subfuse.audit.findings import SIGNIFICANCE, Finding, Level
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.errors import preview
from subfuse.evaluation.floors import LEAST_OF_STRATUM
from subfuse.evaluation.metrics import metric_title, p_text
from subfuse.evaluation.predictions import (
    TaskPredictions,
    events,
    label_indices,
    times_days,
)
from subfuse.evaluation.regression.columns import observed_values
from subfuse.features.store import read_sample
from subfuse.training.models import model_title

CHECK = "confounding"
CONFOUNDER_COLUMNS = (
    "task", "model", "column", "input", "auc", "auc_within", "p_within", "outcome_share", "p_outcome",
    "prediction_share", "p_prediction", "n_values", "n_patients", "strongest",
)  # fmt: skip
TOLD = 0.8  # AUC among patients alike from which on inputs tell a batch: what biology tells beyond the strata is less
CARRIES = 0.5  # share of the predictions among patients alike: biology that follows a batch explains a tenth
_N_PERMUTATIONS = 199
_FOLDS = 5  # where predictions have a single one
_PATCHES = 256  # of a slide, evenly spaced, over which features are averaged
_STRONGEST = 5
_TINY = 1e-7
EMBEDDINGS = "embeddings"
NO_INPUT = "none"  # in the place of an input where nobody's inputs are there, as in predictions of others
_VERBS = dict.fromkeys(("slides", EMBEDDINGS), ("tell", "are not shown to tell"))
_WHY = "What differs between batches by scaling, staining or sequencing counts as biology then, and is new elsewhere."


@dataclass(frozen=True)
class _Compared:
    """Tested patients of the batch's values that enough of them share, one row each."""

    patients: tuple[Patient, ...]
    batch: Int[np.ndarray, " patient"]
    fold: Int[np.ndarray, " patient"]
    stratum: Int[np.ndarray, " patient"]  # of outcome and declared strata together
    outcome: Float[np.ndarray, "patient column"]
    prediction: Float[np.ndarray, "patient column"]
    alike: str  # in what patients of a stratum are alike, in words
    too_few: tuple[str, ...]  # the batch's values that are left out

    @property
    def is_parted(self) -> bool:
        """Whether patients of two values of the batch are alike."""
        return len(np.unique(np.stack([self.batch, self.stratum]), axis=1).T) > len(np.unique(self.stratum))

    def only(self, chosen: Bool[np.ndarray, " patient"]) -> "_Compared":
        """Returns the same of the chosen patients alone."""
        kept = tuple(patient for patient, keep in zip(self.patients, chosen, strict=True) if keep)
        axes = {name: getattr(self, name)[chosen] for name in ("batch", "fold", "stratum", "outcome", "prediction")}
        return replace(self, patients=kept, **axes)


@dataclass(frozen=True)
class MeanFeatures:
    """Mean features of patients; each slide is read once."""

    _known: dict[str, Float[np.ndarray, " feature"]] = field(default_factory=dict)

    def of(self, patient: Patient) -> Float[np.ndarray, " feature"]:
        """Returns the mean of evenly spaced patches of all slides of a patient; empty without slides.

        Raises:
            DataError: A feature file is missing or damaged.
        """
        if patient.patient_id not in self._known:
            read = [read_sample(path, _PATCHES).features.astype(np.float64) for path in patient.slides]
            self._known[patient.patient_id] = np.concatenate(read).mean(axis=0) if read else np.empty(0)
        return self._known[patient.patient_id]


def confounder_findings(
    cohort: Cohort, task: AuditedTask, means: MeanFeatures, embeddings: Callable[[], Embeddings]
) -> tuple[list[Finding], pd.DataFrame]:
    """Returns for the hospital and the declared batch what they have to do with inputs, outcome and predictions.

    Three numbers, over the main model's test patients of the first repeat whose batch has at least ten of them:

    - how well inputs tell the batch (`told_by`) among patients alike, that is of one class, or one third of the
      outcome's martingale residuals, and of one value of every declared stratum and marker;
    - which share of the outcome it explains;
    - which share of the predictions it explains among patients alike.

    A warning where all three are significant (permutation, 5 %) and the AUC is at least `TOLD`; also where inputs and
    outcome tell the batch and no patients of two batches are alike. Biology that differs between batches, and that no
    stratum names, cannot be told from technique. Where there are no inputs, as in predictions of others, the last two
    numbers are told alone: a warning where the batch explains at least `CARRIES` of the predictions, else a note where
    either is significant. How well the model's embeddings tell it is said
    beside (`told_apart`, within the test patients of each fold), and decides nothing: what they know they have from
    the inputs.

    Args:
        cohort: With expression and the places of slide features.
        task: Rows of all models and splits; the metric of `site` or `batch` is quoted.
        means: Keeps what is read of the slides for further tasks.
        embeddings: Makes those of the main model, see `embeddings_of_tested`; called where there is a batch to compare.

    Returns:
        Findings, and a table with columns `CONFOUNDER_COLUMNS`, one row per column and input.
    """
    named = {"site": "site", **({} if cohort.batch in (None, "site") else {"batch": str(cohort.batch)})}
    known = {model: column for model, column in named.items() if any(column in p.columns for p in cohort)}
    if not known:
        found = "cannot be checked: neither hospital nor batch of the patients is known"
        remedy = "Map `site` in patients.columns, or name a column as `batch` of the cohort file."
        return [Finding("note", CHECK, found, _WHY, remedy, task.name)], pd.DataFrame()
    findings, rows, embeddings = [], [], cache(embeddings)
    for model, column in known.items():
        compared = _compared(cohort, task, column)
        if not isinstance(compared, str) and _is_held_out(compared):
            found = (
                f"{column}: cannot be checked, as every fold tests whole values of it that were not trained on: what "
                "it tells in training does not help there"
            )
            findings.append(Finding("note", CHECK, found, _WHY, "Nothing is to be done.", task.name))
            continue
        if isinstance(compared, str):
            found = f"{column}: cannot be checked, {compared}"
            findings.append(Finding("note", CHECK, found, _WHY, "More patients would tell.", task.name))
            continue
        of_column = list(_rows(cohort, compared, means, embeddings(), seed=task.seed))
        if of_column:
            findings.append(_finding(task, column, of_column, compared, task.values.get(model, np.nan)))
            rows += [{"task": task.name, "model": task.main, "column": column, **r} for r in of_column]
    return findings, pd.DataFrame(rows, columns=list(CONFOUNDER_COLUMNS))


def _is_held_out(compared: _Compared) -> bool:
    """Returns whether no value of the batch occurs in the test patients of two folds."""
    pairs = {(batch, fold) for batch, fold in zip(compared.batch.tolist(), compared.fold.tolist(), strict=True)}
    return len(set(compared.fold.tolist())) > 1 and len(pairs) == len(set(compared.batch.tolist()))


def _rows(
    cohort: Cohort, compared: _Compared, means: MeanFeatures, embeddings: Embeddings, *, seed: int
) -> Iterator[dict[str, object]]:
    """Yields the numbers of every input that half of the patients have, and of embeddings; `none` without inputs."""
    everybody = np.zeros(len(compared.batch), dtype=np.int64)
    tests = {"n_permutations": _N_PERMUTATIONS, "seed": seed}
    outcome_share, p_outcome = explained_share(compared.outcome, compared.batch, everybody, **tests)
    prediction_share, p_prediction = explained_share(compared.prediction, compared.batch, compared.stratum, **tests)
    shares = {
        "outcome_share": outcome_share, "p_outcome": p_outcome,
        "prediction_share": prediction_share, "p_prediction": p_prediction,
    }  # fmt: skip
    n_inputs = 0
    of_model = (
        () if not embeddings else ((EMBEDDINGS, _stacked([embeddings.get(p.patient_id) for p in compared.patients])),)
    )
    for name, inputs in (*_inputs(cohort, compared.patients, means), *of_model):
        there = np.isfinite(inputs).all(axis=1)
        having = compared.only(there)
        if there.mean() < 0.5 or len(np.unique(having.batch)) < 2:
            continue
        batch = np.unique(having.batch, return_inverse=True)[1]
        is_input = name != EMBEDDINGS
        told = (told_by if is_input else told_apart)(inputs[there], batch, having.fold, having.stratum, **tests)
        strongest = strongest_columns(inputs[there], batch, having.stratum, _STRONGEST if is_input else 0)
        yield {
            "input": name, "auc": told.auc, "auc_within": told.auc_within, "p_within": told.p_within, **shares,
            "n_values": int(batch.max()) + 1, "n_patients": int(there.sum()),
            "strongest": ", ".join(cohort.genes[i] if name == "expression" else f"feature {i}" for i in strongest),
        }  # fmt: skip
        n_inputs += is_input
    if not n_inputs:
        yield {
            "input": NO_INPUT, **dict.fromkeys(("auc", "auc_within", "p_within"), np.nan), **shares,
            "n_values": int(compared.batch.max()) + 1, "n_patients": len(compared.batch), "strongest": "",
        }  # fmt: skip


def _finding(
    task: AuditedTask, column: str, rows: Sequence[Mapping[str, object]], compared: _Compared, alone: float
) -> Finding:
    model = task.main
    told = {str(row["input"]): Told(*(float(str(row[n])) for n in ("auc", "auc_within", "p_within"))) for row in rows}
    is_blind = told.pop(NO_INPUT, None) is not None
    of_inputs = {name: found for name, found in told.items() if name != EMBEDDINGS}
    tells = [name for name, found in of_inputs.items() if found.p_within < SIGNIFICANCE and found.auc_within >= TOLD]
    apart = [name for name, found in of_inputs.items() if np.isnan(found.auc_within) and found.auc >= TOLD]
    predicts = float(str(rows[0]["p_outcome"])) < SIGNIFICANCE
    is_parted = any(np.isfinite(found.auc_within) for found in of_inputs.values()) or (is_blind and compared.is_parted)
    carries = is_parted and float(str(rows[0]["p_prediction"])) < SIGNIFICANCE
    parts = [_told_text(name, found, compared.alike) for name, found in told.items()]
    parts += ["whether inputs tell it cannot be seen without them"] if is_blind else []
    quoted = f", {metric_title(task.headline)} {alone:.3f}" if np.isfinite(alone) else ""
    parts.append(f"it explains {_share(rows[0], 'outcome')} of the outcome{quoted}")
    if is_parted:
        alike = f"among patients alike{f' in {compared.alike}' if is_blind else ''}"
        parts.append(f"{alike} it explains {_share(rows[0], 'prediction')} of what {model_title(model)} "
                     "predicts")  # fmt: skip
    if compared.too_few:
        names = preview(compared.too_few, 3)
        parts.append(f"left out are {names}, of fewer than {LEAST_OF_STRATUM} test patients each")
    level: Level = "ok"
    is_mostly = is_blind and carries and float(str(rows[0]["prediction_share"])) >= CARRIES
    if (tells and predicts and carries) or (apart and predicts) or is_mostly:
        level = "warning"
    elif not is_parted or ((tells or apart or is_blind) and (predicts or carries)):
        level = "note"
    text = f"{column}: {'; '.join(parts)}"
    if level == "ok":
        return Finding("ok", CHECK, text, task=task.name, model=model)
    strongest = [str(row["strongest"]) for row in rows if row["input"] in (*tells, *apart)]
    text += f". It shows most in {'; '.join(strongest)}" if strongest else ""
    if is_blind:
        remedy = (
            f"Quote the results within {column}. If its patients differ in what a model may know, such as age, name "
            "that as a stratum (`--strata`)."
        )
    else:
        remedy = (
            f"Scale and stain all patients together; quote the results within {column}; test on whole hospitals that "
            "were not trained on (`splits: {by: site}`)."
        )
    return Finding(level, CHECK, text, _WHY, remedy, task.name, model)


def _told_text(name: str, told: Told, alike: str) -> str:
    everybody = "undefined" if np.isnan(told.auc) else f"{told.auc:.3f}"
    tells, not_shown = _VERBS.get(name, ("tells", "is not shown to tell"))
    if np.isnan(told.auc) and name == EMBEDDINGS:
        return f"whether {name} tell it is not known, as too few patients of a fold share its values"
    if np.isnan(told.auc_within):
        return f"{name} {tells} it with an AUC of {everybody}, and no patients of two values are alike in {alike}"
    verb = tells if told.p_within < SIGNIFICANCE and told.auc_within > 0.5 else not_shown
    return (
        f"{name} {verb} it (AUC {everybody}; {told.auc_within:.3f} among patients alike in {alike}, "
        f"{p_text(told.p_within)})"
    )


def _share(row: Mapping[str, object], what: str) -> str:
    return f"{float(str(row[f'{what}_share'])):.0%} ({p_text(float(str(row[f'p_{what}'])))})"


def _compared(cohort: Cohort, task: AuditedTask, column: str) -> _Compared | str:
    """Returns who is compared, or why nobody can be."""
    tested = task.tested_by(task.main)
    tested = tested[tested["repeat"] == tested["repeat"].min()].drop_duplicates("patient_id")
    known = {patient.patient_id: patient for patient in cohort}
    patients = [known.get(str(name)) for name in tested["patient_id"]]
    value = pd.Series([None if p is None else p.columns.get(column) for p in patients], index=tested.index)
    shared = value.map(value.value_counts()) >= LEAST_OF_STRATUM
    if value[shared].nunique() < 2:
        return f"fewer than two of its values are shared by {LEAST_OF_STRATUM} test patients each"
    tested, chosen = tested[shared], tuple(p for p, keep in zip(patients, shared, strict=True) if keep and p)
    fold = pd.factorize(tested["fold"])[0]
    if fold.max() == 0:
        fold = np.random.default_rng(task.seed).permutation(len(fold)) % _FOLDS
    outcome, of_outcome = _outcome(task, tested)
    named = [n for n in dict.fromkeys((*cohort.strata, *MARKERS)) if n != column and n != task.name]
    named = [n for n in named if len({str(p.columns.get(n)) for p in chosen}) > 1]
    keys = [tuple(str(p.columns.get(n)) for n in named) for p in chosen]
    stratum = pd.factorize(pd.Series([(int(o), *key) for o, key in zip(of_outcome, keys, strict=True)]))[0]
    return _Compared(
        chosen,
        pd.factorize(value[shared], sort=True)[0].astype(np.int64),
        fold.astype(np.int64),
        stratum.astype(np.int64),
        outcome,
        _prediction(task, tested),
        preview(["outcome", *named]),
        tuple(sorted(map(str, value[~shared].dropna().unique()))),
    )


def _outcome(
    task: TaskPredictions, tested: pd.DataFrame
) -> tuple[Float[np.ndarray, "patient column"], Int[np.ndarray, " patient"]]:
    """Returns the outcome as numbers, and strata of patients with a like one."""
    if task.classes is not None:
        label = label_indices(tested, task.classes)
        return np.eye(len(task.classes))[label], label
    residual = (
        martingale_residuals(times_days(tested), events(tested))
        if task.outcome.kind == "survival"
        else observed_values(tested)
    )
    return residual[:, None], np.searchsorted(np.quantile(residual, [1 / 3, 2 / 3]), residual)


def _prediction(task: TaskPredictions, tested: pd.DataFrame) -> Float[np.ndarray, "patient column"]:
    """Returns the predictions centred and scaled within the fold: models of folds have scales of their own."""
    values = task.outcome.log_scores(tested)
    table = pd.DataFrame(values).groupby(tested["fold"].to_numpy())
    centred = values - table.transform("mean").to_numpy()
    spread = table.transform("std").fillna(0.0).to_numpy()
    return centred / np.where(spread > _TINY, spread, np.inf)


def _inputs(
    cohort: Cohort, patients: Sequence[Patient], means: MeanFeatures
) -> Iterator[tuple[str, Float[np.ndarray, "patient column"]]]:
    """Yields the inputs by name; a patient without one has NaN."""
    if cohort.genes:
        yield "expression", _stacked([p.expression for p in patients], width=len(cohort.genes))
    slides = [means.of(patient) for patient in patients]
    if any(map(len, slides)):
        yield "slides", _stacked([mean if len(mean) else None for mean in slides])


def _stacked(
    rows: Sequence[Float[np.ndarray, " column"] | None], *, width: int = 1
) -> Float[np.ndarray, "patient column"]:
    """Returns rows below one another, NaN for a missing one; as wide as they are, or as given where all are missing."""
    width = next((len(row) for row in rows if row is not None), width)
    return np.stack([np.full(width, np.nan) if row is None else row for row in rows]).astype(np.float64)
