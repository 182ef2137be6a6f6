"""The page on data is true: every snippet is read by `subfuse check` on small files of its kind, every command runs."""

import io
import json
import re
import shlex
import tarfile
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from subfuse.cli import main
from subfuse.cohort.cohort_file import CohortFile, read_cohort_file
from subfuse.simulation.genes import draw_counts, draw_genes, star_table
from workbook_files import write_xlsx

pytestmark = pytest.mark.walk

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
SNIPPETS = [text for language, text in BLOCKS if language == "yaml"]
COMMANDS = [
    line.partition("#")[0].strip() for language, text in BLOCKS if language == "bash" for line in text.splitlines()
]
SITES = ("02", "06", "DU", "HT", "S9")
PATIENTS = [f"TCGA-{SITES[i % 5]}-{i:04d}" for i in range(1, 26)]
DONORS = [f"W{i}" for i in range(1, 7)]
BASE = {  # of snippets that show one section only
    "name": "snippet",
    "patients": {"table": "p.csv", "columns": {"patient_id": "id", "time_days": "os_days", "event": "os_event"}},
    "expression": {"table": "e.csv.gz", "unit": "tpm"},
    "gene_sets": {"tumour": "builtin", "microenvironment": "builtin"},
    "splits": {"folds": 2},
}


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    """A folder with a small file of every name that the page uses."""
    folder = tmp_path_factory.mktemp("downloads")
    random = np.random.default_rng(0)
    genes = draw_genes(random)
    write_star(folder, genes, random)
    write_clinical(folder, random)
    write_matrices(folder, genes, random)
    write_features(folder, random)
    (folder / "hallmark.gmt").write_text("HALLMARK_HYPOXIA\tnone\t" + "\t".join(genes.symbol[:9]) + "\n")
    (folder / "splits").mkdir()
    for fold in range(2):
        sides = {"train": PATIENTS[1 - fold :: 2], "val": PATIENTS[fold::2]}
        frame = pd.DataFrame({side: pd.Series(names) for side, names in sides.items()})
        frame.to_csv(folder / "splits" / f"splits_{fold}.csv")
    return folder


def write_star(folder: Path, genes, random) -> None:
    sheet, manifest, metadata = [], [], []
    for i, patient in enumerate([*PATIENTS, PATIENTS[0]]):
        sample = f"{patient}-{'01A' if i < len(PATIENTS) else '11A'}"  # the last one is normal tissue
        identifier, name = f"id{i}", f"f{i}.rna_seq.augmented_star_gene_counts.tsv"
        path = folder / "star" / identifier / name
        path.parent.mkdir(parents=True)
        table = star_table(genes, draw_counts(genes, (0.0, 0.0), random), random)
        path.write_text("# gene-model: GENCODE v36\n" + table.to_csv(sep="\t", index=False, float_format="%.4f"))
        kind = "Gene Expression Quantification"
        sheet.append({"File ID": identifier, "File Name": name, "Data Type": kind, "Case ID": patient,
                      "Sample ID": sample, "Sample Type": "Primary Tumor"})  # fmt: skip
        manifest.append({"id": identifier, "filename": name, "md5": "0", "size": path.stat().st_size, "state": "ok"})
        metadata.append(
            {
                "file_id": identifier,
                "file_name": name,
                "associated_entities": [{"entity_submitter_id": f"{sample}-01R"}],
            }
        )
    pd.DataFrame(sheet).to_csv(folder / "gdc_sample_sheet.tsv", sep="\t", index=False)
    pd.DataFrame(manifest).to_csv(folder / "gdc_manifest.txt", sep="\t", index=False)
    (folder / "metadata.cart.json").write_text(json.dumps(metadata))


def write_clinical(folder: Path, random) -> None:
    n = len(PATIENTS)
    days, dead = random.integers(100, 3000, n), np.arange(n) % 3 > 0
    grades, idh = np.resize(["G2", "G3", "G4"], n), np.resize(["WT", "Mutant", "Mutant"], n)
    codel, cdkn2a = np.resize(["non-codel", "codel", "non-codel", "non-codel"], n), np.resize([-2, 0, -2, 0, 0], n)
    plain = {
        "id": PATIENTS, "os_days": days, "diagnosed": "2010-01-31",
        "last_seen": (pd.Timestamp("2010-01-31") + pd.to_timedelta(days, unit="D")).strftime("%Y-%m-%d"),
        "os_months": (days / 30.4375).round(2), "os_event": dead.astype(int),
        "vital_status": np.where(dead, "Dead", "Alive"), "grade": grades, "idh_status": idh, "codel": codel,
        "cdkn2a": cdkn2a, "mgmt": np.resize(["methylated", "unmethylated"], n), "age": random.integers(20, 80, n),
        "gender": np.resize(["female", "male", "male"], n), "project": np.resize(["gbm", "lgg"], n),
        "PFI.time": (days / 2).round(), "PFI": np.arange(n) % 4 > 0, "dss_months": (days / 30.4375).round(2),
        "dss": np.resize(["of disease", "no", "no"], n), "ended": np.resize([0, 1, 2, 1], n),
        "purity": random.integers(20, 95, n),
    }  # fmt: skip
    pd.DataFrame(plain).to_csv(folder / "p.csv", index=False)
    rows = pd.DataFrame(plain).astype(object).values.tolist()
    write_xlsx(folder / "study.xlsx", {"Patients 2024": [list(plain), *rows], "Notes": [["by hand"]]})
    markers = {"case_id": PATIENTS, "idh": idh, "codel_1p19q": codel, "cdkn2a_gistic": cdkn2a, "grade": grades}
    pd.DataFrame(markers).to_csv(folder / "markers.csv", index=False)
    gdc = {
        "case_submitter_id": PATIENTS, "vital_status": plain["vital_status"],
        "days_to_death": np.where(dead, days.astype(str), "'--"),
        "days_to_last_follow_up": np.where(dead, "'--", days.astype(str)), "primary_diagnosis": "Glioblastoma",
        "tumor_grade": "Not Reported", "age_at_index": plain["age"], "gender": plain["gender"],
    }  # fmt: skip
    write_archive(folder / "clinical.tar.gz", pd.DataFrame(gdc))
    write_archive(folder / "clinical.project-TCGA-GBM.tar.gz", pd.DataFrame(gdc)[:15])
    cases = [
        {
            "submitter_id": patient,
            "demographic": {"vital_status": "Dead", "days_to_death": int(time), "gender": "male", "age_at_index": 50},
            "diagnoses": [{"primary_diagnosis": "Mixed glioma", "tumor_grade": str(grade)}],
        }
        for patient, time, grade in zip(PATIENTS[15:], days[15:], grades[15:], strict=True)
    ]
    (folder / "clinical.cart.json").write_text(json.dumps(cases))
    status = np.where(dead, "1:DECEASED", "0:LIVING")
    cbioportal = {"PATIENT_ID": PATIENTS, "OS_MONTHS": plain["os_months"], "OS_STATUS": status,
                  "DSS_MONTHS": plain["dss_months"], "DSS_STATUS": status}  # fmt: skip
    samples = {"PATIENT_ID": PATIENTS, "SAMPLE_ID": [f"{p}-01" for p in PATIENTS], "GRADE": grades, "IDH_STATUS": idh}
    for name, table in (("patient", cbioportal), ("sample", samples)):
        text = pd.DataFrame(table).to_csv(sep="\t", index=False)
        (folder / f"data_clinical_{name}.txt").write_text("#Displayed name\n#Description\n" + text)
    donors = {"donor": DONORS, "survival_days": [100, 300, 250, 400, 900, 50], "died": [1, 1, 0, 1, 0, 1]}
    pd.DataFrame(donors).to_csv(folder / "ivygap_patients.csv", index=False)


def write_archive(path: Path, table: pd.DataFrame) -> None:
    content = table.to_csv(sep="\t", index=False).encode()
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("clinical.tsv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def write_matrices(folder: Path, genes, random) -> None:
    symbols = ["EGFR", *(symbol for symbol in genes.symbol if symbol != "EGFR")][:120]
    values = pd.DataFrame(random.gamma(1, 40, (len(PATIENTS), 120)).round(3), index=PATIENTS, columns=symbols)
    values.to_csv(folder / "e.csv.gz", index_label="patient")
    by_sample = values.round().T.set_axis([f"S{i}" for i in range(len(PATIENTS))], axis=1)
    by_sample.to_csv(folder / "counts_by_sample.tsv", sep="\t", index_label="gene")
    sheet = pd.DataFrame({"sample_id": by_sample.columns, "patient_id": PATIENTS})
    sheet.to_csv(folder / "samples.csv", index=False)
    portal = values.T.set_axis([f"{patient}-01" for patient in PATIENTS], axis=1)
    portal.to_csv(folder / "data_mrna_seq_v2_rsem.txt", sep="\t", index_label="Hugo_Symbol")
    ensembl = list(genes.ensembl[:120])
    (np.log2(portal + 1)).set_axis(ensembl).to_csv(folder / "x.tsv.gz", sep="\t", index_label="Ensembl_ID")
    probes = pd.DataFrame({"id": ensembl, "gene": symbols})
    probes.to_csv(folder / "gencode.v22.probeMap", sep="\t", index=False)
    (folder / "mine.tsv").write_text("previous\tapproved\nOLDNAME\tEGFR\n")
    obs = pd.DataFrame({"patient": PATIENTS}, index=[f"cell{i}" for i in range(len(PATIENTS))])
    data = anndata.AnnData(X=values.to_numpy(np.float32), obs=obs, var=pd.DataFrame(index=symbols))
    data.write_h5ad(folder / "e.h5ad")
    (folder / "ivygap").mkdir()
    fpkm = pd.DataFrame(random.gamma(1, 40, (120, len(DONORS))), columns=range(100, 100 + len(DONORS)))
    fpkm.to_csv(folder / "ivygap" / "fpkm_table.csv", index_label="gene_id \\ rna_well_id")
    rows = pd.DataFrame({"gene_id": range(120), "gene_symbol": symbols})
    rows.to_csv(folder / "ivygap" / "rows-genes.csv", index=False)
    columns = pd.DataFrame({"rna_well_id": fpkm.columns, "tumor_name": [f"{donor}-1-1" for donor in DONORS]})
    columns.to_csv(folder / "ivygap" / "columns-samples.csv", index=False)


def write_features(folder: Path, random) -> None:
    """Two slides: as tiled TIFF named .svs with outlines, as features of CLAM, and as one vector each."""
    import tifffile

    slides = [f"{patient}-01Z-00-DX1" for patient in PATIENTS[:2]]
    (folder / "outlines").mkdir()
    for i, slide in enumerate(slides):
        ring = [[128, 128], [640, 128], [640, 640], [128, 640], [128, 128]]
        drawn = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
        (folder / "outlines" / f"{slide}.geojson").write_text(json.dumps([drawn]))
        path = folder / "slides" / f"uuid{i}" / f"{slide}.svs"
        path.parent.mkdir(parents=True)
        pixels = np.full((768, 768, 3), 244, np.uint8)
        pixels[128:640, 128:640] = random.normal((200, 120, 170), 25, (512, 512, 3)).clip(0, 255).astype(np.uint8)
        tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", resolution=(20000, 20000),
                         resolutionunit="CENTIMETER")  # fmt: skip
        for place, width in (("features", 256), ("20x/features_uni_v1", 256), ("5x/features_uni_v1", 1024)):
            path = folder / place / f"{slide}.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "w") as file:
                file["features"] = random.normal(size=(3, 4)).astype(np.float32)
                file["coords"] = np.array([[0, 0], [width, 0], [0, width]])
    table = pd.DataFrame({"slide_id": slides, "patient_id": PATIENTS[:2], "mpp": 0.5})
    table.to_csv(folder / "slides.csv", index=False)
    pd.DataFrame({"slide_id": slides, "area": [1.5, 2.5], "nuclei": [10, 20]}).to_csv(
        folder / "slide_features.csv", index=False
    )


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[text.strip().splitlines()[0][:60] for text in SNIPPETS])
def test_every_snippet_is_read_by_check(downloads, snippet, capsys):
    content = yaml.safe_load(snippet)
    path = downloads / "snippet.yaml"
    path.write_text(snippet if "name" in content else yaml.safe_dump({**BASE, **content}))
    assert set(content) <= set(CohortFile.model_fields)
    assert main(["check", str(path)]) == 0, capsys.readouterr().err
    shown = capsys.readouterr()
    assert " 0 patients" not in shown.out.split("Excluded")[0].replace("slides: 0, of 0 patients", "")


def test_the_commands_of_the_page_run(downloads, tmp_path, monkeypatch, capsys):
    """`gdc-client` is not run: its folders are there. The template of `init` is replaced by the worked example."""
    example = next(text for text in SNIPPETS if "name: tcga-gbmlgg" in text)
    monkeypatch.chdir(tmp_path)
    for name in ("my-cohort", "tcga"):
        (tmp_path / name).mkdir()
        for source in downloads.iterdir():
            (tmp_path / name / source.name).symlink_to(source)
    commands = [shlex.split(command) for command in COMMANDS if command.startswith("subfuse ")]
    assert {command[1] for command in commands} == {"init", "check", "prepare"}
    for command in commands:
        options = ["--workers", "1"] if command[1] == "prepare" else []
        assert main([*command[1:], *options]) == 0, capsys.readouterr().err
        if command[1] == "init":
            read_cohort_file(tmp_path / "my-cohort" / "cohort.yaml")
            for name in ("my-cohort", "tcga"):
                (tmp_path / name / "cohort.yaml").write_text(example)
    prepared = tmp_path / "prepared-tcga"
    patients = pd.read_csv(prepared / "patients.csv")
    assert len(patients) == len(PATIENTS)
    assert set(patients["diagnosis"]) == {"GBM_IDHwt", "Astro_G4", "Astro_G2-3", "Oligo_codel"}
    assert patients["n_slides"].sum() == 2
    excluded = pd.read_csv(prepared / "exclusions.csv")
    assert excluded.loc[excluded["level"] == "expression", "reason"].tolist() == ["normal tissue"]
    listed = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", PAGE.read_text(encoding="utf-8").split("## What `prepare`")[1],
                        re.MULTILINE)  # fmt: skip
    names = {name for cell in listed for name in re.findall(r"`([^`]+)`", cell)} - {"harmonisation.csv"}
    assert all((prepared / name).exists() for name in names), names


def test_every_other_line_of_a_shell_block_is_the_client_of_the_portal():
    others = [line for line in COMMANDS if line and not line.startswith("subfuse ")]
    assert others
    assert all(line.startswith("gdc-client download -m ") for line in others)


def test_the_page_names_every_key_and_unit_of_the_cohort_file():
    text = PAGE.read_text(encoding="utf-8")
    fields = set(CohortFile.model_fields) - {"name"}
    for section in CohortFile.model_json_schema()["$defs"].values():
        fields |= set(section.get("properties", {}))
    assert not {field for field in fields if not re.search(rf"\b{field}\b", text)}


def test_links_of_the_page_lead_somewhere():
    text = PAGE.read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", line[3:].lower()).replace(" ", "-") for line in text.splitlines() if line[:3] == "## "
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("https://"):
            assert (PAGE.parent / target).exists()
