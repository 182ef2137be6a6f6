"""A simulated cohort in the raw formats: pyramidal slides, GDC STAR counts and clinical tables, with its truth.

Nothing in it is a patient's. It exercises every reader and gives a known answer to what models should find; how well a
model does on it says nothing about real tumours.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subfuse.errors import ConfigurationError
from subfuse.execution import run_jobs
from subfuse.files import is_begun, read_json, write_json, write_table, write_text
from subfuse.simulation.genes import GeneModel, draw_genes
from subfuse.simulation.patient_files import tifffile_module, write_patient
from subfuse.simulation.patients import DIAGNOSES, SyntheticPatients, draw_patients
from subfuse.simulation.plan import PatientJob, draw_uuid, plan_jobs

_MARK = "truth/simulation.json"
_FORMAT = 1  # raised whenever the same seed gives other files

_MISSING = "'--"  # as the GDC portal writes it

_COHORT_YAML = """\
name: simulated
role: develop

patients:
  table: clinical.tsv            # as the GDC portal writes it: rows repeat per treatment, '-- is missing
  format: gdc                    # gives time_days, event, diagnosis (primary_diagnosis) and grade (tumor_grade)

slides:
  table: slides.csv
  folder: slides/

expression:
  folder: expression/
  format: gdc_star
  sample_sheet: gdc_sample_sheet.tsv
  unit: tpm

gene_sets: {tumour: builtin, microenvironment: builtin}

tasks:
  diagnosis: {column: diagnosis}
  grade: {column: grade, classes: [G2, G3, G4], ordinal: true}
  survival: {time: time_days, event: event}

splits: {folds: 5, validation: 0.15, stratify: [event, diagnosis], seed: 0}
"""

_README = """\
# Truth of a simulated cohort

- `simulation.json`: the arguments; the same ones give the same bytes.
- `latents.csv`: per patient the latents `tumour` and `microenvironment`, and what each modality shows of them
  (`slide_*`, `expression_*`).
- `genes.csv`: the causal genes, the subspace whose latent they follow, and the effect on log expression per unit of
  what expression shows of that latent.
- `regions/<slide>.csv`: region of every square cell of a slide: top-left corner `x`, `y` and side `size` in level-0
  pixels.

Outcomes depend on both latents and their product. A slide shows the microenvironment well (extent of lymphocyte-rich,
vascular and necrotic regions) and the tumour poorly (density, size and pleomorphism of malignant nuclei); expression
the other way round. Age, gender and hospital have no effect on anything.
"""


def simulate(
    out: Path | str,
    *,
    patients: int = 40,
    seed: int = 0,
    visibility: float = 0.8,
    workers: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Writes a simulated cohort in raw formats and returns the path of its `cohort.yaml`.

    Slides (tiled pyramids, 0.5 µm per pixel), STAR count files, sample sheet, GDC clinical table and slide table, and
    under `truth/` what caused them. One patient has no slide, one no expression, one a primary and a recurrent sample.

    The same arguments give the same bytes with the same libraries, whatever `workers` is. An interrupted simulation
    goes on where it stopped.

    Args:
        out: Folder; new, empty, or of the same simulation.
        patients: Number of patients, at least 3.
        seed: Seed of everything.
        visibility: Share of a latent's variance that its better modality shows; see `view_strength`.
        workers: Processes.
        progress: Called after each patient: how many are done, of how many, which one.

    Raises:
        ConfigurationError: The folder holds something else, too few patients, a visibility outside 0 to 1, or no
            TIFF writer.
    """
    out = Path(out)
    _check_arguments(patients, seed, visibility, workers)
    arguments = {"format": _FORMAT, "patients": patients, "seed": seed, "visibility": visibility}
    _claim_folder(out, arguments)
    cohort_seed, gene_seed, identifier_seed, *patient_seeds = np.random.SeedSequence(seed).spawn(3 + patients)
    truth = draw_patients(patients, visibility=visibility, generator=np.random.default_rng(cohort_seed))
    genes = draw_genes(np.random.default_rng(gene_seed))
    identifiers = np.random.default_rng(identifier_seed)
    jobs = plan_jobs(out, truth, genes, patient_seeds, identifiers)
    _write_truth(out, truth, genes, jobs)
    _run(jobs, workers, progress)
    _write_tables(out, truth, jobs, identifiers)
    write_text(out / "cohort.yaml", _COHORT_YAML)
    return out / "cohort.yaml"


def _check_arguments(patients: int, seed: int, visibility: float, workers: int) -> None:
    for name, value, valid, wanted in (
        ("patients", patients, patients >= 3, "at least 3"),
        ("seed", seed, seed >= 0, "at least 0"),
        ("visibility", visibility, 0.0 <= visibility <= 1.0, "between 0 and 1"),
        ("workers", workers, workers >= 1, "at least 1"),
    ):
        if not valid:
            raise ConfigurationError(f"{name} must be {wanted}. Found {value}.")
    tifffile_module()


def _claim_folder(out: Path, arguments: dict[str, Any]) -> None:
    """Marks a folder as this simulation's; refuses one that holds anything else."""
    if is_begun(out, _MARK, what="a simulated cohort"):
        found = read_json(out / _MARK)
        if found != arguments:
            raise ConfigurationError(
                f"{out} must hold the same simulation ({arguments}) or be new. Found {found}. Choose another --out, or "
                "remove the folder."
            )
    write_json(out / _MARK, arguments)


def _run(jobs: Sequence[PatientJob], workers: int, progress: Callable[[int, int, str], None] | None) -> None:
    for done, patient_id in enumerate(_finished(jobs, min(workers, len(jobs))), start=1):
        if progress is not None:
            progress(done, len(jobs), patient_id)


def _finished(jobs: Sequence[PatientJob], workers: int) -> Iterator[str]:
    for _, outcome in run_jobs(write_patient, [(job,) for job in jobs], workers=workers):
        if isinstance(outcome, BaseException):
            raise outcome
        yield outcome


def _write_truth(out: Path, truth: SyntheticPatients, genes: GeneModel, jobs: Sequence[PatientJob]) -> None:
    latents = truth.to_frame([job.patient_id for job in jobs]).round(6)
    write_table(out / "truth" / "latents.csv", latents)
    write_table(out / "truth" / "genes.csv", genes.causal_genes())
    write_text(out / "truth" / "README.md", _README)


def _write_tables(
    out: Path, truth: SyntheticPatients, jobs: Sequence[PatientJob], identifiers: np.random.Generator
) -> None:
    slides = [(slide_id, job.patient_id, f"{slide_id}.tiff") for job in jobs for slide_id in job.slide_ids]
    write_table(out / "slides.csv", pd.DataFrame(slides, columns=["slide_id", "patient_id", "path"]))
    projects = _projects(truth)
    sheet = [
        {
            "File ID": sample.folder,
            "File Name": sample.file_name,
            "Data Category": "Transcriptome Profiling",
            "Data Type": "Gene Expression Quantification",
            "Project ID": project,
            "Case ID": job.patient_id,
            "Sample ID": sample.sample_id,
            "Sample Type": sample.sample_type,
        }
        for job, project in zip(jobs, projects, strict=True)
        for sample in job.samples
    ]
    _write_tsv(out / "gdc_sample_sheet.tsv", pd.DataFrame(sheet))
    _write_tsv(out / "clinical.tsv", _clinical_table(truth, jobs, projects, identifiers))


def _write_tsv(path: Path, table: pd.DataFrame) -> None:
    write_text(path, table.to_csv(sep="\t", index=False, lineterminator="\n"))


def _projects(truth: SyntheticPatients) -> list[str]:
    return ["TCGA-GBM" if DIAGNOSES[i] == "Glioblastoma" else "TCGA-LGG" for i in truth.diagnosis]


def _clinical_table(
    truth: SyntheticPatients, jobs: Sequence[PatientJob], projects: Sequence[str], generator: np.random.Generator
) -> pd.DataFrame:
    """GDC's clinical.tsv: two rows per patient that differ only in the treatment."""
    rows = []
    for i, (job, project) in enumerate(zip(jobs, projects, strict=True)):
        age_days = int(np.clip(generator.normal(52, 13), 19, 85) * 365.25)
        days, event = str(truth.time_days[i]), bool(truth.event[i])
        row = {
            "case_id": str(draw_uuid(generator)),
            "case_submitter_id": job.patient_id,
            "project_id": project,
            "age_at_index": age_days // 365,
            "days_to_birth": -age_days,
            "days_to_death": days if event else _MISSING,
            "ethnicity": "not reported",
            "gender": str(generator.choice(["female", "male"])),
            "race": "not reported",
            "vital_status": "Dead" if event else "Alive",
            "age_at_diagnosis": age_days,
            "days_to_diagnosis": 0,
            "days_to_last_follow_up": _MISSING if event else days,
            "last_known_disease_status": "not reported",
            "primary_diagnosis": DIAGNOSES[truth.diagnosis[i]],
            "prior_malignancy": "no",
            "site_of_resection_or_biopsy": "Brain, NOS",
            "tissue_or_organ_of_origin": "Brain, NOS",
            "tumor_grade": f"G{truth.grade[i]}",
            "tumor_stage": "not reported",
            "treatment_or_therapy": "yes",
        }
        treatments = ("Radiation Therapy, NOS", "Pharmaceutical Therapy, NOS")
        rows += [row | {"treatment_type": treatment} for treatment in treatments]
    return pd.DataFrame(rows)
