"""Tasks of a cohort file, resolved against the patients that have their columns."""

import math
from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from subfuse.cells import are_months, is_date, may_mean_unknown, other_writing
from subfuse.clinical.columns import FIXED_COLUMNS, RESERVED
from subfuse.clinical.source import CENSORED
from subfuse.cohort.covariates import coded, column_of, known_values
from subfuse.cohort.task import FOLLOW_UP, BinaryTasks, TaskSpec
from subfuse.errors import ConfigurationError, DataError, SubfuseError, preview
from subfuse.identifiers import LONGEST_NAME, difference_of_spelling, is_plain_label, spelling_of_label

_BY_CHANCE = 0.01  # probability from which on a covariate that tells an outcome of few patients is no evidence
_MOST_NUMBERS = 10  # values of a column without declared classes that may be classes
_LABEL_TASKS = ("diagnosis", "grade", "subtype")  # assumed where the cohort file has no `tasks`


def assumed_tasks(patients: pd.DataFrame, endpoints: Mapping[str, TaskSpec] | None = None) -> dict[str, TaskSpec]:
    """Returns the tasks of a cohort file that declares none, where anybody has them.

    Survival, the declared endpoints, and the usual labels.
    """
    follow_ups = {"survival": TaskSpec(time="time_days", event="event"), **(endpoints or {})}
    return {name: task for name, task in follow_ups.items() if task.cases(patients).notna().any()} | {
        name: TaskSpec(column=name) for name in _LABEL_TASKS if name in patients and patients[name].notna().any()
    }


def learnable_tasks(
    patients: pd.DataFrame, endpoints: Mapping[str, TaskSpec] | None = None
) -> tuple[dict[str, TaskSpec], dict[str, str]]:
    """Returns the assumed tasks that models can be developed for, and by name why there are none for the others.

    Args:
        patients: Those to develop on.
        endpoints: Beside their own follow-up.
    """
    tasks, reasons = assumed_tasks(patients, endpoints), {}
    for name, task in tasks.items():
        try:
            resolve_tasks({name: task}, patients, develops=True)
            if task.column is not None:
                _refuse_few_or_many_classes(name, task.column, patients[task.column].dropna())
        except SubfuseError as error:
            reasons[name] = str(error)
    return {name: task for name, task in tasks.items() if name not in reasons}, reasons


def resolve_tasks(
    declared: Mapping[str, TaskSpec] | None,
    patients: pd.DataFrame,
    endpoints: Mapping[str, TaskSpec] | None = None,
    *,
    develops: bool,
) -> dict[str, TaskSpec]:
    """Returns the tasks of a cohort file, or where it declares none, those whose columns the patients have.

    Args:
        declared: `tasks` of the cohort file.
        patients: Those to develop on; everybody where nobody trains on them.
        endpoints: Beside their own follow-up.
        develops: False where every cohort is external: tasks without an outcome are left out then.

    Raises:
        ConfigurationError: There is no task to develop models for, or the patients lack the outcome of one.
        DataError: Nobody has the event of a survival task.
    """
    labels = [str(name) for name in patients if name not in (*FIXED_COLUMNS, *RESERVED)]
    tasks = declared
    if tasks is None:
        assumed = assumed_tasks(patients, endpoints)
        tasks = (
            learnable_tasks(patients, endpoints)[0] if develops else None
        ) or assumed  # where none is, the first says why
    if not tasks and develops:
        raise ConfigurationError(
            "tasks: at least one is required to develop models. Map time_days and event, or a label, in "
            f"patients.columns, or, if nobody trains on these patients, set `role: external`. Found the columns "
            f"{preview(labels, limit=12)}."
        )
    if not develops:  # predicting needs no outcome
        known = {*labels, *(FOLLOW_UP if patients["event"].notna().any() else ())}
        return {name: task for name, task in tasks.items() if known.issuperset(task.patient_columns)}
    for name, task in tasks.items():
        events = task.cases(patients) if task.is_survival else None
        if events is not None and not events.notna().any():
            raise ConfigurationError(
                f"tasks.{name}: {' and '.join(task.patient_columns)} must be known for some patients. Found none. Map "
                "them in patients.columns, or remove the task."
            )
        if events is not None and not events.any():
            raise _no_event(name, task, patients)
        if task.column is not None and task.column not in labels:
            raise ConfigurationError(
                f"tasks.{name}.column: {task.column!r} is not a column of the patients. "
                f"They have {preview(labels, limit=12) or 'none'}. Add it to patients.columns."
            )
    return dict(tasks)


def _no_event(name: str, task: TaskSpec, patients: pd.DataFrame) -> DataError:
    known = patients[task.stratified_by].dropna()
    if task.cause is not None:
        causes = known[known != CENSORED].value_counts().sort_index()
        found = preview([f"{cause}: {n}" for cause, n in causes.items()]) or "no event of any cause"
        return DataError(
            f"tasks.{name}: patients whose event is {task.cause} are required. Found {found} among {len(known)} with a "
            "follow-up. Correct `cause`, or remove the task."
        )
    return DataError(
        f"tasks.{name}: patients with an event are required to learn survival. Found {len(known)} with a follow-up and "
        f"no event in {task.event}. Check that true means an event (event_values), or remove the task."
    )


def tasks_left_out(
    declared: Mapping[str, TaskSpec] | None,
    patients: pd.DataFrame,
    endpoints: Mapping[str, TaskSpec] | None = None,
    *,
    develops: bool,
) -> list[str]:
    """Returns a warning on each task that is assumed no longer, as nothing can be learnt of it; see `resolve_tasks`."""
    reasons = learnable_tasks(patients, endpoints)[1] if declared is None and develops else {}
    return [f"{reason} Left out, since `tasks` does not name it" for reason in reasons.values()]


def unknown_outcomes(declared: Collection[str], resolved: Collection[str]) -> list[str]:
    """Returns a warning where tasks were left out as nobody has their outcome."""
    absent = [name for name in declared if name not in resolved]
    text = (
        f"tasks: no patient has an outcome of {preview(absent)}; they can be predicted, but nothing evaluated on them"
    )
    return [text] if absent else []


def resolve_classes(
    tasks: Mapping[str, TaskSpec], patients: pd.DataFrame, developed: pd.DataFrame, *, develops: bool
) -> tuple[dict[str, TaskSpec], tuple[str, ...]]:
    """Returns the tasks with their classes in order, and warnings; external cohorts take the trained model's classes.

    Args:
        tasks: See `resolve_tasks`.
        patients: Everybody in use; none may have another label.
        developed: Those of them that classes are found among where the task declares none.
        develops: False where every cohort is external.

    Raises:
        DataError: A label that is not among the declared classes or cannot name a column, fewer than two classes, or
            about as many as patients.
    """
    resolved, warnings = dict(tasks), []
    for name, task in tasks.items():
        if task.column is None or task.is_regression:
            continue
        labels = task.known(developed[task.column]).dropna()
        found = sorted(labels.unique())
        classes = task.classes or (tuple(found) if develops else None)
        extra = sorted(set(task.known(patients[task.column]).dropna()) - set(classes)) if classes is not None else []
        unfit = [label for label in classes or found if not is_plain_label(label)]
        if unfit:
            raise DataError(
                f"tasks.{name}: classes name columns: printable, at most {LONGEST_NAME} bytes. Found "
                f"{unfit[0][:60]!r} in {task.column}. Shorten it."
            )
        if extra:
            raise DataError(
                f"tasks.{name}: every label of {task.column} must be one of {preview(classes or (), limit=9)}. "
                f"Found {preview(extra)}. {_remedy_of_labels(extra, classes or (), found)}"
            )
        if not develops:
            continue
        if task.classes is None:
            _refuse_few_or_many_classes(name, task.column, labels)
            _refuse_two_spellings(name, task.column, labels)
            warnings += _doubtful_classes(name, task.column, labels)
        else:
            _refuse_few_classes(name, task.column, labels)
        resolved[name] = task.model_copy(update={"classes": classes})
        absent = sorted(set(task.classes or ()) - set(found))
        if absent:
            warnings.append(f"tasks.{name}: no patient has {preview(absent)}")
    return resolved, tuple(warnings)


def refuse_other_than_two(declared: Mapping[str, TaskSpec | BinaryTasks], patients: pd.DataFrame) -> None:
    """Refuses columns that are declared together and have not two classes each.

    Args:
        declared: `tasks` of the cohort file.
        patients: Those to develop on, with these columns.

    Raises:
        DataError: Names the declaration, the column and its labels.
    """
    for name, several in declared.items():
        if not isinstance(several, BinaryTasks) or several.classes is not None:
            continue
        for column in several.columns:
            labels = patients[column].dropna()
            if labels.nunique() != 2:
                raise DataError(
                    f"tasks.{name}: two classes of each of `columns` are required. Found {labels.nunique()} of "
                    f"{column}: {preview(sorted(labels.unique()), 5) or 'none'}. Give it a task of its own with "
                    "`column`, declare `classes` and `leave_out`, or group its labels in the table."
                )


def told_by_covariates(covariates: Sequence[str], patients: pd.DataFrame, tasks: Mapping[str, TaskSpec]) -> list[str]:
    """Returns a warning for every covariate that alone tells a class or the event of all patients.

    Only where so many patients would hardly show it by chance (a probability below 0.01): training refuses it then.

    Args:
        covariates: As resolved, see `resolve_covariates`.
        patients: Those that models are developed on.
        tasks: With their classes.
    """
    known = known_values(covariates, patients)
    warnings: dict[str, str] = {}  # by column: its words tell the same
    for name in covariates:
        value = pd.Series([coded(name, known[patient]) for patient in patients["patient_id"]], patients.index)
        for task_name, task in tasks.items():
            if task.is_regression:  # see `suspicious_inputs`
                continue
            outcome = task.cases(patients)
            usable = outcome.notna() & value.notna()
            cases = {f"class {label}": outcome == label for label in task.classes or ()} or {"the event": outcome}
            told = [what for what, is_case in cases.items() if _separates(value[usable], is_case[usable].astype(bool))]
            if told:
                warnings.setdefault(
                    column_of(name),
                    f"covariates: {name} alone tells {told[0]} of {task_name} for all {int(usable.sum())} patients. "
                    f"Remove {column_of(name)} from `covariates`, unless it is known before the outcome",
                )
    return list(warnings.values())


def _separates(values: pd.Series, is_case: pd.Series) -> bool:
    """Returns whether all cases lie on one side of all others, more than chance does it."""
    cases, others = values[is_case], values[~is_case]
    if cases.empty or others.empty or 2 / math.comb(len(values), len(cases)) > _BY_CHANCE:
        return False
    return bool(cases.min() > others.max() or cases.max() < others.min())


def _remedy_of_labels(extra: Sequence[str], classes: Sequence[str], found: Collection[str]) -> str:
    """Returns what to do about labels that are not among the classes: those in another spelling are told first."""
    like = {label: name for label in extra for name in classes if spelling_of_label(label) == spelling_of_label(name)}
    if not like:
        return (
            "Add them to `classes`, or to `leave_out` where their patients are not of this task, or empty these cells."
        )
    label, declared = next(iter(like.items()))
    pair = f"{label} and {declared} differ only in {difference_of_spelling(label, declared)}"
    if declared in found:
        return f"{pair}: write {declared} in these cells."
    meant = {name: label for label, name in like.items()}
    return f"{pair}: write `classes: [{', '.join(meant.get(name, name) for name in classes)}]`."


def _refuse_two_spellings(task: str, column: str, labels: pd.Series) -> None:
    """Refuses labels that differ in case, zeros or separators alone, unless both are declared as classes.

    Raises:
        DataError: Names both spellings, and how many patients have them.
    """
    counts = labels.value_counts()
    spellings: dict[str, list[str]] = {}
    for label in counts.index:
        spellings.setdefault(spelling_of_label(str(label)), []).append(str(label))
    for first, *others in spellings.values():
        if others:
            pair = f"{first} ({counts[first]} patients) and {others[0]} ({counts[others[0]]})"
            raise DataError(
                f"tasks.{task}: classes of {column} must differ in more than "
                f"{difference_of_spelling(first, others[0])}. Found {pair}. Write {first} in all "
                "these cells, or declare both as `classes`."
            )


def _doubtful_classes(task: str, column: str, labels: pd.Series) -> list[str]:
    """Returns a warning on each class that may mean that nothing is known."""
    return [
        f"tasks.{task}: {label!r} ({count} patients) is a class of {column}: where it means unknown, empty these "
        "cells; else list it in `classes`"
        for label, count in labels.value_counts().items()
        if may_mean_unknown(str(label))
    ]


def _plain_number(label: str) -> str:
    """Returns the number that a label writes with a decimal comma, a unit, a limit or the like; others as they are."""
    written = other_writing(label)
    return label if written is None else written.number


def _refuse_few_classes(task: str, column: str, labels: pd.Series) -> None:
    """Refuses labels of which there are fewer than two.

    Raises:
        DataError: Names the column and its label.
    """
    if labels.nunique() < 2:
        raise DataError(
            f"tasks.{task}: at least two classes of {column} are required. Found {preview(labels.unique()) or 'none'}. "
            f"Declare `tasks` of the cohort file without {task}, or map another column to {column} in patients.columns."
        )


def _refuse_few_or_many_classes(task: str, column: str, labels: pd.Series) -> None:
    """Refuses a single label, and a measurement or a name with about as many values as there are patients.

    Raises:
        DataError: Names the column, its number of values and what to do.
    """
    _refuse_few_classes(task, column, labels)
    n_values = labels.nunique()
    numbers = pd.to_numeric(labels.map(_plain_number), errors="coerce")
    is_measured = bool(numbers.notna().all()) and (n_values > _MOST_NUMBERS or bool((numbers % 1 != 0).any()))
    is_measured |= all(map(is_date, labels)) or are_months(labels)
    if (is_measured and n_values > 2) or (n_values > _MOST_NUMBERS and 2 * n_values > len(labels)):
        kind = "different numbers" if numbers.notna().all() else "different values"
        raise DataError(
            f"tasks.{task}: classes are required, each of several patients. Found {n_values} {kind} among the "
            f"{len(labels)} patients with a known `{column}` ({preview(labels.unique(), 3)}). Group them in the table "
            "(such as low, high) and name that column, or list the values as `classes`; `kind: regression` "
            "learns numbers themselves, and a time to an event is a task with `time` and `event`."
        )
