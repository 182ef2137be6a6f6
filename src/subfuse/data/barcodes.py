"""TCGA barcodes: `TCGA-02-0047-01A-...` names project, tissue source site, patient, then sample type and vial."""

import re

# R writes dots where column names have dashes
_BARCODE = re.compile(r"^TCGA([-.])([A-Z0-9]{2})\1([A-Z0-9]{4})(?:\1(\d{2})([A-Z]?).*)?$", re.IGNORECASE)


def patient_of_barcode(identifier: str) -> str:
    """Returns the 12-character patient of a TCGA sample, aliquot or slide barcode; other identifiers unchanged.

    Example:
        >>> patient_of_barcode("TCGA-02-0047-01Z-00-DX1.4755D138"), patient_of_barcode("case.7")
        ('TCGA-02-0047', 'case.7')
        >>> patient_of_barcode("TCGA.02.0047.01")
        'TCGA-02-0047'
    """
    match = _BARCODE.match(identifier)
    return f"TCGA-{match[2]}-{match[3]}".upper() if match else identifier


def site_of_barcode(identifier: str) -> str | None:
    """Returns the tissue source site (contributing hospital) of a TCGA barcode, None for other identifiers.

    Example:
        >>> site_of_barcode("TCGA-02-0047")
        '02'
    """
    match = _BARCODE.match(identifier)
    return match[2].upper() if match else None


def sample_type_of_barcode(identifier: str) -> int | None:
    """Returns the sample type code (1 primary, 2 recurrent, 10 to 19 normal) where the barcode has one.

    Example:
        >>> sample_type_of_barcode("TCGA-02-0047-02A"), sample_type_of_barcode("TCGA-02-0047")
        (2, None)
    """
    match = _BARCODE.match(identifier)
    return int(match[4]) if match and match[4] else None


def vial_of_barcode(identifier: str) -> str | None:
    """Returns the vial of a sample (A the first one), by which TCGA tells frozen tissue from what was added as FFPE.

    Example:
        >>> vial_of_barcode("TCGA-A6-6650-01B-02R-A277-07"), vial_of_barcode("TCGA-A6-6650-01")
        ('B', None)
    """
    match = _BARCODE.match(identifier)
    return match[5].upper() if match and match[5] else None
