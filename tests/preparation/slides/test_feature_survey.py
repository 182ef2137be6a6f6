"""Feature files of one cohort are of one encoder, whatever tools call it."""

import math

import pytest

from subfuse.errors import DataError
from subfuse.preparation.slides.feature_survey import FeatureHeader, require_one_encoder


def header(encoder: str, n_features: int = 8, layout: str = "TRIDENT") -> FeatureHeader:
    return FeatureHeader(layout, 4, n_features, encoder, "", has_coordinates=True, patch_um=math.nan, warnings=())


def test_two_names_of_one_encoder_have_their_own_remedy() -> None:
    with pytest.raises(DataError, match=r"Found 8 features of uni_v2 in a\.h5; .*Where these are names of one encoder"):
        require_one_encoder([("a.h5", header("uni_v2")), ("b.h5", header("uni2"))])
    for other in (header("uni"), header("uni2", n_features=9)):
        with pytest.raises(DataError, match="Keep one kind in the folder"):
            require_one_encoder([("a.h5", header("uni_v2")), ("b.h5", other)])
    require_one_encoder([("a.h5", header("uni2")), ("b.h5", header("uni2"))])


def test_vectors_of_patients_beside_those_of_slides_are_refused() -> None:
    of_slide, of_patient = header("titan", layout="STAMP"), header("titan", layout="STAMP, of patients")
    with pytest.raises(DataError, match=r"Found 1 of patients \(p\.h5\) beside 2 of slides \(a\.h5, b\.h5\)"):
        require_one_encoder([("a.h5", of_slide), ("b.h5", of_slide), ("p.h5", of_patient)])
    require_one_encoder([("p.h5", of_patient), ("q.h5", of_patient)])
