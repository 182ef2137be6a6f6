"""The page on new patients is true: every command runs on a run that commands made, and does what the page says."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command_run import made_by_commands
from subfuse.cli import main

pytestmark = pytest.mark.walk

PAGE = Path(__file__).parents[1] / "docs" / "new-patients.md"
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line) for text in BLOCKS for line in text.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The folder that the page is read in, after its commands."""
    run = made_by_commands(tmp_path_factory)
    place = tmp_path_factory.mktemp("new patients")
    (place / "run").symlink_to(run)
    (place / "prepared").symlink_to(run.parent / "prepared")
    cohort = run.parent / "cohort"
    (place / "new.tif").symlink_to(sorted(cohort.rglob("*.tif*"))[0])
    (place / "new.tsv").symlink_to(sorted(cohort.rglob("*gene_counts.tsv"))[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for command in COMMANDS:
            assert command[0] == "subfuse"
            assert main(command[1:]) == 0, command
    return place


def test_every_command_writes_what_it_names(place):
    named = [command[command.index("--out") + 1] for command in COMMANDS if "--out" in command]
    outs = [name for name in named if name.endswith(".csv")]
    assert len(outs) == 6
    tables = {name: pd.read_csv(place / name) for name in outs}
    assert {len(pd.read_csv(place / name.replace(".csv", "_patients.csv"))) for name in outs[:3]} == {2}
    assert tables["both.csv"][["has_slides", "has_expression"]].all(axis=None)
    assert not tables["slides.csv"]["has_expression"].any()
    assert set(tables["student.csv"]["model"]) == {"distilled"}
    assert not tables["expression.csv"]["has_slides"].any()
    pd.testing.assert_frame_equal(tables["shared.csv"], tables["expression.csv"])


def test_json_holds_the_numbers_of_both_tables(place):
    found = json.loads((place / "both.json").read_text(encoding="utf-8"))
    for key, name in (("models", "both.csv"), ("patients", "both_patients.csv")):
        table = pd.read_csv(place / name)
        assert len(found[key]) == len(table)
        numbers = table.select_dtypes("number").columns
        written = pd.DataFrame(found[key]).reindex(columns=numbers).astype(float)
        np.testing.assert_allclose(written, table[numbers].astype(float), rtol=1e-9)
    assert any("read as" in note for note in found["notes"])


def test_what_is_shared_names_no_patient_and_no_path(place):
    patients = pd.read_csv(place / "prepared" / "patients.csv")["patient_id"]
    secrets = [*patients, str((place / "run").resolve().parent), "path with spaces", "slides/"]
    text = b"\n".join(path.read_bytes() for path in (place / "shared").rglob("*") if path.is_file())
    assert not [secret for secret in secrets if secret.encode() in text]
    assert b'"requested_encoder"' in text


def test_links_of_the_page_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / target).exists()
