"""Plants single small faults (mutants) in the scientific modules and counts those that the modules' own tests find.

Cosmic Ray makes the mutants: an operator, a comparison, a number, a truth value changed, a loop not run. Each runs the
tests of its module in a forked process that has the slow libraries already, against a copy of the sources. A mutant
that no test finds, and that is not listed as equivalent in `equivalent_mutants.toml`, survives.

    python benchmarks/mutants.py evaluation/delong training/coordination    # all modules without names
    python benchmarks/mutants.py --sample 30    # of every module that many of its mutants, the same ones for a --seed
"""

import argparse
import ast
import compileall
import contextlib
import gc
import hashlib
import importlib.util
import json
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
OPERATORS = re.compile(
    r"core/(ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_Add|Pow_Mul|BitAnd_BitOr|BitOr_BitAnd"
    r"|BitXor_BitAnd)|ReplaceComparisonOperator_(Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is|Lt_Gt"
    r"|Gt_Lt|LtE_GtE|GtE_LtE)|ReplaceUnaryOperator_Delete_(USub|Invert|Not)|AddNot|Replace(TrueWithFalse|FalseWithTrue"
    r"|AndWithOr|OrWithAnd|BreakWithContinue|ContinueWithBreak)|ExceptionReplacer|NumberReplacer|ZeroIterationForLoop)"
)
SLOW_LIBRARIES = (
    "torch", "pandas", "pyarrow", "scipy.stats", "scipy.optimize", "sklearn.linear_model", "sklearn.isotonic",
    "anndata", "lifelines", "sksurv.metrics", "h5py", "lightning.fabric", "captum.attr", "torchsurv.loss.cox",
    "beartype", "jaxtyping", "pydantic", "matplotlib.figure", "hypothesis.strategies", "torchmil.models",
    "imblearn.metrics", "torchsurv.metrics.cindex", "sksurv.nonparametric", "sksurv.linear_model", "sksurv.compare",
    "sklearn.metrics", "sklearn.calibration", "scipy.special", "safetensors.torch", "lightning",
)  # fmt: skip
# What decides about predictions, their measures and explanations: every module of a folder, or a single module.
ROOMS = (
    "model", "objective", "training", "evaluation", "explanation",
    "cohort/fold", "cohort/given_folds", "cohort/fold_files", "cohort/drawn_folds", "cohort/covariates",
    "expression/units", "expression/doubtful_units", "clinical/glioma",
    "slides/outlines", "slides/stain", "features/registered/slide_encoders",
)  # fmt: skip
TESTS = {
    "model/baselines/cmta": "model/baselines/test_cmta.py model/baselines/test_baselines.py",
    "model/baselines/co_attention": "model/baselines/test_co_attention.py model/baselines/test_baselines.py",
    "model/baselines/expression": "model/baselines/test_expression.py model/baselines/test_baselines.py",
    "model/baselines/fusion": "model/baselines/test_fusion.py model/baselines/test_baselines.py",
    "model/baselines/kronecker_fusion": "model/baselines/test_kronecker_fusion.py model/baselines/test_baselines.py",
    "model/baselines/linear": "model/baselines/test_linear.py model/baselines/test_baselines.py",
    "model/baselines/mcat": "model/baselines/test_mcat.py model/baselines/test_baselines.py",
    "model/baselines/mil": "model/baselines/test_mil.py model/baselines/test_baselines.py",
    "model/baselines/pooling": "model/baselines/test_pooling.py model/baselines/test_baselines.py",
    "model/baselines/survpath": "model/baselines/test_survpath.py model/baselines/test_baselines.py",
    "model/baselines/transmil": "model/baselines/test_transmil.py model/baselines/test_baselines.py",
    "model/biased_attention": "model/test_biased_attention.py model/test_deformable_attention.py",
    "model/deformable_attention": "model/test_deformable_attention.py model/test_subspace_fusion.py",
    "model/fixed_order": "model/test_fixed_order.py",
    "model/gene_encoders": "model/test_gene_encoders.py model/baselines/test_baselines.py",
    "model/inputs": "model/test_inputs.py model/test_subspace_fusion.py model/baselines/test_baselines.py",
    "model/linear_path": "model/test_linear_path.py",
    "model/output": "model/test_output.py model/test_subspace_fusion.py",
    "model/patch_grid": "model/test_patch_grid.py model/test_subspace_fusion.py",
    "model/position_bias": "model/test_position_bias.py model/test_biased_attention.py model/test_subspace_fusion.py",
    "model/released_weights": "model/test_released_weights.py model/test_subspace_fusion.py",
    "model/subspace_fusion": "model/test_subspace_fusion.py model/baselines/test_baselines.py",
    "objective/classification": "objective/test_classification.py objective/test_objective.py objective/test_losses.py",
    "objective/losses": "objective/test_losses.py objective/test_objective.py",
    "objective/objective": "objective/test_objective.py objective/test_losses.py",
    "objective/ordered": "objective/test_ordered.py objective/test_objective.py",
    "objective/penalised": "objective/test_penalised.py",
    "objective/ranking": "objective/test_ranking.py training/test_selection.py",
    "objective/regression": "objective/test_regression.py objective/test_objective.py",
    "objective/stored": "objective/test_stored.py",
    "objective/survival": "objective/test_survival.py objective/test_objective.py objective/test_losses.py",
    "training/checkpoint": "training/test_checkpoint.py",
    "training/coordination": "training/test_coordination.py",
    "training/distillation/lessons": "training/distillation/test_lessons.py",
    "training/distillation/teacher": "training/distillation/test_teacher.py",
    "training/fitted_model": "training/test_fitted_model.py runs/test_compatibility.py",
    "training/fitting": "training/test_fitting.py",
    "training/linear/fit": "training/linear/test_fit.py",
    "training/linear/patients_table": "training/linear/test_patients_table.py",
    "training/linear/path": "training/linear/test_path.py training/test_fitting.py",
    "training/linear/regressions": "training/linear/test_regressions.py training/linear/test_fit.py",
    "training/loggers": "training/test_loggers.py",
    "training/models": "training/test_models.py training/test_trivial_baselines.py training/test_stored_model.py",
    "training/problem": "training/test_problem.py training/test_trivial_baselines.py",
    "training/processes": "training/test_processes.py",
    "training/search": "training/test_search.py",
    "training/seen/distance": "training/seen/test_distance.py",
    "training/seen/expression_effect": "training/seen/test_expression_effect.py",
    "training/seen/inputs": "training/seen/test_inputs.py",
    "training/selection": "training/test_selection.py",
    "training/settings": "training/test_settings.py",
    "training/step": "training/test_step.py",
    "training/stored_model": "training/test_stored_model.py training/test_fitted_model.py runs/test_compatibility.py",
    "training/trainer": "training/test_trainer.py training/test_checkpoint.py",
    "evaluation/benefit/added_value": "evaluation/benefit/test_added_value.py",
    "evaluation/benefit/conformal": "evaluation/benefit/test_conformal.py",
    "evaluation/benefit/decision_curves": "evaluation/benefit/test_decision_curves.py",
    "evaluation/benefit/interaction": "evaluation/benefit/test_interaction.py",
    "evaluation/benefit/optimism": "evaluation/benefit/test_optimism.py",
    "evaluation/bootstrap": "evaluation/test_bootstrap.py evaluation/test_comparisons.py",
    "evaluation/calibration/measures": "evaluation/calibration/test_measures.py evaluation/test_recalibration.py",
    "evaluation/calibration/stages": "evaluation/calibration/test_stages.py evaluation/calibration/test_measures.py "
    "evaluation/test_recalibration.py",
    "evaluation/calibration_slopes": "evaluation/test_calibration_slopes.py",
    "evaluation/censoring": "evaluation/test_censoring.py evaluation/test_metrics.py",
    "evaluation/comparisons": "evaluation/test_comparisons.py",
    "evaluation/delong": "evaluation/test_delong.py",
    "evaluation/floors": "evaluation/test_floors.py evaluation/calibration/test_stages.py "
    "evaluation/calibration/test_measures.py evaluation/test_calibration_slopes.py "
    "evaluation/survival/test_hazard_ratios.py evaluation/survival/test_survival_calibration.py "
    "audit/test_labels.py audit/test_calibration.py audit/confounding/test_strata.py "
    "explanation/cohort/test_enrichment.py report/test_reliance_section.py evaluation/test_strata.py",
    "evaluation/intervals": "evaluation/test_intervals.py",
    "evaluation/metrics": "evaluation/test_metrics.py",
    "evaluation/perfect_order": "evaluation/test_perfect_order.py audit/test_disguised_outcomes.py",
    "evaluation/predictions": "evaluation/test_predictions.py evaluation/test_intervals.py",
    "evaluation/ranked_patients": "evaluation/test_ranked_patients.py evaluation/test_intervals.py",
    "evaluation/recalibration": "evaluation/test_recalibration.py",
    "evaluation/regression/columns": "evaluation/regression/test_columns.py",
    "evaluation/regression/metrics": "evaluation/regression/test_metrics.py",
    "evaluation/regression/outcome": "evaluation/regression/test_outcome.py",
    "evaluation/regression/target_range": "evaluation/regression/test_target_range.py",
    "evaluation/strata": "evaluation/test_strata.py",
    "evaluation/survival/hazard_ratios": "evaluation/survival/test_hazard_ratios.py",
    "evaluation/survival/horizons": "evaluation/survival/test_horizons.py",
    "evaluation/survival/competing_events": "evaluation/survival/test_competing_events.py",
    "evaluation/survival/risk_groups": "evaluation/survival/test_risk_groups.py",
    "evaluation/survival/survival_calibration": "evaluation/survival/test_survival_calibration.py",
    "evaluation/weighted_metrics": "evaluation/test_weighted_metrics.py evaluation/test_metrics.py "
    "evaluation/test_intervals.py",
    "cohort/covariates": "cohort/test_covariates.py",
    "cohort/drawn_folds": "cohort/test_drawn_folds.py",
    "cohort/fold": "cohort/test_fold.py cohort/test_drawn_folds.py cohort/test_given_folds.py",
    "cohort/fold_files": "cohort/test_fold_files.py",
    "cohort/given_folds": "cohort/test_given_folds.py",
    "expression/doubtful_units": "expression/test_doubtful_units.py",
    "expression/units": "expression/test_units.py expression/test_doubtful_units.py expression/test_reading.py",
    "clinical/glioma": "clinical/test_glioma.py",
    "explanation/attribution": "explanation/test_attribution.py",
    "explanation/cohort/cohort_explanation": "explanation/cohort/test_cohort_explanation.py",
    "explanation/cohort/cohort_genes": "explanation/cohort/test_cohort_genes.py",
    "explanation/cohort/enrichment": "explanation/cohort/test_enrichment.py",
    "explanation/cohort/fold_explanation": "explanation/cohort/test_fold_explanation.py",
    "explanation/explained_score": "explanation/test_explained_score.py",
    "explanation/faithfulness": "explanation/test_faithfulness.py explanation/test_occlusion.py",
    "explanation/ground": "explanation/test_ground.py",
    "explanation/heatmaps": "explanation/test_heatmaps.py",
    "explanation/integration": "explanation/test_integration.py",
    "explanation/mudata_export": "explanation/test_mudata_export.py",
    "explanation/patient": "explanation/test_patient.py",
    "explanation/projection": "explanation/test_projection.py",
    "explanation/sampling": "explanation/test_sampling.py",
    "explanation/tile_gallery": "explanation/test_tile_gallery.py",
    "explanation/wsidata_export": "explanation/test_wsidata_export.py",
    "features/registered/slide_encoders": "features/registered/test_slide_encoders.py",
    "slides/outlines": "slides/test_outlines.py",
    "slides/stain": "slides/test_stain.py",
}


@dataclass(frozen=True)
class Mutant:
    """A module with one fault."""

    module: str
    line: int
    change: str  # the line before and after
    source: str


def mutants_of(module: str) -> Iterator[Mutant]:
    """Yields every mutant of a module that Python can compile; how functions are declared is left alone."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    source = (ROOT / "src" / "subfuse" / f"{module}.py").read_text(encoding="utf-8")
    untouched, seen = _computes_nothing(source), {source}
    for name in filter(OPERATORS.fullmatch, operator_names()):
        operator = get_operator(name)()
        places = [place for node in ast_nodes(get_ast(source)) for place in operator.mutation_positions(node)]
        for occurrence, (start, _) in enumerate(places):
            if any(first <= start < last for first, last in untouched):
                continue
            try:
                mutated = mutate_code(source, operator, occurrence)
            except AttributeError:  # Cosmic Ray replaces no exception with a dotted name
                continue
            if mutated in seen:
                continue
            seen.add(mutated)
            with contextlib.suppress(SyntaxError):
                compile(mutated, module, "exec", dont_inherit=True)
                yield Mutant(module, start[0], _changed_line(source, mutated), mutated)


def _computes_nothing(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Returns where stands what computes nothing.

    Annotations, what is imported for them alone, decorators, the stars before keyword arguments, `strict` of `zip`,
    which guards against slips of the programmer, how many names a message shows, and the shades of named colours.
    """
    parts: list[ast.expr | None] = []
    spans: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parts += node.decorator_list
        if isinstance(node, ast.FunctionDef):
            parts.append(node.returns)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            spans.append(((node.lineno, node.col_offset), (node.test.end_lineno or 0, node.test.end_col_offset or 0)))
        if isinstance(node, ast.arg | ast.AnnAssign):
            parts.append(node.annotation)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            parts += [part.value for part in node.keywords if (node.func.id, part.arg) == ("zip", "strict")]
            parts += node.args[1:] if node.func.id == "preview" else []
    parts += [n.value for n in ast.parse(source).body if isinstance(n, ast.Assign) and _is_colour(n.value)]
    spans += [((p.lineno, p.col_offset), (p.end_lineno or 0, p.end_col_offset or 0)) for p in parts if p is not None]
    stars = [(n, match.start()) for n, line in enumerate(source.splitlines(), 1) for match in re.finditer(r"\*,", line)]
    return spans + [(place, (place[0], place[1] + 1)) for place in stars]


def _is_colour(value: ast.expr) -> bool:
    """Returns whether an expression is a colour, red, green and blue, or a tuple of colours."""
    parts = value.elts if isinstance(value, ast.Tuple) else []
    numbers = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, int)]
    return len(numbers) == len(parts) == 3 or (bool(parts) and all(_is_colour(part) for part in parts))


def _changed_line(before: str, after: str) -> str:
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    return next(f"{old.strip()} -> {re.sub(' +', ' ', new.strip())}" for old, new in pairs if old != new)


def run_tests(folder: Path, tests: list[str], cpu_seconds: int) -> int:
    """Returns the exit status of the tests against the sources in a folder; of a process that was ended, 1."""
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
            code = _tests_of_child(folder, tests)
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1


def _tests_of_child(folder: Path, tests: list[str]) -> int:
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.path.insert(0, str(folder))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they are slow to import
    places = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]  # processes of tests must see the fault, too
    os.environ.update(PYTHONPATH=os.pathsep.join(places), PYTHONDONTWRITEBYTECODE="1")
    import hypothesis
    import pytest

    # a slow machine finds no fault
    hypothesis.settings.register_profile("slow", deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    hypothesis.settings.load_profile("slow")
    # without run-time checks of shapes, which find faults that no property of a test does
    options = [
        "-qx",
        "--doctest-modules",
        "--import-mode=importlib",
        "--assert=plain",
        "-pno:cacheprovider",
        "-pno:unraisableexception",  # collects garbage
        "-pno:xdist",
        "-oaddopts=",
        f"--rootdir={ROOT}",
    ]
    return int(pytest.main([*options, "-c", str(ROOT / "pyproject.toml"), *tests]))


def scientific_modules() -> set[str]:
    """Returns the modules of `ROOMS`, by their paths below the package without suffix."""
    package = ROOT / "src" / "subfuse"
    files = [file for room in ROOMS for file in [*(package / room).rglob("*.py"), package / f"{room}.py"]]
    return {
        file.relative_to(package).with_suffix("").as_posix()
        for file in files
        if file.is_file() and file.name != "__init__.py"
    }


def _state_of(module: str) -> str:
    """Returns a hash of a module and its tests: what was found before either changed says nothing of them."""
    files = [ROOT / "src" / "subfuse" / f"{module}.py", *(ROOT / "tests" / name for name in TESTS[module].split())]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def run_module(module: str, folder: Path, log: Path, sample: int | None, seed: int) -> dict[str, int]:
    """Returns how many mutants of a module there are by outcome; what the log says was found is not run again.

    Args:
        module: Its path below the package, without suffix.
        folder: Holds a copy of the package.
        log: Of mutants that were found.
        sample: How many of its mutants to run; None for all.
        seed: Of which, with the module's name.

    Raises:
        RuntimeError: The tests fail without a mutant.
    """
    target = folder / "subfuse" / f"{module}.py"
    tests = [str(target), *(str(ROOT / "tests" / name) for name in TESTS[module].split())]  # its examples are tests too
    original = target.read_text(encoding="utf-8")
    Path(importlib.util.cache_from_source(str(target))).unlink(missing_ok=True)
    state = _state_of(module)
    known = set(log.read_text(encoding="utf-8").splitlines()) if log.exists() else set()
    equivalent = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get(module, {})
    start = time.monotonic()
    if run_tests(folder, tests, 3600):
        raise RuntimeError(
            f"tests of {module} must pass before a fault is planted.\n{(folder / 'output.txt').read_text()}"
        )
    limit = 20 + 5 * int(time.monotonic() - start)
    counts = dict.fromkeys(("killed", "equivalent", "survived"), 0)
    mutants = list(mutants_of(module))
    if sample is not None and sample < len(mutants):
        mutants = random.Random(f"{module} {seed}").sample(mutants, sample)
    for mutant in mutants:
        entry = json.dumps([module, mutant.line, mutant.change, state])
        if mutant.change in equivalent:
            outcome = "equivalent"
        elif entry in known:
            outcome = "killed"
        else:
            target.write_text(mutant.source, encoding="utf-8")
            outcome = "killed" if run_tests(folder, tests, limit) else "survived"
            if outcome == "killed":
                with log.open("a", encoding="utf-8") as file:
                    file.write(f"{entry}\n")
            else:
                print(f"survived {module}:{mutant.line}: {mutant.change}", flush=True)
        counts[outcome] += 1
    target.write_text(original, encoding="utf-8")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(TESTS), help="such as evaluation/delong; all by default")
    parser.add_argument("--log", type=Path, default=ROOT / "build" / "mutants.jsonl", help="what was found already")
    parser.add_argument("--sample", type=int, default=None, help="mutants of each module; all by default")
    parser.add_argument("--seed", type=int, default=0, help="another sample; tests were written after the first")
    options = parser.parse_args()
    options.log.parent.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    for name in SLOW_LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # what was imported is no garbage, in no child
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copytree(ROOT / "src" / "subfuse", folder / "subfuse", ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(folder, quiet=2)
        compileall.compile_dir(ROOT / "tests", quiet=2)
        sys.dont_write_bytecode = True  # one mutant would be taken for another of the same second and length
        print("| module | mutants | killed | equivalent | survived |\n| --- | --- | --- | --- | --- |")
        for module in options.modules:
            counts = run_module(module, folder, options.log, options.sample, options.seed)
            print(f"| `{module}` | {sum(counts.values())} | {' | '.join(map(str, counts.values()))} |", flush=True)


if __name__ == "__main__":
    main()
