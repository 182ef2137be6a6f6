"""What a report is made of: the files of a run, read once; optional ones may be absent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from subfuse.errors import DataError
from subfuse.exclusions import RENAMED
from subfuse.execution import Attempts
from subfuse.files import read_json
from subfuse.run_folder.job import Job, jobs_of
from subfuse.run_folder.layout import FAILED_RESULTS, changed_since, read_config, require_run
from subfuse.run_folder.tables import read_columns, read_optional, read_predictions, require_own_predictions
from subfuse.training.models import main_model

Read = TypeVar("Read")

FAILED_EXPLANATIONS = "explanations/failures.csv"  # what, reason: what could not be explained
_OF_GENES = ("genes.csv", "gene_values.csv", "gene_stability.csv", "enrichment.csv")  # all, or none without genes
_COHORT_TABLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # and the columns of each, see `read_columns`
    "patients": {"names": ("patient_id",), "counts": ("n_slides",)},
    "exclusions": {"names": ("level", "reason"), "text": ("id",)},
    "slides": {"names": ("slide_id",), "counts": ("n_patches",)},
    "slide_quality": {"names": ("slide_id",)},
    "gene_set_coverage": {
        "names": ("subspace",),
        "text": ("missing", "overlap"),
        "numbers": ("n_genes", "n_found", "fraction"),
    },
    "harmonisation": {
        "names": ("cohort", "reference", "gene_set"),
        "text": ("missing",),
        "numbers": ("n_shared", "n_genes", "shift", "shift_max", "ks"),
    },
}


@dataclass(frozen=True)
class Explanation:
    """One explained prediction: the content of `explanation.json` with the tables beside it."""

    folder: Path
    content: Mapping[str, Any]
    ledger: pd.DataFrame  # subspace, modality, contribution
    genes: pd.DataFrame  # gene, subspace, contribution

    @property
    def subspaces(self) -> list[str]:
        """Subspaces in the order of the ledger."""
        shares = self.ledger[self.ledger["modality"] != "baseline"]
        return list(dict.fromkeys([*shares["subspace"], *self.genes["subspace"].dropna()]))

    @property
    def score_name(self) -> str:
        """What is explained, for people: `the hazard`, or `the score of G4`."""
        return str(self.content.get("score_name", "the explained score"))

    def pictures(self) -> list[tuple[Path, str, str]]:
        """Returns path, caption and description of the pictures that exist: maps and points by slide, then tiles."""
        shown, score = [], self.score_name
        on_places = self.content.get("drawn_on_places", {})
        for slide in map(str, self.content.get("slides", ())):
            where = f"the places of the patches of slide {slide}" if slide in on_places else f"slide {slide}"
            for name in dict.fromkeys(("total", *self.subspaces)):
                part = "all subspaces" if name == "total" else name
                alt = f"Heat map on {where}: where {part} raises or lowers {score}."
                shown.append((self.folder / f"heatmap_{name}_{slide}.png", f"{part}, {where}: {score}", alt))
            caption = f"Where the attention looked on {where}: a description, not an attribution"
            alt = f"{where.capitalize()} with the points that the deformable attention sampled, coloured by subspace."
            shown.append((self.folder / f"sampling_{slide}.png", caption, alt))
        for name in self.subspaces:
            caption = f"Patches that raise and lower {score} most, {name}"
            alt = f"The patches that raise the share of {name} in {score} most, and that lower it most."
            shown.append((self.folder / f"gallery_{name}.jpg", caption, alt))
        return [found for found in shown if found[0].exists()]


@dataclass(frozen=True)
class CohortExplanation:
    """What the models of one task rely on over all patients; a table that was not written is empty."""

    task: str
    genes: pd.DataFrame  # per subspace and gene: strength, direction, rank, stability
    values: pd.DataFrame  # per patient: expression and attribution of the top genes
    stability: pd.DataFrame  # per subspace: rank correlation between folds
    enrichment: pd.DataFrame | None  # None: not computed
    faithfulness: Mapping[str, Any]  # input, then measure, then mean with interval
    curves: pd.DataFrame  # per input, order and share replaced: change of the score, difference from random order
    summary: Mapping[str, Any]  # numbers of patients and models, shares, completeness gaps


@dataclass(frozen=True)
class PatientFlow:
    """Who of the clinical table is used, and with what: one count for all that is told of a run."""

    used: int  # patients of the prepared cohort; where the run keeps no table of them, those with predictions
    excluded: int  # other patients of the clinical table
    n_slides: int | None  # of the patients used; None where the run keeps no table of them
    having: Mapping[str, int]  # patients with slides, expression, both; a modality that nobody has is left out

    @classmethod
    def count(cls, patients: pd.DataFrame, exclusions: pd.DataFrame, predictions: pd.DataFrame) -> "PatientFlow":
        """Counts patients.csv and exclusions.csv of the prepared cohort; both may be empty."""
        if patients.empty:
            return cls(predictions["patient_id"].nunique(), 0, None, {})
        listed = exclusions.loc[exclusions["level"] == "patient", "id"] if len(exclusions) else ()
        excluded = set(listed) - set(patients["patient_id"])
        if not {"n_slides", "has_expression"} <= set(patients.columns):
            return cls(len(patients), len(excluded), None, {})
        n_slides = patients["n_slides"].fillna(0).astype(int)
        slides, expression = n_slides > 0, patients["has_expression"].astype(str) == "True"
        having = {"slides": int(slides.sum()), "expression": int(expression.sum())}
        having |= {"both": int((slides & expression).sum())} if all(having.values()) else {}
        return cls(len(patients), len(excluded), int(n_slides.sum()), {name: n for name, n in having.items() if n})

    @property
    def absent(self) -> tuple[str, ...]:
        """Modalities that nobody has."""
        return tuple(name for name in ("slides", "expression") if self.having and name not in self.having)


@dataclass(frozen=True)
class RunFiles:
    """A run folder in memory."""

    folder: Path
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    prepared: Mapping[str, Any]  # provenance of the prepared cohort; empty where it was not copied into the run
    predictions: pd.DataFrame
    metrics: pd.DataFrame
    comparisons: pd.DataFrame
    failures: pd.DataFrame
    cohort: Mapping[str, pd.DataFrame]  # _COHORT_TABLES and `renamed`; what was not copied into the run is empty
    contact_sheets: tuple[Path, ...]
    explanations: tuple[Explanation, ...]
    cohort_explanations: tuple[CohortExplanation, ...]
    failed_results: pd.DataFrame  # what, reason
    failed_explanations: pd.DataFrame  # what, reason
    changed: str  # what of the prepared cohort is not what the run was made from; empty where nothing is known to be
    lost: tuple[str, ...]  # files that belong to what is there, and are not; see `_lost_files`
    audit: Mapping[str, Any] | None  # content of audit.json; None: the run was not audited

    @property
    def title(self) -> str:
        """What the run is called: by its cohort, else by its folder."""
        return str(self.config.get("evaluated") or self.config.get("cohort") or self.folder.resolve().name)

    @property
    def is_external(self) -> bool:
        """True where the finished models of another run were measured on an external cohort."""
        return "trained" in self.config

    @property
    def holds_out_sites(self) -> bool:
        """True where all models were tested on patients of hospitals alone that they did not train on."""
        patients, rows = self.cohort["patients"], self.predictions
        if "site" not in patients or patients["site"].isna().any():
            return False
        site = rows["patient_id"].map(patients.set_index("patient_id")["site"])
        tested = (rows["split"] == "test").groupby([rows["task"], rows["model"], rows["repeat"], rows["fold"], site])
        return site.nunique() > 1 and bool((tested.nunique() == 1).all())

    @property
    def covariates(self) -> tuple[str, ...]:
        """Covariates that models see beside expression."""
        return tuple(self.config.get("covariates") or ())

    @property
    def flow(self) -> PatientFlow:
        """How many patients of the clinical table are used, and with what."""
        return PatientFlow.count(self.cohort["patients"], self.cohort["exclusions"], self.predictions)

    @property
    def tasks(self) -> list[str]:
        """Tasks that have metrics, in the order of the configuration."""
        measured = list(dict.fromkeys(self.metrics["task"]))
        named = [task for task in self.config.get("tasks", ()) if task in measured]
        return named + [task for task in measured if task not in named]

    def main_model(self, task: str) -> str:
        """Returns the model that a task is told of: subspace fusion, or the first without it."""
        return main_model(self.metrics.loc[self.metrics["task"] == task, "model"].tolist())

    def jobs(self, task: str, model: str) -> list[Job]:
        """Returns the jobs of one model, of every fold and repeat."""
        table = self.predictions
        return [job for job, _ in jobs_of(table[(table["task"] == task) & (table["model"] == model)])]

    def test_predictions(self, task: str, model: str) -> pd.DataFrame:
        """Returns the out-of-fold predictions of one model, first repeat: one row per patient."""
        table = self.predictions
        chosen = (table["task"] == task) & (table["model"] == model) & (table["split"] == "test")
        return table[chosen & (table["repeat"] == table["repeat"].min())].reset_index(drop=True)


def read_run(folder: Path) -> RunFiles:
    """Reads a run folder.

    Raises:
        ConfigurationError: The folder is no run.
        DataError: `metrics.csv` is missing, or a table is damaged: lacks a column, holds something else in one, or is
            not what was written.
    """
    folder = Path(folder)
    if not (folder / "predictions.csv").exists():
        require_run(folder)
    require_own_predictions(folder)
    if not (folder / "metrics.csv").exists():
        raise DataError(
            f"{folder / 'metrics.csv'}: required for a report, not found. Run `subfuse crossval` or `subfuse evaluate` "
            "with --out set to this folder again."
        )
    attempts = Attempts()
    explanations = _read_each(folder, "explanations/**/explanation.json", _read_explanation, attempts)
    of_cohort = _read_each(folder, "explanations/cohort/*/summary.json", _read_cohort_explanation, attempts)
    predictions, config = read_predictions(folder / "predictions.csv"), read_config(folder)
    return RunFiles(
        folder=folder,
        config=config,
        provenance=_read_json(folder / "provenance.json"),
        prepared=_read_json(folder / "cohort" / "provenance.json"),
        predictions=predictions,
        metrics=read_columns(
            folder / "metrics.csv",
            names=("task", "model"),
            text=("metric",),
            numbers=("value", "sd", "lower", "upper", "n_patients"),
        ),
        comparisons=read_columns(
            folder / "comparisons.csv",
            names=("task", "model"),
            text=("metric", "reference"),
            numbers=("difference", "lower", "upper", "p_adjusted"),
        ),
        failures=read_columns(folder / "failures.csv", names=("task", "model"), text=("fold", "reason")),
        cohort=_read_cohort(folder / "cohort"),
        contact_sheets=tuple(sorted((folder / "cohort" / "contact_sheets").glob("*.jpg"))),
        explanations=explanations,
        cohort_explanations=of_cohort,
        failed_results=read_optional(folder / FAILED_RESULTS),
        failed_explanations=pd.concat([read_optional(folder / FAILED_EXPLANATIONS), attempts.table()]),
        changed=_changed(folder, config),
        lost=tuple(path.relative_to(folder).as_posix() for path in _lost_files(folder, predictions)),
        audit=_read_audit(folder / "audit.json"),
    )


def _changed(folder: Path, config: Mapping[str, Any]) -> str:
    prepared = config.get("prepared")
    try:
        return "" if prepared is None else changed_since(folder, (folder / prepared).resolve())
    except DataError as error:  # a report needs no more than the run
        return str(error)


def _lost_files(folder: Path, predictions: pd.DataFrame) -> list[Path]:
    """Returns what is absent where the files that are written beside it are there: of jobs, and of explanations.

    A run without any job's model was copied without them, evaluates another run, or is of other tools: nothing is lost.
    """
    jobs = [job for job, _ in jobs_of(predictions)]
    has_models = any(len(job.missing_files(folder)) < 3 for job in jobs)
    lost = [path for job in jobs for path in job.missing_files(folder)] if has_models else []
    explained = [path.parent for path in folder.glob("explanations/**/explanation.json")]
    of_cohort = [path.parent for path in folder.glob("explanations/cohort/*/summary.json")]
    of_genes = [[place / name for name in _OF_GENES] for place in of_cohort]
    lost += [place / "genes.csv" for place in explained] + [place / "faithfulness.json" for place in of_cohort]
    lost += [path for paths in of_genes if any(path.exists() for path in paths) for path in paths]
    return [path for path in lost if not path.exists()]


def _read_cohort(folder: Path) -> dict[str, pd.DataFrame]:
    """Returns the tables of the cohort; what is used under another name apart from what is excluded."""
    tables = {name: read_columns(folder / f"{name}.csv", **columns) for name, columns in _COHORT_TABLES.items()}
    listed = tables["exclusions"]
    is_renamed = listed.get("level", pd.Series(dtype=object)) == RENAMED
    return tables | {"exclusions": listed[~is_renamed], "renamed": listed[is_renamed]}


def _read_each(folder: Path, pattern: str, read: Callable[[Path], Read], attempts: Attempts) -> tuple[Read, ...]:
    """Reads the folders of all files of a pattern; those that cannot be read are noted."""
    found = []
    for path in sorted(folder.glob(pattern)):
        with attempts.attempt(path.parent.relative_to(folder).as_posix()):
            found.append(read(path.parent))
    return tuple(found)


def _read_explanation(folder: Path) -> Explanation:
    content = _read_json(folder / "explanation.json")
    return Explanation(
        folder=folder,
        content=content,
        ledger=pd.DataFrame(content.get("ledger", []), columns=["subspace", "modality", "contribution"]),
        genes=read_optional(folder / "genes.csv").reindex(columns=["gene", "subspace", "contribution"]),
    )


def _read_cohort_explanation(folder: Path) -> CohortExplanation:
    enrichment = folder / "enrichment.csv"
    return CohortExplanation(
        task=folder.name,
        genes=read_optional(folder / "genes.csv"),
        values=read_optional(folder / "gene_values.csv"),
        stability=read_optional(folder / "gene_stability.csv"),
        enrichment=read_optional(enrichment) if enrichment.exists() else None,
        faithfulness=_read_json(folder / "faithfulness.json"),
        curves=read_optional(folder / "faithfulness_curves.csv"),
        summary=_read_json(folder / "summary.json"),
    )


def _read_audit(path: Path) -> dict[str, Any] | None:
    """Returns an audit with its findings and tables; None where there is none."""
    found = _read_json(path)
    if not found:
        return None
    findings, tables = found.get("findings"), found.get("tables")
    is_whole = isinstance(findings, list) and all(isinstance(row, dict) for row in findings)
    if not is_whole or not isinstance(tables, dict):
        raise DataError(f"{path}: an audit with its findings and tables is required. Run `subfuse audit` again.")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
