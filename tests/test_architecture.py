"""Imports go downward only, and importing the package stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import subfuse

SOURCE = Path(subfuse.__file__).parent
LAYERS = [
    {"errors", "files", "execution", "identifiers", "__init__"},
    {"data", "model"},
    {"objective"},
    {"training"},
    {"evaluation", "explanation"},
    {"report"},
    {"runs", "new_patient", "demo", "doctor"},
    {"serve"},
    {"cli"},
    {"__main__"},
]
INDEPENDENT = [{"data", "model"}, {"evaluation", "explanation"}]


def imports_of(path: Path) -> set[str]:
    """Top-level parts of subfuse that a file imports, lazily or not."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "subfuse":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {"__init__" if a.name == "__version__" else a.name for a in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("subfuse.")}
    return found


def layer_of(part: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


def test_imports_go_downward_only():
    violations = []
    for path in sorted(SOURCE.rglob("*.py")):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for imported in imports_of(path) - {part}:
            same_level = any({part, imported} <= pair for pair in INDEPENDENT)
            if layer_of(imported) > layer_of(part) or same_level:
                violations.append(f"{path.relative_to(SOURCE)} imports {imported}")
    assert not violations


def test_the_model_layer_stands_alone():
    imported = set().union(*(imports_of(path) for path in (SOURCE / "model").glob("*.py")))
    assert imported <= {"model", "errors"}


def test_importing_subfuse_loads_no_heavy_library():
    code = (
        "import sys, subfuse; heavy = {'torch', 'torchvision', 'timm', 'transformers', 'pandas', 'matplotlib'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.strip() == ""
    )


def test_core_modules_never_load_optional_libraries():
    code = (
        "import sys, subfuse.runs, subfuse.evaluation.cross_validation, subfuse.data.preparation; "
        "optional = {'torchvision', 'timm', 'transformers', 'lazyslide', 'wsidata', 'openslide', 'distributed', "
        "'sksurv', 'fastapi'}; sys.exit(', '.join(optional & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.strip() == ""
    )


def test_no_machine_paths_in_the_project():
    root = SOURCE.parents[1]
    folders = ("src", "tests", "benchmarks", "benchmarks/results", "docs", "examples")
    text = [p for folder in folders for p in (root / folder).rglob("*") if "work" not in p.relative_to(root).parts]
    named = [
        p for p in text if p.suffix in {".py", ".md", ".yaml", ".toml"} and ("/wo" + "rk/") in p.read_text("utf-8")
    ]
    assert not named
