"""A simulated cohort in the raw formats: pyramidal slides, GDC STAR counts and clinical tables, with its truth.

Nothing in it is a patient's. It exercises every reader and gives a known answer to what models should find; how well a
model does on it says nothing about real tumours.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8

from subfuse.errors import ConfigurationError
from subfuse.execution import run_jobs
from subfuse.expression.gene_sets import load_gene_sets
from subfuse.expression.source import GeneSetSource
from subfuse.files import atomic_path, holds_files, remove_parts, write_json, write_table, write_text
from subfuse.simulation.patients import DIAGNOSES, LATENTS, MODALITIES, SyntheticPatients, draw_patients
from subfuse.simulation.slide import CELL_PX, MPP, REGIONS, Staining, draw_layout, draw_slide

FORMAT = 1  # raised whenever the same seed gives other files
N_GENES = 1500
CAUSAL_SHARE = {"tumour": 0.25, "microenvironment": 0.40}  # of the genes that only this subspace has
SITES = ("SA", "SB", "SC", "SD")  # contributing hospitals, the second part of the identifiers

_TILE_PX = 256
_LEVELS = (1, 4, 16)  # downsampling
_STAR_SUFFIX = ".rna_seq.augmented_star_gene_counts.tsv"
_MISSING = "'--"  # as the GDC portal writes it

COHORT_YAML = """\
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


@dataclass(frozen=True)
class GeneModel:
    """How expression arises; one entry per gene of the count files."""

    symbol: tuple[str, ...]
    ensembl: tuple[str, ...]
    biotype: tuple[str, ...]
    length: Float[np.ndarray, " gene"]  # bases
    log_abundance: Float[np.ndarray, " gene"]
    effect: Float[np.ndarray, "gene 2"]  # on log abundance per unit of each latent's view; axes as LATENTS
    nuisance: Float[np.ndarray, "gene 3"]  # loadings of factors that have nothing to do with the latents
    dispersion: Float[np.ndarray, " gene"]  # of the negative binomial

    def causal_genes(self) -> pd.DataFrame:
        """Returns gene, subspace and effect of the causal genes."""
        rows, columns = np.nonzero(self.effect)
        return pd.DataFrame(
            {
                "gene": [self.symbol[i] for i in rows],
                "subspace": [LATENTS[j] for j in columns],
                "effect": self.effect[rows, columns].round(4),
            }
        )


@dataclass(frozen=True)
class _PatientJob:
    """What one worker needs to write one patient's files."""

    out: Path
    patient_id: str
    slide_view: tuple[float, float]  # tumour, microenvironment
    expression_view: tuple[float, float]
    slide_ids: tuple[str, ...]
    samples: tuple["_Sample", ...]
    genes: GeneModel
    seed: np.random.SeedSequence


@dataclass(frozen=True)
class _Sample:
    """One count file: identifiers as in the GDC sample sheet."""

    sample_id: str
    sample_type: str
    folder: str
    file_name: str


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
    arguments = {"format": FORMAT, "patients": patients, "seed": seed, "visibility": visibility}
    _claim_folder(out, arguments)
    cohort_seed, gene_seed, identifier_seed, *patient_seeds = np.random.SeedSequence(seed).spawn(3 + patients)
    truth = draw_patients(patients, visibility=visibility, generator=np.random.default_rng(cohort_seed))
    genes = draw_genes(np.random.default_rng(gene_seed))
    identifiers = np.random.default_rng(identifier_seed)
    jobs = _plan_jobs(out, truth, genes, patient_seeds, identifiers)
    _write_truth(out, truth, genes, jobs)
    _run(jobs, workers, progress)
    _write_tables(out, truth, jobs, identifiers)
    write_text(out / "cohort.yaml", COHORT_YAML)
    return out / "cohort.yaml"


def draw_genes(generator: np.random.Generator) -> GeneModel:
    """Returns the genes of a cohort: those of the built-in gene sets, the causal among them, and a background.

    Causal genes belong to one subspace only; seven in ten rise with the latent. The background is more abundant, so
    that the sum to a million does not pass the latents on to genes that are not causal.
    """
    gene_sets = load_gene_sets({latent: GeneSetSource() for latent in LATENTS})
    known = sorted(set().union(*gene_sets.values()))
    n_background = N_GENES - len(known)
    symbols = (*known, *(f"SIM{i:04d}" for i in range(1, n_background + 1)))
    is_background = np.arange(N_GENES) >= len(known)
    effect = np.zeros((N_GENES, len(LATENTS)))
    for column, latent in enumerate(LATENTS):
        only_here = set(gene_sets[latent]).difference(*(genes for name, genes in gene_sets.items() if name != latent))
        candidates = np.flatnonzero(np.isin(symbols, sorted(only_here)))
        causal = generator.choice(candidates, size=round(CAUSAL_SHARE[latent] * len(candidates)), replace=False)
        sign = np.where(generator.random(len(causal)) < 0.7, 1.0, -1.0)
        effect[causal, column] = sign * generator.uniform(0.4, 0.8, size=len(causal))
    return GeneModel(
        symbol=symbols,
        ensembl=tuple(f"ENSG{90_000_000_000 + i}.{1 + i % 15}" for i in range(N_GENES)),
        biotype=tuple(
            "lncRNA" if background and i % 20 == 0 else "protein_coding" for i, background in enumerate(is_background)
        ),
        length=np.exp(generator.normal(7.8, 0.6, size=N_GENES)),
        log_abundance=generator.normal(0.0, 1.1, size=N_GENES) + 1.3 * is_background,
        effect=effect,
        nuisance=generator.normal(0.0, 0.2, size=(N_GENES, 3)),
        dispersion=generator.uniform(0.03, 0.15, size=N_GENES),
    )


def draw_counts(genes: GeneModel, view: tuple[float, float], generator: np.random.Generator) -> np.ndarray:
    """Returns the read counts of one sample: negative binomial, at a library size of about five million reads."""
    log_abundance = genes.log_abundance + genes.effect @ np.array(view)
    log_abundance += genes.nuisance @ generator.standard_normal(genes.nuisance.shape[1])
    reads = np.exp(log_abundance) * genes.length
    library = np.exp(generator.normal(np.log(5e6), 0.35))
    mean = library * reads / reads.sum()
    return generator.poisson(mean * generator.gamma(1.0 / genes.dispersion, genes.dispersion))


def star_table(genes: GeneModel, counts: np.ndarray, generator: np.random.Generator) -> pd.DataFrame:
    """Returns the gene rows of a GDC STAR count file; TPM sums to a million, FPKM and FPKM-UQ follow GDC's formulas."""
    first = generator.binomial(counts, 0.5)
    per_base = counts / genes.length
    is_coding = np.array(genes.biotype) == "protein_coding"
    upper_quartile = np.quantile(counts[is_coding], 0.75)
    return pd.DataFrame(
        {
            "gene_id": genes.ensembl,
            "gene_name": genes.symbol,
            "gene_type": genes.biotype,
            "unstranded": counts,
            "stranded_first": first,
            "stranded_second": counts - first,
            "tpm_unstranded": 1e6 * per_base / per_base.sum(),
            "fpkm_unstranded": 1e9 * per_base / counts[is_coding].sum(),
            "fpkm_uq_unstranded": 1e9 * per_base / (upper_quartile * is_coding.sum()),
        }
    )


# --- folder and plan -------------------------------------------------------------------------------------------------


def _check_arguments(patients: int, seed: int, visibility: float, workers: int) -> None:
    for name, value, valid, wanted in (
        ("patients", patients, patients >= 3, "at least 3"),
        ("seed", seed, seed >= 0, "at least 0"),
        ("visibility", visibility, 0.0 <= visibility <= 1.0, "between 0 and 1"),
        ("workers", workers, workers >= 1, "at least 1"),
    ):
        if not valid:
            raise ConfigurationError(f"{name} must be {wanted}. Found {value}.")
    _tifffile()


def _tifffile() -> Any:
    try:
        import imagecodecs  # noqa: F401  # compresses the tiles
        import tifffile
    except ImportError as error:
        raise ConfigurationError(
            f"Writing slides requires tifffile and imagecodecs. Found: {error}. Run pip install 'subfuse[wsi]'."
        ) from error
    return tifffile


def _claim_folder(out: Path, arguments: dict[str, Any]) -> None:
    """Marks a folder as this simulation's; refuses one that holds anything else."""
    if out.exists() and not out.is_dir():
        raise ConfigurationError(f"{out}: a new or empty folder is required. Found a file. Give another folder.")
    marker = out / "truth" / "simulation.json"
    remove_parts(out)
    if marker.exists() or holds_files(out):
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = "other files"
        if found != arguments:
            raise ConfigurationError(
                f"{out}: an empty folder or the same simulation ({arguments}) is required. Found {found}. Give another "
                "folder."
            )
    write_json(marker, arguments)


def _plan_jobs(
    out: Path,
    truth: SyntheticPatients,
    genes: GeneModel,
    seeds: Sequence[np.random.SeedSequence],
    identifiers: np.random.Generator,
) -> list[_PatientJob]:
    n = len(seeds)
    jobs = []
    for i, seed in enumerate(seeds):
        patient_id = f"TCGA-{SITES[i % len(SITES)]}-{i + 1:04d}"
        n_slides = 0 if i == n - 1 else 1 + int(identifiers.random() < 0.35)
        # The recurrent sample comes first, so a reader that takes the first file of a patient is wrong.
        kinds = () if i == n - 2 else (("02A", "Recurrent Tumor"), ("01A", "Primary Tumor"))[int(i > 0) :]
        jobs.append(
            _PatientJob(
                out,
                patient_id,
                slide_view=tuple(truth.views[i, MODALITIES.index("slide")].tolist()),
                expression_view=tuple(truth.views[i, MODALITIES.index("expression")].tolist()),
                slide_ids=tuple(f"{patient_id}-01Z-00-DX{k + 1}" for k in range(n_slides)),
                samples=tuple(_sample(patient_id, code, kind, identifiers) for code, kind in kinds),
                genes=genes,
                seed=seed,
            )
        )
    return jobs


def _sample(patient_id: str, code: str, sample_type: str, identifiers: np.random.Generator) -> _Sample:
    return _Sample(
        f"{patient_id}-{code}", sample_type, str(_draw_uuid(identifiers)), f"{_draw_uuid(identifiers)}{_STAR_SUFFIX}"
    )


def _draw_uuid(generator: np.random.Generator) -> uuid.UUID:
    return uuid.UUID(bytes=generator.bytes(16), version=4)


# --- one patient -----------------------------------------------------------------------------------------------------


def _run(jobs: Sequence[_PatientJob], workers: int, progress: Callable[[int, int, str], None] | None) -> None:
    for done, patient_id in enumerate(_finished(jobs, min(workers, len(jobs))), start=1):
        if progress is not None:
            progress(done, len(jobs), patient_id)


def _finished(jobs: Sequence[_PatientJob], workers: int) -> Iterator[str]:
    for _, outcome in run_jobs(_write_patient, [(job,) for job in jobs], workers=workers):
        if isinstance(outcome, BaseException):
            raise outcome
        yield outcome


def _write_patient(job: _PatientJob) -> str:
    """Writes the files of a patient that are not there yet, each from its own seed; returns the patient."""
    staining_seed, *file_seeds = job.seed.spawn(1 + len(job.slide_ids) + len(job.samples))
    staining = Staining.draw(np.random.default_rng(staining_seed))
    for slide_id, seed in zip(job.slide_ids, file_seeds[: len(job.slide_ids)], strict=True):
        path, regions = job.out / "slides" / f"{slide_id}.tiff", job.out / "truth" / "regions" / f"{slide_id}.csv"
        if not (path.exists() and regions.exists()):
            _write_slide(path, regions, job.slide_view, staining, np.random.default_rng(seed))
    for sample, seed in zip(job.samples, file_seeds[len(job.slide_ids) :], strict=True):
        path = job.out / "expression" / sample.folder / sample.file_name
        if not path.exists():
            _write_star(path, job.genes, job.expression_view, np.random.default_rng(seed))
    return job.patient_id


def _write_slide(
    path: Path,
    regions: Path,
    view: tuple[float, float],
    staining: Staining,
    generator: np.random.Generator,
) -> None:
    height, width = generator.integers(1930, 2190, size=2).tolist()
    tumour, microenvironment = view
    layout = draw_layout(height, width, microenvironment=microenvironment, generator=generator)
    image = draw_slide(layout, height, width, tumour=tumour, staining=staining, generator=generator)
    row, column = np.indices(layout.shape)
    table = {"x": column.ravel() * CELL_PX, "y": row.ravel() * CELL_PX, "size": CELL_PX}
    write_table(regions, pd.DataFrame(table | {"region": np.array(REGIONS)[layout.ravel()]}))
    _write_pyramid(path, image)


def _write_pyramid(path: Path, image: UInt8[np.ndarray, "height width 3"]) -> None:
    """Writes a tiled TIFF with downsampled levels that OpenSlide reads, its resolution in pixels per centimetre."""
    tifffile = _tifffile()
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary) as tiff:
        for level, factor in enumerate(_LEVELS):
            per_cm = 1e4 / (MPP * factor)
            tiff.write(
                _downsampled(image, factor),
                photometric="rgb",
                tile=(_TILE_PX, _TILE_PX),
                compression="jpeg",
                compressionargs={"level": 80},
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),  # OpenSlide takes reduced images as levels
                metadata=None,
                software="subfuse",
            )


def _downsampled(image: UInt8[np.ndarray, "height width 3"], factor: int) -> UInt8[np.ndarray, "row column 3"]:
    """The mean over squares; what does not fill a square is cut off, as scanners do."""
    if factor == 1:
        return image
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    image = image[: rows * factor, : columns * factor]
    lines = sum(image[line::factor].astype(np.uint32) for line in range(factor))
    total = sum(lines[:, place::factor] for place in range(factor))
    return ((total + factor**2 // 2) // factor**2).astype(np.uint8)


def _write_star(path: Path, genes: GeneModel, view: tuple[float, float], generator: np.random.Generator) -> None:
    counts = draw_counts(genes, view, generator)
    table = star_table(genes, counts, generator)
    total = int(counts.sum())
    unassigned = {"N_unmapped": 0.05, "N_multimapping": 0.09, "N_noFeature": 0.04, "N_ambiguous": 0.06}
    lines = ["# gene-model: GENCODE v36", "\t".join(table.columns)]
    for name, share in unassigned.items():
        reads = int(generator.poisson(share * total))
        lines.append(f"{name}\t\t\t{reads}\t{reads}\t{reads}\t\t\t")
    rows = table.to_csv(sep="\t", header=False, index=False, float_format="%.4f", lineterminator="\n")
    write_text(path, "\n".join(lines) + "\n" + rows)


# --- tables of the cohort --------------------------------------------------------------------------------------------


def _write_truth(out: Path, truth: SyntheticPatients, genes: GeneModel, jobs: Sequence[_PatientJob]) -> None:
    latents = truth.to_frame([job.patient_id for job in jobs]).round(6)
    write_table(out / "truth" / "latents.csv", latents)
    write_table(out / "truth" / "genes.csv", genes.causal_genes())
    write_text(out / "truth" / "README.md", _README)


def _write_tables(
    out: Path, truth: SyntheticPatients, jobs: Sequence[_PatientJob], identifiers: np.random.Generator
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
    truth: SyntheticPatients, jobs: Sequence[_PatientJob], projects: Sequence[str], generator: np.random.Generator
) -> pd.DataFrame:
    """GDC's clinical.tsv: two rows per patient that differ only in the treatment."""
    rows = []
    for i, (job, project) in enumerate(zip(jobs, projects, strict=True)):
        age_days = int(np.clip(generator.normal(52, 13), 19, 85) * 365.25)
        days, event = str(truth.time_days[i]), bool(truth.event[i])
        row = {
            "case_id": str(_draw_uuid(generator)),
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
