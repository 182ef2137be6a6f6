"""Bad input is a one-line error or an exclusion with its reason; exit codes as documented; nothing half-written.

Every kind of `KINDS` goes through the command line here: refused (`REFUSED`), read as what it plainly is (`HARMLESS`),
warned of (`DOUBTFUL`), a slide that is left out while the rest goes on (`BAD_SLIDES`), or a disk that is full. Tests of
the readers have more forms of each: `test_broken_clinical.py` and `test_plausibility.py` of `clinical`,
`test_broken_expression.py` of `expression`, `test_sources.py` of `preparation`.
"""

import errno
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from subfuse.cli import main
from subfuse.expression.table import read_expression_h5ad

pytestmark = pytest.mark.walk

GENES = ("EGFR", "CD44", "GFAP", "CD3D", "CD163", "VWF")
PATIENTS = [f"TCGA-02-{i:04d}" for i in range(24)]
FIRST = PATIENTS[0]
KINDS = {
    "truncated slide", "empty file", "web page", "gzip under another name", "delimiter", "byte order mark",
    "Windows line ends", "quoted line breaks", "duplicate barcodes", "barcodes of mixed length",
    "NaN, infinite, negative", "units of cohorts", "days or months", "flipped event", "absent slide",
    "slide without patient", "unreadable tile", "full disk", "path with spaces and other letters", "declaration",
}  # fmt: skip


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A small valid cohort of plain tables: 24 patients with expression and outcome."""
    return write_cohort(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The undamaged cohort, prepared."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(["prepare", str(write_cohort(folder)), "--out", str(folder / "prepared")]) == 0
    return folder / "prepared"


def write_cohort(folder: Path) -> Path:
    random = np.random.default_rng(0)
    time = random.integers(100, 3000, len(PATIENTS))
    clinical = pd.DataFrame({"patient_id": PATIENTS, "time_days": time, "event": [0, 1] * 12})
    clinical.to_csv(folder / "patients.csv", index=False)
    expression = pd.DataFrame(random.gamma(2, 20, (24, len(GENES))).round(), columns=list(GENES), index=PATIENTS)
    expression.to_csv(folder / "expression.csv", index_label="patient_id")
    content = {
        "name": "small",
        "patients": {"table": "patients.csv"},
        "expression": {"table": "expression.csv", "unit": "counts"},
        "tasks": {"survival": {"time": "time_days", "event": "event"}},
        "splits": {"folds": 2, "validation": 0.3},
    }
    path = folder / "cohort.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def edit(path: Path, **sections) -> None:
    content = yaml.safe_load(path.read_text())
    content.update(sections)
    path.write_text(yaml.safe_dump(content))


def edit_table(path: Path, change) -> None:
    change(pd.read_csv(path)).to_csv(path, index=False)


def set_first(column, value):
    return lambda table: table.assign(**{column: [value, *table[column].tolist()[1:]]})


# --- damages: each takes the path of the cohort file -----------------------------------------------------------------


def table(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """Changes the cells of a table."""
    return lambda path: edit_table(path.parent / name, change)


def raw(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Changes the bytes of a table."""
    return lambda path: (path.parent / name).write_bytes(change((path.parent / name).read_bytes())) and None


def declared(**sections) -> Callable[[Path], None]:
    """Changes the cohort file."""
    return lambda path: edit(path, **sections)


def foreign_gene_set(path):
    (path.parent / "tumour.gmt").write_text("SET\tnobody\tNOTAGENE1\tNOTAGENE2\n")
    edit(path, gene_sets={"tumour": "tumour.gmt", "microenvironment": "builtin"})


def undeclared_censoring(path):
    edit_table(path.parent / "patients.csv", lambda table: table.rename(columns={"event": "censored"}))
    names = {"patient_id": "patient_id", "time_days": "time_days", "event": "censored"}
    edit(path, patients={"table": "patients.csv", "columns": names})


def two_cohorts_of_other_units(path):
    content = yaml.safe_load(path.read_text())
    sections = {}
    for name, unit, rows in (("one", "counts", slice(12)), ("two", "zscore", slice(12, 24))):
        pd.read_csv(path.parent / "patients.csv")[rows].to_csv(path.parent / f"{name}.csv", index=False)
        sections[name] = {"name": name, "patients": {"table": f"{name}.csv"},
                          "expression": {"table": "expression.csv", "unit": unit}}  # fmt: skip
    content = {key: value for key, value in content.items() if key not in ("patients", "expression")}
    path.write_text(yaml.safe_dump({**content, "cohorts": list(sections.values())}))


def as_samples(table):
    return table.assign(patient_id=[f"{patient}-01A-11R-0000-07" for patient in table["patient_id"]])


def one_sample_more(table):
    return pd.concat([table, table.head(1).assign(patient_id=f"{FIRST}-01A")])


def with_notes(table):
    return table.assign(note=['seen, twice\nthen "lost"', *["", "x"] * 11, "a\r\nb"])


def flipped(table):
    return table.assign(time_days=np.where(table["event"] == 1, 2000, 100) + np.arange(len(table)))


def elsewhere(path):
    folder = path.parent / "données d'Österreich 表"
    folder.mkdir()
    for name in ("patients", "expression"):
        (path.parent / f"{name}.csv").rename(folder / f"{name} été µ.csv")
    edit(path, patients={"table": f"{folder.name}/patients été µ.csv"},
         expression={"table": f"{folder.name}/expression été µ.csv", "unit": "counts"})  # fmt: skip


def with_semicolons(text: bytes) -> bytes:
    return text.replace(b",", b";").replace(b".", b",")


HTML = b"<!DOCTYPE html><html><body>504 Gateway Time-out</body></html>"
REFUSED = [  # kind, damage, exit code, named in the message
    ("empty file", raw("patients.csv", lambda _: b""), 3, "patients.csv"),
    ("empty file", raw("expression.csv", lambda _: b""), 3, "expression.csv"),
    ("web page", raw("patients.csv", lambda _: HTML), 3, "patients.csv: a table is required"),
    ("web page", raw("expression.csv", lambda _: HTML), 3, "a web page"),
    ("gzip under another name", raw("patients.csv", gzip.compress), 3, "Let its name end in .gz"),
    ("gzip under another name", raw("expression.csv", gzip.compress), 3, "Let its name end in .gz"),
    ("delimiter", raw("patients.csv", lambda text: text.replace(b",", b"|")), 3, "commas, tabs or semicolons"),
    ("delimiter", raw("expression.csv", lambda text: text.replace(b",", b"|")), 3, "commas, tabs or semicolons"),
    ("duplicate barcodes", table("patients.csv", lambda t: pd.concat([t, t.head(1)])), 3, FIRST),
    ("duplicate barcodes", table("expression.csv", lambda t: pd.concat([t, t.head(1)])), 3, FIRST),
    ("barcodes of mixed length", table("expression.csv", one_sample_more), 3, f"{FIRST}-01A"),
    ("NaN, infinite, negative", table("expression.csv", set_first("GFAP", -3.0)), 3, "gene GFAP"),
    ("NaN, infinite, negative", table("expression.csv", set_first("GFAP", np.inf)), 3, "gene GFAP"),
    ("NaN, infinite, negative", table("expression.csv", set_first("GFAP", np.nan)), 3, "gene GFAP"),
    ("NaN, infinite, negative", table("expression.csv", set_first("GFAP", 1.5)), 3, "a whole number (counts)"),
    ("NaN, infinite, negative", table("patients.csv", set_first("time_days", np.inf)), 3, "row 2: time_days"),
    (
        "units of cohorts",
        two_cohorts_of_other_units,
        3,
        "log2_cpm (unit counts) in one and zscore (unit zscore) in two",
    ),
    ("absent slide", declared(slides={"folder": "nowhere"}), 3, "nowhere: a folder of slides is required"),
    ("declaration", lambda path: (path.parent / "patients.csv").unlink(), 3, "patients.csv"),
    ("declaration", table("patients.csv", set_first("event", 2)), 3, "event"),
    ("declaration", declared(patients={"table": "patients.csv", "colums": {}}), 2, "Did you mean `columns`?"),
    ("declaration", foreign_gene_set, 3, "tumour"),
    ("declaration", undeclared_censoring, 2, "event_values"),
    (
        "declaration",
        declared(expression={"table": "expression.csv", "unit": "counts", "exclude": ["EGFRR"]}),
        2,
        "EGFR",
    ),
]
HARMLESS = [  # kind, damage that changes nothing
    ("byte order mark", raw("patients.csv", lambda text: b"\xef\xbb\xbf" + text)),
    ("byte order mark", raw("expression.csv", lambda text: b"\xef\xbb\xbf" + text)),
    ("Windows line ends", raw("patients.csv", lambda text: text.replace(b"\n", b"\r\n"))),
    ("Windows line ends", raw("expression.csv", lambda text: text.replace(b"\n", b"\r\n"))),
    ("delimiter", raw("patients.csv", lambda text: text.replace(b",", b"\t"))),
    ("delimiter", raw("patients.csv", with_semicolons)),
    ("delimiter", raw("expression.csv", with_semicolons)),
    ("quoted line breaks", table("patients.csv", with_notes)),
    ("barcodes of mixed length", table("expression.csv", as_samples)),
    ("path with spaces and other letters", elsewhere),
]
DOUBTFUL = [  # kind, damage, words of the warning
    ("days or months", table("patients.csv", lambda t: t.assign(time_days=t["time_days"] / 60)), "like months"),
    ("flipped event", table("patients.csv", flipped), "event may be flipped"),
]


def names_of(cases) -> list[str]:
    return [case[0] for case in cases]


@pytest.mark.parametrize(("kind", "damage", "code", "named"), REFUSED, ids=names_of(REFUSED))
def test_unusable_input_is_one_line_with_its_exit_code(cohort, tmp_path, capsys, kind, damage, code, named):
    damage(cohort)
    before = sorted(tmp_path.rglob("*"))
    for arguments in (["check", str(cohort)], ["prepare", str(cohort), "--out", str(tmp_path / "prepared")]):
        assert main(arguments) == code
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("subfuse: error: ")
        assert named in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("kind", "damage"), HARMLESS, ids=names_of(HARMLESS))
def test_harmless_oddities_change_nothing(cohort, whole, tmp_path, kind, damage):
    damage(cohort)
    odd = tmp_path / "odd"
    assert main(["prepare", str(cohort), "--out", str(odd)]) == 0
    patients = pd.read_csv(whole / "patients.csv")
    pd.testing.assert_frame_equal(pd.read_csv(odd / "patients.csv")[patients.columns], patients)
    expression = [read_expression_h5ad(folder / "expression.h5ad").values for folder in (odd, whole)]
    pd.testing.assert_frame_equal(*expression)
    assert len(pd.read_csv(odd / "exclusions.csv")) == 0


@pytest.mark.parametrize(("kind", "damage", "warned"), DOUBTFUL, ids=names_of(DOUBTFUL))
def test_doubtful_input_is_used_with_a_warning(cohort, tmp_path, capsys, kind, damage, warned):
    assert main(["check", str(cohort)]) == 0
    assert warned not in capsys.readouterr().err
    damage(cohort)
    for arguments in (["check", str(cohort)], ["prepare", str(cohort), "--out", str(tmp_path / "prepared")]):
        assert main(arguments) == 0
        assert [
            line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ") and warned in line
        ]
    assert len(pd.read_csv(tmp_path / "prepared" / "patients.csv")) == len(PATIENTS)


def test_every_kind_of_bad_input_is_covered():
    covered = {*names_of(REFUSED), *names_of(HARMLESS), *names_of(DOUBTFUL), *BAD_SLIDES.values(), "full disk"}
    assert covered - {None} == KINDS


def test_the_undamaged_cohort_is_prepared(whole):
    assert len(pd.read_csv(whole / "patients.csv")) == len(PATIENTS)


def exclusions_after(cohort, tmp_path, *options) -> pd.DataFrame:
    assert main(["prepare", str(cohort), "--out", str(tmp_path / "prepared"), "--workers", "1", *options]) == 0
    return pd.read_csv(tmp_path / "prepared" / "exclusions.csv").set_index("id")


def test_a_patient_without_any_modality_is_excluded_with_the_reason(cohort, tmp_path):
    edit_table(tmp_path / "expression.csv", lambda table: table.iloc[1:])
    excluded = exclusions_after(cohort, tmp_path)
    assert "no slide and no expression" in excluded.loc[FIRST, "reason"]
    assert len(pd.read_csv(tmp_path / "prepared" / "patients.csv")) == len(PATIENTS) - 1


BAD_SLIDES = {  # slide: the kind of bad input that it is
    "empty": None, "no-mpp": None, "cut": "truncated slide", "hole": "unreadable tile", "absent": "absent slide",
    "orphan": "slide without patient",
}  # fmt: skip


@pytest.fixture
def slides(cohort, tmp_path) -> Path:
    """The cohort with a good slide, and one of every kind of `BAD_SLIDES`."""
    import tifffile

    random = np.random.default_rng(1)
    folder = tmp_path / "slides"
    folder.mkdir()
    tissue = random.normal((200, 120, 170), 25, (600, 600, 3)).clip(0, 255).astype(np.uint8)
    for name, pixels in {"good": tissue, "empty": np.full((600, 600, 3), 245, np.uint8), "no-mpp": tissue}.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    for name in ("cut", "hole", "orphan"):
        resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
        large = np.tile(tissue, (2, 2, 1))[:1024, :1024]
        tifffile.imwrite(folder / f"{name}.svs", large, tile=(256, 256), photometric="rgb", compression="zlib",
                         **resolution)  # fmt: skip
    content = bytearray((folder / "cut.svs").read_bytes())
    (folder / "cut.svs").write_bytes(content[: len(content) // 3])
    with tifffile.TiffFile(folder / "hole.svs") as file:
        start, length = file.pages[0].dataoffsets[5], file.pages[0].databytecounts[5]
    content = bytearray((folder / "hole.svs").read_bytes())
    content[start : start + length] = b"\xa5" * length
    (folder / "hole.svs").write_bytes(content)
    names = ["good", *BAD_SLIDES]
    owners = [*PATIENTS[: len(names) - 1], "TCGA-99-9999"]
    mpp = [None if name == "no-mpp" else 0.5 for name in names]
    pd.DataFrame({"slide_id": names, "patient_id": owners, "mpp": mpp}).to_csv(tmp_path / "slides.csv", index=False)
    edit(cohort, slides={"table": "slides.csv", "folder": "slides"})
    return cohort


def test_slides_that_cannot_be_used_are_excluded_and_the_rest_goes_on(slides, tmp_path):
    excluded = exclusions_after(slides, tmp_path)
    assert set(excluded.index) == set(BAD_SLIDES)
    words = {
        "empty": "tissue", "no-mpp": "mpp", "cut": "cut.svs", "hole": "Copy the slide again", "absent": "no such file",
        "orphan": "TCGA-99-9999 is not in the cohort",
    }  # fmt: skip
    assert {name: word in excluded.loc[name, "reason"] for name, word in words.items()} == dict.fromkeys(words, True)
    assert set(excluded["level"]) == {"slide"}
    assert pd.read_csv(tmp_path / "prepared" / "slides.csv")["slide_id"].tolist() == ["good"]
    assert len(pd.read_csv(tmp_path / "prepared" / "patients.csv")) == len(PATIENTS)
    assert not list((tmp_path / "prepared").rglob("*.part*"))
    assert {path.stem for path in (tmp_path / "prepared" / "wsi").rglob("*.*") if path.is_file()} == {"good"}


def test_check_names_slides_that_cannot_be_opened_and_writes_nothing(slides, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(["check", str(slides)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("no-mpp", "absent", "orphan"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("written", [0, 1, 9])
def test_a_full_disk_stops_the_command_and_leaves_no_half_file(cohort, tmp_path, monkeypatch, capsys, written):
    (tmp_path / "features").mkdir()
    with h5py.File(tmp_path / "features" / f"{FIRST}_a.h5", "w") as file:
        file["Res_feature"] = np.ones((3, 4), np.float32)
    edit(cohort, slides={"features": "features"})
    arguments = ["prepare", str(cohort), "--out", str(tmp_path / "prepared"), "--workers", "1"]
    replace, done = Path.replace, []

    def replace_until_full(path, target):
        if len(done) >= written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_until_full)
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("subfuse: error: ")]
    assert len(lines) == 1
    assert "free disk space is required" in lines[0]
    files = {path for path in (tmp_path / "prepared").rglob("*") if path.is_file()}
    begun = {tmp_path / "prepared" / "started.json"}  # a new folder that holds no more than that is removed
    assert files - begun == set(done) - begun
    assert not (tmp_path / "prepared" / "provenance.json").exists()
    monkeypatch.undo()
    assert main(arguments) == 0
    assert (tmp_path / "prepared" / "provenance.json").exists()


def test_a_prepared_folder_of_another_cohort_is_not_touched(cohort, tmp_path, capsys):
    exclusions_after(cohort, tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "prepared").rglob("*") if path.is_file()}
    edit(cohort, name="other")
    assert main(["prepare", str(cohort), "--out", str(tmp_path / "prepared")]) == 2
    assert "must hold other" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["crossval", "nowhere"], 2, "subfuse prepare COHORT.yaml --out nowhere"),
        (["evaluate", "nowhere", "--cohort", "nowhere"], 2, "nowhere"),
        (["report", "nowhere"], 2, "nowhere"),
        (["predict", "nowhere", "--cohort", "nowhere"], 2, "nowhere"),
        (["check", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["convert", "nowhere.pth"], 3, "nowhere.pth"),
    ],
)
def test_missing_folders_and_files_are_named(tmp_path, monkeypatch, capsys, arguments, code, named):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert named in lines[0]
    assert not list(tmp_path.iterdir())


def test_wrong_usage_is_exit_code_two(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["crossval", "prepared", "--train.epocs", "3"])
    assert stopped.value.code == 2
    with pytest.raises(SystemExit) as stopped:
        main(["crossval", "prepared", "--train.lr", "-1"])
    assert stopped.value.code == 2


def test_debug_shows_the_traceback(tmp_path):
    from subfuse.errors import ConfigurationError

    with pytest.raises(ConfigurationError):
        main(["--debug", "check", str(tmp_path / "nowhere.yaml")])
