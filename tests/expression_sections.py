"""`expression` of a cohort file, read as from the file."""

from pydantic import TypeAdapter

from subfuse.expression.source import ExpressionSection

_SECTION = TypeAdapter(ExpressionSection)


def expression_section(**keys) -> ExpressionSection:
    return _SECTION.validate_python(keys)
