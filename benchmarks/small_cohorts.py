"""Where small cohorts lose against a straight line, and what gives them their results: changes of training, each alone.

SUBFUSE_REAL_DATA=... python benchmarks/small_cohorts.py [--work benchmarks/work] [--cohorts NAME ...]
    [--models NAME ...] [--changes NAME ...] [--splits inner test] [--seeds 0 1 2]

Survival of 333 TCGA stomach cancers with slide features and expression, of 569 TCGA gliomas with expression, age and
sex, and of simulated cohorts of 100 to 600 patients. Inner splits: the patients of an outer fold that are not tested
are divided again, in five, and some parts of each outer fold are predicted by models of the others. Only they are for
choosing; rows of test folds are for the record. Resumable: what is finished stays in `--work`. The page keeps the rows
that are not measured this time; each says of which commit it is.
"""

import argparse
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from small_cohort_changes import ALONE, DEFAULT, LINE, LINEAR, WITH_LINE, Change, changes_of
from subfuse.cohort.batches import SurvivalTarget
from subfuse.cohort.cohort import Cohort, read_cohort
from subfuse.cohort.drawn_folds import stratified_folds
from subfuse.cohort.fold import Fold
from subfuse.cohort.fold_files import SPLITS, read_repeats
from subfuse.execution import available_cores
from subfuse.files import write_table, write_text
from subfuse.objective.ranking import concordance
from subfuse.preparation.prepare import prepare
from subfuse.simulation.cohort import simulate
from subfuse.training.fitting import train_fold
from subfuse.training.models import is_linear
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "small_cohorts.md"
WHY = Path(__file__).parent / "small_cohorts_why.md"  # what follows from the numbers, below them
INNER_PARTS = 5  # that the patients of an outer fold are divided into
N_BOOTSTRAP = 1000
SPLITS_OF_PAGE = {"inner": "inner splits", "test": "test folds"}
OTHERS = ("mean", "gated-abmil", "clam-sb", "dsmil", "transmil", "concat", "late-fusion")  # by default, on test folds


@dataclass(frozen=True)
class Source:
    """A cohort of the page."""

    title: str
    example: str = ""  # under examples
    patients: int = 0  # that are simulated instead
    has_slides: bool = True
    outer_folds: int = 5  # whose patients are divided again; fewer where many are tested at once
    parts_tested: int = 1  # of the five that an outer fold's patients are divided into
    is_tested: bool = False  # whether its test folds are shown

    @property
    def models(self) -> tuple[str, ...]:
        """Those whose training is changed."""
        return (*LINEAR, "subspace", "snn", "abmil") if self.has_slides else ("cox", "subspace", "snn")

    def cohort(self, folder: Path) -> Cohort:
        """Returns the prepared cohort."""
        prepared = folder / "prepared"
        if not prepared.exists():
            given = ROOT / "examples" / self.example / "cohort.yaml"
            workers = available_cores()
            if self.patients:
                given = simulate(folder / "cohort", patients=self.patients, seed=0, workers=workers)
            prepare(given, prepared, workers=workers)
        return read_cohort(prepared)


COHORTS = {
    "stomach": Source("TCGA stomach, 333 patients", "tcga_stad", is_tested=True),
    "gliomas": Source("TCGA gliomas, 569 patients, no slides", "tcga_gbmlgg", has_slides=False, parts_tested=2),
    "simulated-100": Source("Simulated, 100 patients", patients=100),
    "simulated-300": Source("Simulated, 300 patients", patients=300, outer_folds=3),
    "simulated-600": Source("Simulated, 600 patients", patients=600, outer_folds=2),
}


@dataclass(frozen=True)
class Row:
    """One change of one model."""

    model: str
    name: str
    change: Change


@dataclass(frozen=True)
class Section:
    """A table of the page: rows and the splits on which they are measured."""

    title: str
    cohort: Cohort
    folds: Sequence[Fold]
    rows: Sequence[Row]
    seeds: Sequence[int]
    folder: Path


def inner_splits(cohort: Cohort, folds: Sequence[Fold], parts_tested: int) -> Iterator[Fold]:
    """Yields some splits of each outer fold's patients that are not tested."""
    event = {patient.patient_id: patient.event for patient in cohort}
    for index, fold in enumerate(folds):
        pool = sorted((*fold.train, *fold.validation))
        table = pd.DataFrame({"patient_id": pool, "event": [event[name] for name in pool]})
        parts = stratified_folds(table, folds=INNER_PARTS, validation=0.15, stratify=["event"], seed=index)
        yield from parts[:parts_tested]


def sections(
    name: str, work: Path, models: Sequence[str] | None, seeds: Sequence[int], splits: Sequence[str]
) -> Iterator[Section]:
    """Yields the tables of a cohort."""
    source = COHORTS[name]
    cohort = source.cohort(work / name)
    outer = read_repeats(work / name / "prepared" / SPLITS)[0]
    rows = [
        Row(model, change, what)
        for model in source.models
        if model in (models or source.models)
        for change, what in changes_of(model, has_slides=source.has_slides).items()
    ]
    inner = list(inner_splits(cohort, outer[: source.outer_folds], source.parts_tested))
    if "inner" in splits:
        title = f"{source.title}: {SPLITS_OF_PAGE['inner']}"
        yield Section(title, cohort, inner, rows, (0, 1, 2), work / name / "inner")
    if source.is_tested and "test" in splits:
        shown = [row for row in rows if row.name in (DEFAULT, ALONE)]
        shown += [Row(model, DEFAULT, Change()) for model in OTHERS if model in (models or OTHERS)]
        title = f"{source.title}: {SPLITS_OF_PAGE['test']}"
        yield Section(title, cohort, outer, shown, seeds, work / name / "test")


def predictions(section: Section, fold: Fold, row: Row, seed: int, epochs: int | None) -> pd.DataFrame:
    """Returns the risk of test patients, by the model and by its line alone, with processor seconds of training."""
    cohort, change = section.cohort, row.change
    settings = change.settings | ({} if epochs is None else {"epochs": epochs, "patience": epochs})
    plan = TrainingPlan(
        training=TrainingSettings(**settings), architecture=ArchitectureSettings(**change.architecture), seed=seed
    )
    by_id = {patient.patient_id: patient for patient in cohort}
    patients = [by_id[name] for name in fold.test]
    with change.applied():
        start = time.process_time()
        fitted = train_fold(cohort, change.fold(fold), task="survival", model_name=row.model, plan=plan)
        seconds = time.process_time() - start
        predicted = fitted.predict(patients)
    columns = {
        "patient_id": fold.test,
        "time_days": [p.time_days for p in patients],
        "event": [p.event for p in patients],
        "score": predicted["risk"].to_numpy(),
        "seconds": seconds,
        "epochs": max(fitted.details.get("chosen_epochs", [-1])) + 1,
        "commit": commit(),
    }
    if "contribution_linear_path" in predicted:
        columns["line"] = predicted["contribution_linear_path"].to_numpy()
    return pd.DataFrame(columns)


def commit() -> str:
    """Returns the commit that this runs at."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def all_predictions(section: Section, row: Row) -> pd.DataFrame:
    """Returns a row's predictions of every split, made now or kept from before."""
    tables, is_reference = [], row.name in (DEFAULT, ALONE)
    seeds = section.seeds if is_reference and not is_linear(row.model) else section.seeds[:1]
    for index, fold in enumerate(section.folds):
        for seed in seeds:
            path = section.folder / row.model / row.name.replace(" ", "_") / f"{index}-{seed}.csv"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                epochs = None
                if row.change.epochs_of_alone:
                    alone = path.parents[1] / ALONE.replace(" ", "_") / path.name
                    epochs = int(pd.read_csv(alone)["epochs"].iloc[0])
                write_table(path, predictions(section, fold, row, seed, epochs))
            tables.append(pd.read_csv(path, dtype={"commit": str}).assign(split_index=index, seed=seed))
    return pd.concat(tables, ignore_index=True)


def measured(section: Section, changes: Sequence[str] | None) -> dict[tuple[str, str], pd.DataFrame]:
    """Returns the predictions of every row by model and change; a line within a network is a row of its own."""
    found = {}
    for row in section.rows:
        if row.name in (DEFAULT, ALONE, *(changes or [row.name])):
            table = found[row.model, row.name] = all_predictions(section, row)
            print(f"{section.title}: {row.model}, {row.name}: {mean_concordance(table):.3f}", flush=True)
            if "line" in table and row.name == DEFAULT:
                found[row.model, LINE] = table.assign(score=table["line"])
    return found


def mean_concordance(table: pd.DataFrame) -> float:
    """Returns the C-index, mean over splits and seeds."""
    return float(np.mean([concordance_of(group) for _, group in table.groupby(["split_index", "seed"])]))


def concordance_of(table: pd.DataFrame) -> float:
    """Returns the C-index of one table of patients."""
    columns = [torch.from_numpy(table[name].to_numpy(copy=True)) for name in ("score", "time_days", "event")]
    return float(concordance(columns[0][:, None], SurvivalTarget(columns[1].float(), columns[2].bool())))


def resampled(table: pd.DataFrame) -> np.ndarray:
    """Returns the mean over splits of the C-index of patients drawn again and again (first seed).

    The same patients are drawn of every table of the same splits, so that differences are paired.
    """
    random, means = np.random.default_rng(0), []
    tested = table[table["seed"] == 0].sort_values(["split_index", "patient_id"])
    for _, rows in tested.groupby("split_index"):
        time_days, event, score = (rows[name].to_numpy() for name in ("time_days", "event", "score"))
        later = (time_days > time_days[:, None]) | ((time_days == time_days[:, None]) & ~event)
        comparable = (event[:, None] & later).astype(float)
        correct = comparable * ((score[:, None] > score) + 0.5 * (score[:, None] == score))
        times_drawn = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=N_BOOTSTRAP)
        means.append(((times_drawn @ correct) * times_drawn).sum(1) / ((times_drawn @ comparable) * times_drawn).sum(1))
    return np.mean(means, axis=0)


def interval(draws: np.ndarray, sign: str = "") -> str:
    """Returns the 95 % bootstrap interval."""
    lower, upper = np.quantile(draws, [0.025, 0.975])
    return f"{lower:{sign}.3f} to {upper:{sign}.3f}"


def difference(table: pd.DataFrame, other: pd.DataFrame | None) -> str:
    """Returns by how much the C-index of the first seed is above another's, with its interval."""
    if other is None or other is table:
        return ""
    first, second = (t[t["seed"] == 0] for t in (table, other))
    gain = mean_concordance(first) - mean_concordance(second)
    return f"{gain:+.3f} ({interval(resampled(table) - resampled(other), '+')})"


def table_rows(rows: dict[tuple[str, str], pd.DataFrame]) -> Iterator[str]:
    """Yields the rows of a Markdown table."""
    lines = {model: table for (model, change), table in rows.items() if model in LINEAR and change == DEFAULT}
    best = max(lines.values(), key=mean_concordance, default=None)
    for (model, change), table in rows.items():
        has_line = change in (DEFAULT, ALONE, LINE) or change.startswith(WITH_LINE)
        reference = rows.get((model, DEFAULT if model in LINEAR or has_line else ALONE))
        of_seeds = ", ".join(f"{mean_concordance(part):.3f}" for _, part in table.groupby("seed"))
        cells = [model, change, f"{mean_concordance(table):.3f}", of_seeds, interval(resampled(table))]
        cells += [difference(table, reference), difference(table, best), f"{table['seconds'].median():.0f}"]
        yield f"| {' | '.join([*cells, ', '.join(table['commit'].unique())])} |"


def rows_of_page() -> dict[str, list[str]]:
    """Returns the rows of the page's tables as it is, by title."""
    parts = re.split(r"^## ", RESULT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {
        part.splitlines()[0]: [row for row in part.splitlines() if re.match(r"\| (?!model )", row)] for part in parts
    }


def merged(kept: Sequence[str], measured_now: Sequence[str]) -> list[str]:
    """Returns rows of both, in the order of the models; what is measured now replaces what was."""
    by_name = {tuple(row.split(" | ")[:2]): row for row in (*kept, *measured_now)}
    order = [*LINEAR, "subspace", "snn", "abmil", *OTHERS]
    return sorted(by_name.values(), key=lambda row: order.index(row.split(" | ")[0].removeprefix("| ")))


def page(tables: dict[str, list[str]]) -> str:
    """Returns the page as Markdown."""
    lines = [
        "# Small cohorts with weak signal",
        "",
        "    SUBFUSE_REAL_DATA=... python benchmarks/small_cohorts.py",
        "",
        f"{platform.machine()}, {available_cores()} cores, shared with other work. C-index of survival, mean over "
        "splits and seeds. Differences and intervals are of the first seed, by drawing patients anew (paired); they "
        "recur across inner splits, so intervals of these are too narrow. Networks are changed without their linear "
        f"path, each change alone, against `{ALONE}`; `{LINE}` and what begins with `{WITH_LINE.strip()}` is "
        "compared with the default. The best line is that of cox, cox-slides and cox-both with the highest C-index in "
        "the table. Seconds are processor time of the median training; every row says of which commit it is.",
        "",
    ]
    head = (
        "model | change | C-index | each seed | 95 % interval | changed by | above the best line by | seconds | commit"
    )
    for title in (f"{source.title}: {splits}" for source in COHORTS.values() for splits in SPLITS_OF_PAGE.values()):
        if title in tables:
            lines += [f"## {title}", "", f"| {head} |", f"|{'---|' * 9}", *tables[title], ""]
    return "\n".join([*lines, WHY.read_text(encoding="utf-8")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work" / "small_cohorts")
    parser.add_argument("--cohorts", nargs="+", choices=tuple(COHORTS), default=tuple(COHORTS))
    parser.add_argument("--models", nargs="+", default=None)
    parser.add_argument("--changes", nargs="+", default=None)
    parser.add_argument("--splits", nargs="+", choices=tuple(SPLITS_OF_PAGE), default=tuple(SPLITS_OF_PAGE))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Of networks on test folds.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.cohorts:
        for section in sections(name, options.work, options.models, options.seeds, options.splits):
            rows = list(table_rows(measured(section, options.changes)))
            print("\n".join(rows))
            tables = rows_of_page()
            tables[section.title] = merged(tables.get(section.title, []), rows)
            write_text(RESULT, page(tables))


if __name__ == "__main__":
    main()
