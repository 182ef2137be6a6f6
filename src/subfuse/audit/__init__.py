"""Whether results can be believed: leakage, benefit of fusion, calibration, labels, disguised outcomes."""

from subfuse.audit.any_origin.prediction_files import audit_files
from subfuse.audit.audit import audit_predictions, audit_run
from subfuse.audit.disguised_outcomes import check_inputs
from subfuse.audit.findings import Audit, Finding

__all__ = ["Audit", "Finding", "audit_files", "audit_predictions", "audit_run", "check_inputs"]
