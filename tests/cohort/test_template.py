"""The template is a cohort file that shows every section."""

from subfuse.cohort.cohort_file import CohortFile, read_cohort_file
from subfuse.cohort.template import TEMPLATE


def test_template_is_valid_and_has_every_section(write):
    cohort_file = read_cohort_file(write(TEMPLATE))
    shown = {name for name in CohortFile.model_fields if f"\n{name}:" in TEMPLATE}
    of_some = {"cohorts", "batch", "strata"}
    assert shown == set(CohortFile.model_fields) - of_some
    assert all(f"\n# {name}:" in TEMPLATE for name in of_some)
    assert cohort_file.slides is not None
    assert list(cohort_file.tasks or {}) == ["survival", "grade", "diagnosis"]
