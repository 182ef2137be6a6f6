"""What the report shows of findings and tables of an audit."""

import pandas as pd

from subfuse.audit.findings import Audit, Finding
from subfuse.report.audit_section import audit_section


def section(*findings: Finding, **tables: pd.DataFrame) -> dict:
    found = audit_section(Audit(findings, tables).to_dict())
    assert found is not None
    return found.content
