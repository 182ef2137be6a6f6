"""`patients` of a cohort file, read as from the file."""

from pydantic import TypeAdapter

from subfuse.clinical.source import PatientsSection

_SECTION = TypeAdapter(PatientsSection)


def patients_section(**keys) -> PatientsSection:
    return _SECTION.validate_python(keys)
