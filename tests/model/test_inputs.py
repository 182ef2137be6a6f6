"""What every model refuses: each check names the input and the rows of the batch, and passes what may differ."""

import pytest
import torch
from torch import Tensor

from subfuse.model.inputs import check_finite, check_modalities, check_shapes

BATCH, PATCH, FEATURE, GENE = 4, 3, 5, 6


def shaped() -> dict[str, Tensor]:
    return {
        "patches": torch.zeros(BATCH, PATCH, FEATURE),
        "coords": torch.zeros(BATCH, PATCH, 2),
        "patch_mask": torch.zeros(BATCH, PATCH, dtype=torch.bool),
        "expression": torch.zeros(BATCH, GENE),
        "expression_mask": torch.zeros(BATCH, dtype=torch.bool),
    }


def test_shapes_that_fit_pass_for_any_number_of_genes_and_features():
    check_shapes(**shaped())
    check_shapes(**shaped() | {"expression": torch.zeros(BATCH, 0), "patches": torch.zeros(BATCH, PATCH, 1)})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("coords", (BATCH, PATCH, 3)),
        ("coords", (BATCH, PATCH + 1, 2)),
        ("patch_mask", (BATCH, PATCH, 1)),
        ("patch_mask", (BATCH - 1, PATCH)),
        ("expression", (BATCH + 1, GENE)),
        ("expression", (BATCH, 1, GENE)),
        ("expression_mask", (BATCH, 1)),
    ],
)
def test_a_shape_that_does_not_fit_is_named_with_the_one_that_does(name, shape):
    fits = tuple(shaped()[name].shape)
    with pytest.raises(ValueError, match=rf"^{name} must have the shape ") as caught:
        check_shapes(**shaped() | {name: torch.zeros(shape)})
    assert f"{fits} to fit patches. Found {shape}." in str(caught.value)


def test_every_patient_needs_one_modality():
    patch_mask = torch.tensor([[True, False], [False, False], [False, True], [False, False]])
    genes = [torch.zeros(BATCH, 2)]
    check_modalities(patch_mask, torch.tensor([False, True, True, True]), genes)
    with pytest.raises(ValueError, match=r"Found neither in batch rows 1, 3\."):
        check_modalities(patch_mask, torch.tensor([True, False, True, False]), genes)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_expression_must_be_finite_where_it_was_measured(value):
    genes = [torch.zeros(BATCH, 2), torch.zeros(BATCH, 4)]  # of two subspaces
    genes[1][2, 3] = value
    everywhere = torch.ones(BATCH, PATCH, dtype=torch.bool)
    check_modalities(everywhere, torch.tensor([True, True, False, True]), genes)
    with pytest.raises(ValueError, match=r"expression must be finite where .* batch rows 2\."):
        check_modalities(everywhere, torch.ones(BATCH, dtype=torch.bool), genes)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_must_be_finite(value):
    patches = torch.zeros(BATCH, PATCH, FEATURE)
    check_finite(patches)
    patches[0, 1, 2] = patches[3, 2, 4] = value
    with pytest.raises(ValueError, match=r"patches must be finite where .* batch rows 0, 3\."):
        check_finite(patches)
