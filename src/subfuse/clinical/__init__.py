"""Clinical tables: patients, outcomes and labels, from plain tables and portals."""

from subfuse.lazy import on_first_use

_NAMES = {
    "ClinicalTable": "reading",
    "PatientsSection": "source",
    "read_clinical": "reading",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
