"""Identifiers: barcodes, plain names, and names that are spelt otherwise."""

from subfuse.identifiers import patient_of_barcode, sample_type_of_barcode


def test_sample_types():
    assert [sample_type_of_barcode(b) for b in ("TCGA-02-0047-11A-01R", "TCGA-02-0047", "x")] == [11, None, None]
    assert patient_of_barcode("TCGA-02-0047X") == "TCGA-02-0047X"
