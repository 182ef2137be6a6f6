"""A model of which nobody has any input is refused before anything is trained."""

from dataclasses import replace

import pytest

from subfuse.errors import ConfigurationError
from subfuse.runs.required_inputs import require_inputs


def test_a_model_of_which_nobody_has_any_input_is_refused_by_name(make_cohort):
    cohort = make_cohort(4)
    require_inputs(["subspace", "abmil", "snn", "concat", "cox-both"], cohort)
    blind = replace(cohort, patients=tuple(replace(p, slides=()) for p in cohort), covariates=())
    require_inputs(["subspace", "snn", "concat", "mcat"], blind)
    for model, of, key in (
        ("abmil", "slides", "`slides`"), ("clinical", "covariates", "`covariates`"), ("batch", "batch", "`batch`"),
    ):  # fmt: skip
        with pytest.raises(
            ConfigurationError, match=f"models: {model} reads {of}, which nobody of .* has. Declare {key}"
        ):
            require_inputs(["snn", model], blind)
    of_age = replace(blind, patients=tuple(replace(p, expression=None) for p in blind), covariates=("age",))
    require_inputs(["cox", "clinical"], of_age)
