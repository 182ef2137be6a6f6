"""Folds of several files: the same patients under the same name of a fold."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from subfuse.audit.any_origin.cells import read_splits
from subfuse.audit.any_origin.outcomes import CHECK
from subfuse.audit.findings import Finding

WHY = "Models are compared on patients whom both predict, in the same fold."


def with_folds(tables: Mapping[Path, pd.DataFrame]) -> tuple[dict[Path, pd.DataFrame], list[Finding]]:
    """Returns the files with the folds of the first that has any: the same ones renamed, missing ones filled in."""
    first = next((path for path, table in tables.items() if "fold" in table), None)
    if first is None:
        return dict(tables), []
    tested = _tested(tables[first])
    fold_of = tested.drop_duplicates("patient_id").set_index("patient_id")[["repeat", "fold"]]
    matched, findings = dict(tables), []
    for path, table in tables.items():
        table = table if "repeat" in table or "fold" not in table else table.assign(repeat=fold_of["repeat"].iloc[0])
        if "fold" not in table:
            found = fold_of.reindex(table["patient_id"])
            known = found["fold"].notna().to_numpy()
            table = table.assign(repeat=found["repeat"].to_numpy(), fold=found["fold"].to_numpy())[known]
            text = f"{path.name} has no folds: its patients are ranked within those of {first.name}"
            findings.append(Finding("note", CHECK, text, "Risks of several models have several scales.",
                                    "Add a column fold."))  # fmt: skip
        elif path != first:
            table, finding = _renamed_folds(table, fold_of["fold"], path, first)
            findings += [] if finding is None else [finding]
        matched[path] = table
    return matched, findings


def _tested(table: pd.DataFrame) -> pd.DataFrame:
    table = table.assign(repeat=table["repeat"].fillna(0) if "repeat" in table else 0)
    tested = table[read_splits(table["split"]) == "test"] if "split" in table else table
    return tested[tested["repeat"] == tested["repeat"].min()]


def _renamed_folds(
    table: pd.DataFrame, fold_of: pd.Series, path: Path, first: Path
) -> tuple[pd.DataFrame, Finding | None]:
    """Returns the file with the other's names of the same folds, or what is compared where the folds differ."""
    own = _tested(table).drop_duplicates("patient_id").set_index("patient_id")["fold"]
    common = own.index.intersection(fold_of.index)
    pairs = pd.DataFrame({"own": own[common].astype(str), "other": fold_of[common]}).drop_duplicates()
    if len(pairs) and pairs["own"].is_unique and pairs["other"].is_unique:
        names = dict(zip(pairs["own"], pairs["other"], strict=True))
        return table.assign(fold=[names.get(str(fold), fold) for fold in table["fold"]]), None
    n_same = int((own[common].astype(str) == fold_of[common].astype(str)).sum())
    text = f"{path.name} has other folds than {first.name}: {n_same} of {len(common)} patients are tested in the same"
    return table, Finding("warning", CHECK, text, WHY, "Predict with the same folds.")
