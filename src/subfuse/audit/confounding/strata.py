"""What is left of a result where patients are alike: within declared strata, markers, batches and usual subgroups."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd

from subfuse.audit.audited_task import AuditedTask
from subfuse.audit.findings import SIGNIFICANCE, Finding
from subfuse.errors import ConfigurationError, listed, preview
from subfuse.evaluation.floors import LEAST_OF_STRATUM
from subfuse.evaluation.metrics import CHANCE, NORMAL_95, metric_title, p_text
from subfuse.evaluation.predictions import PATIENT, TaskPredictions
from subfuse.evaluation.strata import pair_decomposition, stratified_metrics
from subfuse.identifiers import spelt_otherwise

CHECK = "within strata"
_WIDE = 0.3  # an interval as wide holds both a weak and a good model
MARKERS = ("idh", "codeletion_1p19q", "cdkn2a")  # of the WHO classification, as docs/data.md names the columns
SUBGROUPS = ("grade", "sex", "gender", "site")
AGE = "age"
OTHERS = "others"
_WHY = "A model that ranks patients of different strata alone tells what the stratum tells."
_WHY_SUBGROUPS = "A mean hides patients for whom a model does not work."


def require_groups(declared: Sequence[str], patients: pd.DataFrame | None) -> None:
    """Refuses strata that are no column of the patients, or that tell no two groups of patients apart.

    Raises:
        ConfigurationError: Names the column and what it holds.
    """
    if not declared:
        return
    if patients is None:
        raise ConfigurationError(f"strata: a table of the patients is required. Found none with {preview(declared)}.")
    for column in declared:
        if column in ("time_days", "event", "label"):
            raise ConfigurationError(f"strata: {column} is the outcome: patients of a stratum would not differ in it. "
                                     "Name another column.")  # fmt: skip
        if column not in patients:
            available = [str(name) for name in patients]
            raise ConfigurationError(
                f"strata: {column} must be a column of the patients. They have {preview(available, 20)}"
                f"{spelt_otherwise([column], available).get(column, '')}. Name one of these."
            )
        values = patients[column].dropna().astype(str)
        if _joined(values).nunique() < 2:
            raise ConfigurationError(
                f"strata: two groups of {column}, of {LEAST_OF_STRATUM} patients, are required. Found "
                f"{preview(values.unique(), 3) or 'no value'} for {len(values)} patients. Group them, or leave it out."
            )


def strata_of(patients: pd.DataFrame, declared: Sequence[str]) -> tuple[list[str], pd.DataFrame]:
    """Returns the columns that are strata, and these with the usual subgroups as text, by cohort and patient_id.

    Strata are the declared columns, and markers where the patients have them. Subgroups are grade, sex, site and
    thirds of age. Values of fewer than ten patients are joined.

    Args:
        patients: One row per patient, with `patient_id` and, where there are several, `cohort`.
        declared: See `CohortFile.strata_columns`.
    """
    table = patients if "cohort" in patients else patients.assign(cohort="")
    wanted = [name for name in dict.fromkeys([*declared, *MARKERS]) if name in table]
    groups = {name: _joined(table[name]) for name in dict.fromkeys([*wanted, *SUBGROUPS]) if name in table}
    if AGE in table and AGE not in groups:
        groups[AGE] = _thirds(pd.to_numeric(table[AGE], errors="coerce"))
    several = {name: values for name, values in groups.items() if values.nunique() > 1 or name in declared}
    index = pd.MultiIndex.from_frame(table[PATIENT])
    columns = pd.DataFrame({name: values.to_numpy(dtype=object) for name, values in several.items()}, index=index)
    return [name for name in wanted if name in columns], columns


def stratum_findings(
    task: AuditedTask, strata: Sequence[str], columns: pd.DataFrame
) -> tuple[list[Finding], pd.DataFrame, pd.DataFrame]:
    """Returns what is left of the main model's headline metric within strata, and whether subgroups differ.

    A stratum is a warning where the metric is lower in it than overall, by a one-sided test at 5 % divided by the
    number of strata (Bonferroni); a note where it has no interval or one that reaches chance. A column of subgroups is
    a warning where they differ by the adjusted p of their heterogeneity.

    Args:
        task: Rows of all models and splits.
        strata: Which columns are strata; the others are subgroups.
        columns: See `strata_of`. Where no patient of the task is of its cohort, patients are matched by identifier.

    Returns:
        Findings, and the tables of `stratified_metrics` and, for strata, of `pair_decomposition`.
    """
    model = task.main
    columns = of_tested(task, columns)
    within = stratified_metrics(task, [model], columns, n_bootstrap=task.n_bootstrap, seed=task.seed)
    pairs = pair_decomposition(task, [model], columns[list(strata)])
    tables = {str(column): rows for column, rows in within.groupby("column", sort=False)}
    n = sum(len(tables[name]) for name in strata)
    is_outcome = {name for name, rows in tables.items() if name not in strata and rows["value"].isna().all()}
    findings = [
        _within_finding(task, columns, rows, pairs[pairs["column"] == name], n=n)
        if name in strata
        else _subgroup_finding(task, model, rows)
        for name, rows in tables.items()
        if name not in is_outcome
    ]
    return findings, within, pairs


def _within_finding(
    task: AuditedTask, columns: pd.DataFrame, rows: pd.DataFrame, pairs: pd.DataFrame, *, n: int
) -> Finding:
    model = task.main
    column, overall = str(rows["column"].iloc[0]), task.values[model]
    metric, of = metric_title(task.headline), {"task": task.name, "model": model}
    if len(rows) < 2:
        detail = f"{metric} within {column} cannot be told: all patients are in one group"
        return Finding.of_model("note", CHECK, detail, _WHY, "Group its values.", **of)
    if _is_outcome(task, columns[column]):
        detail = f"{metric} within {column} cannot be told: {column} is the outcome, or tells it: all are alike"
        remedy = "Read the strata of other tasks: no number of patients helps here."
        return Finding.of_model("note", CHECK, detail, _WHY, remedy, **of)
    known = rows.dropna(subset=["lower"])
    untold = "; ".join(f"{row.stratum}: {row.reason}" for row in rows[rows["lower"].isna()].itertuples())
    if known.empty:
        detail = f"{metric} within {column} cannot be told ({untold})"
        return Finding.of_model("note", CHECK, detail, _WHY, "More patients are needed.", **of)
    told = ", ".join(
        f"{row.value:.3f} ({row.lower:.3f} to {row.upper:.3f}, {row.n_patients} patients) for {row.stratum}"
        for row in known.itertuples()
    )
    between = pairs.loc[pairs["stratum"] != pairs["other"], "share"].sum()
    share = f"; {between:.0%} of the comparable pairs lie between its values" if len(pairs) else ""
    detail = f"{metric} {overall:.3f}; within {column} {told}{f'; not told of {untold}' if untold else ''}{share}"
    deviation = (known["upper"] - known["lower"]) / (2 * NORMAL_95)
    z = (known["value"] - overall) / deviation.clip(lower=1e-9)
    if overall > CHANCE and (z < -NormalDist().inv_cdf(1 - SIGNIFICANCE / n)).any():
        remedy = f"Report the metric within {column} beside the overall one."
        return Finding.of_model("warning", CHECK, detail, _WHY, remedy, **of)
    chance = listed(known.loc[known["lower"] <= CHANCE, "stratum"].astype(str))
    if chance or untold:
        detail += f"; not shown to be above chance for {chance}" if chance else ""
        return Finding.of_model("note", CHECK, detail, _WHY, "More patients would tell.", **of)
    return Finding.of_model("ok", CHECK, detail, **of)


def _is_outcome(task: TaskPredictions, stratum: pd.Series) -> bool:
    """Returns whether the test patients of every stratum are of one class."""
    if task.classes is None:
        return False
    label = task.tested.drop_duplicates(PATIENT).set_index(PATIENT)["label"]
    return bool(label.groupby(stratum[~stratum.index.duplicated()].reindex(label.index)).nunique().max() == 1)


def _subgroup_finding(task: TaskPredictions, model: str, rows: pd.DataFrame) -> Finding:
    known = rows.dropna(subset=["p_adjusted"])  # those that are tested
    column, p_value = str(rows["column"].iloc[0]), float(known["p_adjusted"].iloc[0]) if len(known) else np.nan
    metric, of = metric_title(task.headline), {"task": task.name, "model": model}
    values = listed(f"{row.value:.3f} for {row.stratum}" for row in known.itertuples())
    if np.isnan(p_value):
        detail = f"{metric} by {column} is not tested: fewer than two subgroups have enough patients"
        return Finding.of_model("note", "subgroups", detail, _WHY_SUBGROUPS, **of)
    verb = "differs" if p_value < SIGNIFICANCE else "is not shown to differ"
    detail = f"{metric} {verb} by {column} ({values}; heterogeneity, adjusted {p_text(p_value)}"
    if p_value < SIGNIFICANCE:
        remedy = "Report the subgroups apart."
        return Finding.of_model("warning", "subgroups", f"{detail})", _WHY_SUBGROUPS, remedy, **of)
    if (known["upper"] - known["lower"]).max() > _WIDE:
        detail += "; intervals so wide that a difference would not be seen)"
        return Finding.of_model("note", "subgroups", detail, _WHY_SUBGROUPS, "More patients would tell.", **of)
    return Finding.of_model("ok", "subgroups", f"{detail})", **of)


def of_tested(task: TaskPredictions, columns: pd.DataFrame) -> pd.DataFrame:
    """Returns the columns of `strata_of` by the task's test patients: by identifier alone where no cohort is theirs."""
    tested = pd.MultiIndex.from_frame(task.tested[PATIENT].drop_duplicates())
    if tested.isin(columns.index).any():
        return columns
    by_id = columns.droplevel("cohort")
    by_id = by_id[~by_id.index.duplicated()].reindex(tested.get_level_values("patient_id"))
    return by_id.set_axis(tested, axis="index")


def _joined(values: pd.Series) -> pd.Series:
    """Returns text values, rare ones as `others` where there are several."""
    text = pd.Series([None if pd.isna(value) else str(value) for value in values], index=values.index, dtype=object)
    counts = text.value_counts()
    rare = set(counts.index[counts < LEAST_OF_STRATUM])
    return text.map(lambda value: OTHERS if value in rare and len(rare) > 1 else value)


def _thirds(numbers: pd.Series) -> pd.Series:
    """Returns thirds of the known numbers by their limits, such as `50 to 63`."""
    low, high = numbers.quantile([1 / 3, 2 / 3], interpolation="nearest")
    if not low < high:
        return pd.Series([None] * len(numbers), index=numbers.index, dtype=object)
    names = [f"up to {low:.4g}", f"{low:.4g} to {high:.4g}", f"above {high:.4g}"]
    third = pd.cut(numbers, [-np.inf, low, high, np.inf], labels=names)
    return pd.Series([None if pd.isna(name) else name for name in third], index=numbers.index, dtype=object)
