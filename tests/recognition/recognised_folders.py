"""Folders as portals and tools leave them, with patients enough for `check`."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.expression.gene_sets import load_gene_sets
from subfuse.expression.source import GeneSetSource
from trident_job import write_job

N_PATIENTS = 24
PATIENTS = [f"TCGA-{site}-{number:04d}" for number in range(N_PATIENTS) for site in [("02", "DU", "HT")[number % 3]]]
STUDY = "lgg_tcga_pan_can_atlas_2018"
_META = (
    "cancer_study_identifier: {study}\ngenetic_alteration_type: {kind}\ndatatype: {datatype}\ndata_filename: {name}\n"
)


@cache
def genes() -> list[str]:
    """Some symbols of each built-in subspace, more than half of them."""
    sets = load_gene_sets({"tumour": GeneSetSource(), "microenvironment": GeneSetSource()})
    return sorted({gene for subspace in sets.values() for gene in subspace})


def tpm(patients=PATIENTS, seed=0) -> pd.DataFrame:
    """TPM of patients × genes, to two places."""
    values = np.exp(np.random.default_rng(seed).normal(size=(len(patients), len(genes()))) * 2)
    values *= 1e6 / values.sum(axis=1, keepdims=True)
    return pd.DataFrame(values.round(2), index=pd.Index(patients, name="patient_id"), columns=genes())


def clinical(**columns) -> pd.DataFrame:
    """A hospital's table."""
    random = np.random.default_rng(1)
    table = {
        "patient_id": PATIENTS,
        "os_days": random.integers(30, 2000, N_PATIENTS),
        "event": np.arange(N_PATIENTS) % 3 != 0,
        "grade": [("G2", "G3", "G4")[i % 3] for i in range(N_PATIENTS)],
        "age": random.integers(30, 80, N_PATIENTS),
    }
    return pd.DataFrame({name: values for name, values in (table | columns).items() if values is not None})


def study(folder: Path, *, expression: tuple[str, ...] = ("data_mrna_seq_v2_rsem.txt",), meta: bool = True) -> Path:
    """A study of cBioPortal's datahub, with z-scores beside its expression and files that nobody needs here."""
    random = np.random.default_rng(2)
    (folder / "case_lists").mkdir(parents=True)
    samples = [f"{patient}-01" for patient in PATIENTS]
    _study_file(folder / "data_clinical_patient.txt", ["CLINICAL", "PATIENT_ATTRIBUTES"], meta=meta, table={
        "PATIENT_ID": PATIENTS, "AGE": random.integers(30, 80, N_PATIENTS).tolist(),
        "SEX": ["Male", "Female"] * (N_PATIENTS // 2), "OS_STATUS": ["0:LIVING", "1:DECEASED"] * (N_PATIENTS // 2),
        "OS_MONTHS": random.uniform(1, 90, N_PATIENTS).round(2).tolist(),
    })  # fmt: skip
    _study_file(folder / "data_clinical_sample.txt", ["CLINICAL", "SAMPLE_ATTRIBUTES"], meta=meta, table={
        "PATIENT_ID": PATIENTS, "SAMPLE_ID": samples, "SAMPLE_TYPE": ["Primary"] * N_PATIENTS,
        "GRADE": ["G2", "G3", "G3"] * (N_PATIENTS // 3), "CANCER_TYPE": ["Glioma"] * N_PATIENTS,
    })  # fmt: skip
    for name in expression:
        values = tpm(samples).T
        values.insert(0, "Entrez_Gene_Id", range(1, len(values) + 1))
        values.rename_axis("Hugo_Symbol").to_csv(folder / name, sep="\t")
        _describe(folder, name, ["MRNA_EXPRESSION", "CONTINUOUS"], meta=meta)
        zscores = name.replace(".txt", "_zscores_ref_all_samples.txt")
        scaled = (values - values.mean()) / values.std()
        scaled.assign(Entrez_Gene_Id=values["Entrez_Gene_Id"]).rename_axis("Hugo_Symbol").to_csv(
            folder / zscores, sep="\t"
        )
        _describe(folder, zscores, ["MRNA_EXPRESSION", "Z-SCORE"], meta=meta)
    (folder / "data_cna.txt").write_text("Hugo_Symbol\tEntrez_Gene_Id\t" + "\t".join(samples) + "\nEGFR\t1956\n")
    (folder / "data_timeline_status.txt").write_text(
        "PATIENT_ID\tSTART_DATE\tSTOP_DATE\tEVENT_TYPE\nTCGA-02-0000\t0\t\tX\n"
    )
    (folder / "data_resource_patient.txt").write_text(
        "PATIENT_ID\tRESOURCE_ID\tURL\nTCGA-02-0000\tPATHOLOGY\thttps://x\n"
    )
    (folder / "case_lists" / "cases_all.txt").write_text(f"cancer_study_identifier: {STUDY}\ncase_list_ids: x\n")
    (folder / "LICENSE").write_text("Open Database License\n")
    if meta:
        (folder / "meta_study.txt").write_text(
            f"type_of_cancer: difg\ncancer_study_identifier: {STUDY}\nname: Brain Lower Grade Glioma\ncitation: TCGA\n"
        )
        _describe(folder, "data_cna.txt", ["COPY_NUMBER_ALTERATION", "DISCRETE"], meta=True)
    return folder


def job_with_tables(folder: Path, *, encoders: tuple[str, ...] = ("uni_v1",), mpp: float | None = 0.25) -> Path:
    """A job folder of TRIDENT with a hospital's table and a table of expression beside it."""
    write_job(folder / "job", {f"{patient}-01Z-00-DX1": mpp for patient in PATIENTS}, encoders=encoders)
    clinical().to_csv(folder / "clinical.csv", index=False)
    tpm().to_csv(folder / "expression.csv")
    return folder


def _study_file(path: Path, kinds: list[str], *, meta: bool, table: dict[str, list]) -> None:
    names = list(table)
    comments = [names, names, ["STRING"] * len(names), ["1"] * len(names)]
    header = "".join("#" + "\t".join(words) + "\n" for words in comments)
    path.write_text(header + pd.DataFrame(table).to_csv(index=False, sep="\t"))
    _describe(path.parent, path.name, kinds, meta=meta)


def _describe(folder: Path, name: str, kinds: list[str], *, meta: bool) -> None:
    if meta:
        text = _META.format(study=STUDY, kind=kinds[0], datatype=kinds[1], name=name)
        (folder / name.replace("data_", "meta_")).write_text(text)
