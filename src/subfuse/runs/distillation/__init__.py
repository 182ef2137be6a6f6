"""Students of a run's models: their teachers, and a run of students for every fold that has a teacher."""

from subfuse.lazy import on_first_use

_NAMES = {"distil_run": "students", "find_teacher": "teacher"}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
