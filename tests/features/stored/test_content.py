from pathlib import Path

import numpy as np
import pytest

from subfuse.errors import DataError
from subfuse.features.stored.content import CONTENT_HASH, content_sha256, require_content, require_finite

FEATURES = np.arange(6, dtype=np.float16).reshape(3, 2)
COORDS = np.arange(6, dtype=np.int32).reshape(3, 2)
ATTRIBUTES = {"slide_id": "a", "mpp": np.float64(0.25)}


def test_the_hash_is_that_of_values_shapes_types_and_attributes():
    others = [
        (FEATURES, COORDS, ATTRIBUTES),
        (FEATURES + 1, COORDS, ATTRIBUTES),
        (FEATURES.reshape(2, 3), COORDS, ATTRIBUTES),
        (FEATURES.view(np.int16), COORDS, ATTRIBUTES),
        (FEATURES, COORDS[::-1], ATTRIBUTES),
        (FEATURES, COORDS, ATTRIBUTES | {"mpp": 0.5}),
        (FEATURES, COORDS, {"slide_id": "a"}),
    ]
    assert len({content_sha256(*other) for other in others}) == len(others)
    same = content_sha256(np.asfortranarray(FEATURES), COORDS, ATTRIBUTES | {CONTENT_HASH: "any", "mpp": 0.25})
    assert same == content_sha256(*others[0])


def test_other_content_is_the_error_of_who_is_at_fault():
    attributes = ATTRIBUTES | {CONTENT_HASH: content_sha256(FEATURES, COORDS, ATTRIBUTES)}
    require_content(FEATURES, COORDS, attributes, Path("a.h5"), changed=lambda: DataError("the other file"))
    with pytest.raises(DataError, match=r"^the other file$"):
        require_content(FEATURES + 1, COORDS, attributes, Path("a.h5"), changed=lambda: DataError("the other file"))
    for features, path, found in ((FEATURES + 1, "a.h5", "bytes changed"), (FEATURES, "b.h5", "that of slide a")):
        with pytest.raises(DataError, match=rf"{path}: the content .*{found}.*Run `subfuse prepare` again"):
            require_content(features, COORDS, attributes, Path(path))


def test_the_first_patch_that_is_not_finite_is_named():
    require_finite(FEATURES, Path("a.h5"))
    with pytest.raises(DataError, match=r"a\.h5: features must be finite.*1 of 3 patches.*first at row 1"):
        require_finite(np.where(FEATURES == 2, np.float16(np.nan), FEATURES), Path("a.h5"))
