"""README and documentation are true: links lead somewhere, commands are understood, the Python of the README runs."""

import re
import shlex
from functools import partial
from pathlib import Path

import pytest
import torch

import subfuse
from command_run import made_by_commands
from subfuse.cli import COMMANDS, build_parser
from subfuse.training.models import MODELS
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

pytestmark = pytest.mark.walk

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")), *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def shell_lines(page: Path) -> list[str]:
    """Commands of subfuse in a page's shell blocks, without comments, redirections and launchers such as torchrun."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line[line.index("subfuse ") :].partition(" > ")[0] for line in lines if re.search(r"(^|\s)subfuse ", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize(
    ("page", "line"), [(page.name, line) for page in PAGES for line in shell_lines(page)], ids=lambda value: value[:60]
)
def test_every_command_of_the_pages_is_understood(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "3"))[1:]
    assert arguments[0] in COMMANDS, page
    build_parser(arguments[0]).parse_args(arguments)


def test_the_readme_names_every_command_and_model():
    text = README.read_text(encoding="utf-8")
    assert [name for name in COMMANDS if name not in text] == []
    assert [name for name in MODELS if f"`{name}`" not in text] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_python_of_the_readme_runs(tmp_path_factory, tmp_path, monkeypatch):
    run = made_by_commands(tmp_path_factory)
    (tmp_path / "prepared").symlink_to(run.parent / "prepared")
    monkeypatch.chdir(tmp_path)
    brief = {
        "plan": TrainingPlan(
            training=TrainingSettings(epochs=1),
            architecture=ArchitectureSettings(embed_dim=16, max_grid=8, table_size=32),
        ),
    }
    monkeypatch.setattr(subfuse, "cross_validate", partial(subfuse.cross_validate, **brief))
    patient = next(p.patient_id for p in subfuse.read_cohort("prepared") if p.expression is not None)
    library, tensors = PYTHON
    found = {}
    exec(library.replace("TCGA-02-0047", patient), found)
    assert set(found["result"].metrics["model"]) == {"subspace", "snn"}
    inputs = {
        "patches": torch.randn(2, 7, 1024),
        "coords": torch.randint(0, 9, (2, 7, 2)) * 128.0,
        "patch_mask": torch.ones(2, 7, dtype=torch.bool),
        "expression": torch.randn(2, 420),
        "expression_mask": torch.tensor([True, False]),
    }
    exec(tensors, inputs)
    torch.testing.assert_close(inputs["output"].subspace_logits.sum(dim=1), inputs["output"].logits)


def test_numbers_of_the_readme_are_those_of_the_results():
    text, results = (path.read_text(encoding="utf-8") for path in (README, ROOT / "benchmarks/results/tcga_gbmlgg.md"))
    as_published = results.partition("## Without 269 genes")[0]
    quoted = re.findall(r"^\| (.+) \| (0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)) \|$", text, re.MULTILINE)
    assert len(quoted) == 7
    for model, number in quoted:
        assert f"| survival | c_index | {model} | {number} |" in as_published
    assert f"| idh | WT | subspace | {re.search(r'within IDH wildtype ([0-9.]+)', text)[1]} (" in as_published
