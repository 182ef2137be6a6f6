"""Imports go downward only, and importing the package stays light."""

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import subfuse
from subfuse.cohort import marker

SOURCE = Path(subfuse.__file__).parent
LAYERS = [  # low to high: a module imports from lower layers and from its own room
    {"errors", "lazy", "settings"},
    {"workbooks"},
    {"__init__", "bounded_files", "identifiers"},
    {"cells", "files", "execution", "hdf5_heaps", "tables", "exclusions", "model", "evaluation"},
    {"devices", "slides", "expression", "clinical"},
    {"features", "simulation"},
    {"cohort"},
    {"preparation", "objective", "run_folder"},
    {"training", "recognition"},
    {"audit", "explanation", "report"},
    {"runs"},
    {"pipeline", "serve", "sharing"},
    {"cli"},
    {"__main__"},
]
NEIGHBOURS = {
    ("clinical", "expression"),
    ("report", "audit"),
}
MOST_FILES = 14  # of a room, beside its __init__
LARGEST_SHARE = 0.1  # of the lines


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


def modules_imported_by(path: Path) -> set[str]:
    """Modules of subfuse that a file imports, lazily or not; of a package, the names it takes from it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "subfuse":
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def rooms() -> dict[Path, list[Path]]:
    """Every folder of modules with its files."""
    folders = {path.parent for path in SOURCE.rglob("*.py")} - {SOURCE}
    return {folder: sorted(folder.glob("*.py")) for folder in sorted(folders)}


def test_imports_go_downward_only():
    violations = [
        f"{path.relative_to(SOURCE)} imports {imported}"
        for path, part in (
            (path, path.relative_to(SOURCE).parts[0].removesuffix(".py")) for path in SOURCE.rglob("*.py")
        )
        for imported in imports_of(path) - {part}
        if layer_of(imported) >= layer_of(part) and (part, imported) not in NEIGHBOURS
    ]
    assert not violations


def test_no_imports_go_round_in_a_circle():
    files = {
        ".".join(["subfuse", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__"): path
        for path in SOURCE.rglob("*.py")
    }
    graph = {name: (modules_imported_by(path) & files.keys()) - {name} for name, path in files.items()}
    assert sum(map(len, graph.values())) > 2 * len(files)
    TopologicalSorter(graph).prepare()  # raises a CycleError that names the circle


def test_evaluation_can_be_used_without_the_rest():
    imported = set().union(*(imports_of(path) for path in (SOURCE / "evaluation").rglob("*.py")))
    assert imported == {"evaluation", "errors"}


def test_no_room_is_crowded():
    n_lines = {path: path.read_text(encoding="utf-8").count("\n") for path in SOURCE.rglob("*.py")}
    room_names = {folder: str(folder.relative_to(SOURCE)) for folder in rooms()}
    crowded = {name: len(rooms()[folder]) - 1 for folder, name in room_names.items()}
    crowded["the hall"] = len(list(SOURCE.glob("*.py"))) - 1
    within = {
        name: sum(n for path, n in n_lines.items() if folder in path.parents) for folder, name in room_names.items()
    }
    assert {name: n for name, n in crowded.items() if n > MOST_FILES} == {}
    assert {name: n for name, n in within.items() if n > LARGEST_SHARE * sum(n_lines.values())} == {}


def test_tests_stand_in_the_room_of_what_they_test():
    tests = Path(__file__).parent
    strangers = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    assert Path("evaluation") in strangers
    assert strangers <= {folder.relative_to(SOURCE) for folder in rooms()} | {Path()}


def test_every_module_has_a_test_file_of_its_name():
    tests = Path(__file__).parent
    modules = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py") if not path.name.startswith("__")]
    without = [m.as_posix() for m in modules if not (tests / m.parent / f"test_{m.name}").exists()]
    assert len(modules) > 100
    assert not without, "give each tests/ROOM/test_MODULE.py"


def test_the_model_layer_stands_alone():
    imported = set().union(*(imports_of(path) for path in (SOURCE / "model").rglob("*.py")))
    assert imported == {"model", "errors", "lazy"}


def test_importing_subfuse_loads_no_heavy_library():
    code = (
        "import sys, subfuse; heavy = {'torch', 'torchvision', 'timm', 'transformers', 'pandas', 'matplotlib'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.strip() == ""
    )


def modules_from(part: str) -> list[Path]:
    """The modules of a part, and all that may import it."""
    above = [part, *(other for layer in LAYERS[layer_of(part) + 1 :] for other in layer)]
    modules = [path for other in above for path in (*(SOURCE / other).rglob("*.py"), SOURCE / f"{other}.py")]
    return [path for path in modules if path.exists()]


def parts_of_paths(path: Path) -> set[str]:
    """Text in the code of a module that may be part of a path: not what is written for readers, which has spaces.

    What stands behind the operator `/` is given once more with a slash at its end.
    """
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    said = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    joined = {id(node.right) for node in nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)}
    found = [n for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in said]
    texts = {node.value for node in found if len(node.value.split()) == 1}
    return texts | {f"{node.value}/" for node in found if id(node) in joined}


def test_what_files_of_a_prepared_folder_are_called_is_spelt_once():
    names = {text for name, text in vars(marker).items() if name.isupper() and isinstance(text, str)}
    assert {"provenance.json", "started.json", "patients.csv", "expression.h5ad", "slide_quality.csv"} <= names
    owner = SOURCE / "cohort" / "marker.py"
    assert names <= parts_of_paths(owner)
    modules = [path for path in modules_from("cohort") if path != owner]
    assert SOURCE / "preparation" / "prepared.py" in modules
    assert not [
        f"{path.relative_to(SOURCE)}: {text}"
        for path in modules
        for text in parts_of_paths(path)
        if names & set(text.split("/"))
    ]


def test_what_files_of_a_run_are_called_is_spelt_once():
    texts = parts_of_paths(SOURCE / "run_folder" / "names.py")
    names = {text for text in texts if text.count(".") == 1}
    beginnings = {text.partition("{")[0] for text in texts if "{" in text} - {""}  # of pictures
    folders = {"explanations", "held-out-sites", "contact_sheets"}
    assert {"predictions.csv", "explanation.json", "gaps.csv"} <= names
    assert beginnings == {"heatmap_", "sampling_", "gallery_"}
    assert folders <= texts
    modules = [path for path in modules_from("run_folder") if path.name != "names.py"]
    spelt = [
        f"{path.relative_to(SOURCE)}: {text}"
        for path in modules
        for text in parts_of_paths(path)
        if names & set(text.split("/")) or text.startswith((*beginnings, *(f"{folder}/" for folder in folders)))
    ]
    assert not spelt


def test_core_modules_never_load_optional_libraries():
    code = (
        "import sys, subfuse.runs.run, subfuse.runs.cross_validation, subfuse.preparation.prepare; "
        "optional = {'torchvision', 'timm', 'transformers', 'lazyslide', 'wsidata', 'openslide', 'distributed', "
        "'sksurv', 'fastapi'}; sys.exit(', '.join(optional & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.strip() == ""
    )


def test_libraries_of_tests_alone_are_never_imported():
    """scikit-survival is under the GPL: whoever installs subfuse need not have it."""
    extras = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [
        extras["dependencies"],
        *(named for name, named in extras["optional-dependencies"].items() if name != "dev"),
    ]
    assert not [text for part in needed for text in part if "scikit-survival" in text]
    of_tests = {"sksurv", "pytest", "hypothesis"}
    assert not [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        if name.partition(".")[0] in of_tests
    ]


def test_every_room_says_what_is_public():
    for folder in [SOURCE, *rooms()]:
        room = import_module(".".join(["subfuse", *folder.relative_to(SOURCE).parts]))
        assert len(set(room.__all__)) == len(room.__all__)
        for name in room.__all__:
            assert not isinstance(getattr(room, name), ModuleType), f"{room.__name__}.{name} is a module"
        assert not hasattr(room, "absent")


def test_whatever_is_no_module_ships():
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = {
        path for pattern in project["tool"]["setuptools"]["package-data"]["subfuse"] for path in SOURCE.glob(pattern)
    }
    assert SOURCE / "py.typed" in shipped  # a type checker sees the package from outside
    others = {path for path in SOURCE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert shipped == others


def test_no_machine_paths_in_the_project():
    root = SOURCE.parents[1]
    folders = ("src", "tests", "benchmarks", "benchmarks/results", "docs", "examples")
    text = [p for folder in folders for p in (root / folder).rglob("*") if "work" not in p.relative_to(root).parts]
    named = [
        p for p in text if p.suffix in {".py", ".md", ".yaml", ".toml"} and ("/wo" + "rk/") in p.read_text("utf-8")
    ]
    assert not named
