from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor
from transcription import Transcription, random_released, strip

from subfuse.model import (
    SubspaceFusion,
    SubspaceFusionConfig,
    SubspaceFusionOutput,
    SubspaceHead,
    convert_released,
    position_bias_error,
)
from subfuse.model.baselines.pooling import patch_summary
from subfuse.model.output import Ensemble
from subfuse.model.patch_grid import BinnedBags, bin_patches

SMALL = SubspaceFusionConfig(
    n_outputs=3, patch_dim=10, embed_dim=16, grid=(9, 13), table_size=48, heads=4, head_dim=8, offset_groups=2
)
GENE_SETS = {"tumour": (0, 2), "microenvironment": (1, 3, 4), "third": (4, 0, 5, 3)}
N_GENES = 7
FIELDS = ("logits", "subspace_logits", "embedding", "expression_embedding", "sampling_grid")

Batch = dict[str, Tensor]


def small_model(seed: int = 0, **changes) -> SubspaceFusion:
    torch.manual_seed(seed)
    model = SubspaceFusion(replace(SMALL, **changes), GENE_SETS).double().eval()
    with torch.no_grad():  # offsets that use their range, layer norms that are not the identity
        for name, parameter in model.named_parameters():
            if "offset_depthwise" in name or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def bag(n_patches: int, *, seed: int = 0, batch: int = 1, width: int = 11) -> Batch:
    """Patches side by side in rows, 100 µm apart, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(n_patches)
    coords = torch.stack([index % width, index // width], -1) * 100.0 + torch.tensor([5000.0, -300.0])
    return {
        "patches": torch.randn(batch, n_patches, SMALL.patch_dim, generator=generator, dtype=torch.float64),
        "coords": coords.double().expand(batch, -1, -1).clone(),
        "patch_mask": torch.ones(batch, n_patches, dtype=torch.bool),
        "expression": torch.randn(batch, N_GENES, generator=generator, dtype=torch.float64),
        "expression_mask": torch.ones(batch, dtype=torch.bool),
    }


def stack(bags: list[Batch], pad: float = 0.0) -> Batch:
    """One batch of bags of one patient, padded to the longest."""
    longest = max(b["patches"].shape[1] for b in bags)

    def padded(tensor: Tensor, value: float) -> Tensor:
        filling = tensor.new_full((1, longest - tensor.shape[1], *tensor.shape[2:]), value)
        return torch.cat([tensor, filling], 1)

    return {
        "patches": torch.cat([padded(b["patches"], pad) for b in bags]),
        "coords": torch.cat([padded(b["coords"], pad) for b in bags]),
        "patch_mask": torch.cat([padded(b["patch_mask"], False) for b in bags]),
        "expression": torch.cat([b["expression"] for b in bags]),
        "expression_mask": torch.cat([b["expression_mask"] for b in bags]),
    }


def assert_same(found: SubspaceFusionOutput, expected: SubspaceFusionOutput, **tolerance: float) -> None:
    for name in FIELDS:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **tolerance)


def released_pair(
    seed: int,
    dtype: torch.dtype,
    *,
    n_tumour: int,
    n_micro: int,
    n_classes: int,
    patch_dim: int,
    bias: str = "exact",
    side: int | None = None,
) -> tuple[Transcription, SubspaceFusion]:
    released = random_released(
        n_tumour,
        n_micro,
        n_classes,
        seed=seed,
        patch_dim=patch_dim,
        prefix="module." * (seed % 2),
        unused=bool(seed % 2),
    )
    slow = Transcription(n_tumour, n_micro, n_classes, patch_dim=patch_dim)
    slow.load_state_dict(strip(released))
    config, weights = convert_released(released)
    gene_sets = {"tumour": range(n_tumour), "microenvironment": range(n_tumour, n_tumour + n_micro)}
    config = replace(config, position_bias=bias)
    model = SubspaceFusion(config if side is None else replace(config, grid=(side, side)), gene_sets)
    model.load_state_dict(weights)
    return slow.to(dtype).eval(), model.to(dtype).eval()


def released_bag(n_patches: int, patch_dim: int, n_genes: int, dtype: torch.dtype, *, batch: int) -> Batch:
    generator = torch.Generator().manual_seed(n_patches)
    return {
        "patches": torch.randn(batch, n_patches, patch_dim, generator=generator).to(dtype),
        "coords": torch.zeros(batch, n_patches, 2, dtype=dtype),
        "patch_mask": torch.ones(batch, n_patches, dtype=torch.bool),
        "expression": torch.randn(batch, n_genes, generator=generator).to(dtype),
        "expression_mask": torch.ones(batch, dtype=torch.bool),
    }


class TestAgainstTheReleasedModel:
    @pytest.mark.parametrize(("seed", "n_tumour", "n_micro", "n_classes"), [(1, 59, 361, 4)])
    def test_logits_and_grids_in_float32(self, seed, n_tumour, n_micro, n_classes):
        slow, model = released_pair(
            seed, torch.float32, n_tumour=n_tumour, n_micro=n_micro, n_classes=n_classes, patch_dim=32
        )
        inputs = released_bag(2500, 32, n_tumour + n_micro, torch.float32, batch=1)
        with torch.no_grad():
            expected, found = slow(inputs["patches"], inputs["expression"]), model(**inputs)
        assert (found.logits - expected["logits"]).abs().max() < 1e-6
        torch.testing.assert_close(found.sampling_grid, expected["sampling_grid"], atol=1e-4, rtol=0)

    @pytest.mark.parametrize(("seed", "n_tumour", "n_micro", "n_classes"), [(2, 1, 3, 1), (3, 12, 2, 5)])
    def test_logits_and_grids_in_float64(self, seed, n_tumour, n_micro, n_classes):
        sizes = {"n_tumour": n_tumour, "n_micro": n_micro, "n_classes": n_classes, "patch_dim": 24}
        slow, model = released_pair(seed, torch.float64, **sizes, side=22)
        inputs = released_bag(22 * 22, 24, n_tumour + n_micro, torch.float64, batch=3)
        expected, found = slow(inputs["patches"], inputs["expression"]), model(**inputs)
        for name in ("logits", "embedding", "expression_embedding", "sampling_grid"):
            torch.testing.assert_close(getattr(found, name), expected[name], atol=1e-10, rtol=1e-10)

    @pytest.mark.parametrize("bias", ["exact", "table"])
    def test_every_gradient(self, bias):
        slow, model = released_pair(
            3, torch.float64, n_tumour=6, n_micro=9, n_classes=2, patch_dim=8, bias=bias, side=14
        )
        inputs = released_bag(14 * 14, 8, 15, torch.float64, batch=1)
        expected, found = slow(inputs["patches"], inputs["expression"]), model(**inputs)
        tolerance = 1e-10 if bias == "exact" else 1e-5
        torch.testing.assert_close(found.logits, expected["logits"], atol=tolerance, rtol=0)
        direction = torch.randn(
            found.sampling_grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        for logits, grid in ((found.logits, found.sampling_grid), (expected["logits"], expected["sampling_grid"])):
            (logits.square().sum() + 1e-3 * (grid * direction).sum()).backward()
        gradients = {name: p.grad for name, p in slow.named_parameters()}
        invariant = [name for name in gradients if name.endswith("rel_pos_bias.mlp.2.bias")]
        assert len(invariant) == 2  # of each subspace
        assert all(gradients[name].abs().max() < 1e-12 for name in invariant)
        _, converted = convert_released(gradients)
        # The table's gradient is that of the interpolated network, so single small tensors differ more than the whole.
        each, whole = (1e-8, 1e-8) if bias == "exact" else (0.1, 1e-3)
        errors = {name: p.grad - converted[name] for name, p in model.named_parameters()}
        for name, error in errors.items():
            assert error.norm() < each * converted[name].norm(), name
        total = sum(converted[name].square().sum() for name in errors)
        assert sum(error.square().sum() for error in errors.values()) < whole**2 * total

    @pytest.mark.parametrize("n_patches", [1, 300, 2499, 2600, 6001])
    def test_list_order_is_repeated_or_thinned(self, n_patches):
        _, model = released_pair(0, torch.float32, n_tumour=2, n_micro=3, n_classes=2, patch_dim=4, bias="table")
        inputs = released_bag(n_patches, 4, 5, torch.float32, batch=1)
        position = np.arange(2500)
        index = position % n_patches if n_patches < 2500 else position * n_patches // 2500
        filled = released_bag(2500, 4, 5, torch.float32, batch=1) | {
            "patches": inputs["patches"][:, index],
            "expression": inputs["expression"],
        }
        with torch.no_grad():
            assert_same(model(**inputs), model(**filled), atol=1e-5, rtol=1e-5)


class TestLayout:
    @pytest.mark.parametrize("layout", ["spatial", "raster"])
    @pytest.mark.parametrize("bias", ["table", "exact"])
    @pytest.mark.parametrize("n_patches", [1, 8, 40, 110])
    def test_padding_changes_nothing(self, layout, bias, n_patches):
        model = small_model(layout=layout, position_bias=bias)
        bags = [bag(n_patches, seed=1), bag(17, seed=2), bag(300, seed=3, width=20)]
        together = model(**stack(bags, pad=torch.nan))
        for row, alone in enumerate(bags):
            expected = model(**alone)
            for name in FIELDS:
                torch.testing.assert_close(getattr(together, name)[row], getattr(expected, name)[0])

    @pytest.mark.parametrize("n_patches", [5, 60, 117, 400])
    def test_order_of_patches_does_not_matter(self, n_patches):
        model, inputs = small_model(), bag(n_patches, width=18)
        order = torch.randperm(n_patches, generator=torch.Generator().manual_seed(0))
        shuffled = inputs | {name: inputs[name][:, order] for name in ("patches", "coords")}
        assert_same(model(**shuffled), model(**inputs))

    def test_shifting_and_scaling_the_slide_changes_nothing(self):
        model, inputs = small_model(), bag(50)
        assert_same(model(**inputs | {"coords": 2.56 * inputs["coords"] + 10_000}), model(**inputs))

    def test_moving_one_patch_changes_the_result(self):
        model, inputs = small_model(), bag(50)
        swapped = inputs["coords"].clone()
        swapped[:, [0, 40]] = swapped[:, [40, 0]]
        assert (model(**inputs | {"coords": swapped}).logits - model(**inputs).logits).abs().max() > 1e-6

    def test_dense_and_sparse_tokens_agree(self, monkeypatch):
        model, inputs = small_model(), bag(100)
        dense = model(**inputs, need_attention=True)
        monkeypatch.setattr("subfuse.model.patch_grid.DENSE_OCCUPANCY", 1.0)
        sparse = model(**inputs, need_attention=True)
        assert_same(sparse, dense)
        torch.testing.assert_close(sparse.attention, dense.attention)

    def test_patches_of_one_cell_are_averaged(self):
        model, inputs = small_model(), bag(60)
        doubled = {name: value.repeat_interleave(2, 1) for name, value in inputs.items() if value.ndim > 1}
        noise = torch.randn(1, 60, 10, dtype=torch.float64)
        doubled["patches"] += torch.stack([noise, -noise], 2).flatten(1, 2)
        doubled["expression"] = inputs["expression"]
        assert_same(model(**inputs | doubled), model(**inputs))

    @pytest.mark.parametrize("bias", ["table", "exact"])
    def test_bags_binned_before_give_the_same(self, bias):
        sizes = (1, 40, 400, 30)  # four patches to a cell, or one
        bags = [bag(n, seed=n, width=5 if n == 30 else 25) for n in sizes]
        model, everything = small_model(position_bias=bias), stack(bags)
        everything["patch_mask"][3] = False  # as where a modality is hidden
        binned, cells, summaries = [], [], []
        for one in bags:
            means, places, cell = bin_patches(one["patches"][0], one["coords"][0], SMALL.grid)
            assert len(cell) == len(cell.unique()) <= min(one["patches"].shape[1], SMALL.grid[0] * SMALL.grid[1])
            mask = torch.ones(1, len(cell), dtype=torch.bool)
            binned.append({**one, "patches": means[None], "coords": places[None], "patch_mask": mask})
            cells.append(cell)
            summaries.append(patch_summary(one["patches"], one["patch_mask"])[0])
        given = stack(binned, pad=7.0)
        given["patch_mask"][3] = False
        known = BinnedBags(torch.nn.utils.rnn.pad_sequence(cells, batch_first=True), torch.stack(summaries))
        expected, found = model(**everything), model(**given, binned=known)
        for name in FIELDS:
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            Ensemble([model, model])(**given, binned=known).logits, expected.logits, rtol=1e-12, atol=1e-12
        )
        with pytest.raises(ValueError, match=r'layout must be "spatial" where patches are the means.*Found "raster"'):
            small_model(layout="raster")(**given, binned=known)

    def test_without_attention_equal_patches_count_as_one(self):
        model, inputs = small_model(), bag(7)
        with torch.no_grad():
            for subspace in model.subspaces.values():
                subspace.attention.output.weight.zero_()
        inputs["patches"] = inputs["patches"][:, :1].expand(-1, 7, -1)
        one = inputs | {name: inputs[name][:, :1] for name in ("patches", "coords", "patch_mask")}
        torch.testing.assert_close(model(**one).embedding, model(**inputs).embedding)

    def test_a_hundred_thousand_patches(self):
        model, inputs = small_model(), bag(100_000, width=400)
        assert model(**inputs).logits.isfinite().all()


class TestMissingModality:
    @pytest.mark.parametrize("layout", ["spatial", "raster"])
    def test_mixed_batch_equals_single_patients(self, layout):
        model = small_model(layout=layout)
        without_slides, without_expression, complete = bag(30, seed=1), bag(25, seed=2), bag(40, seed=3)
        without_slides["patch_mask"][:] = False
        without_slides["patches"][:] = torch.nan
        without_expression["expression_mask"][:] = False
        without_expression["expression"][:] = torch.nan
        bags = [without_slides, without_expression, complete]
        together = model(**stack(bags), need_attention=True)
        assert together.logits.isfinite().all()
        assert not together.attention[0].any()
        assert not together.expression_embedding[1].any()
        empty = {
            name: value[:, :0] for name, value in without_slides.items() if name in ("patches", "coords", "patch_mask")
        }
        bags[0] = without_slides | empty
        for row, alone in enumerate(bags):
            expected = model(**alone)
            for name in FIELDS:
                torch.testing.assert_close(getattr(together, name)[row], getattr(expected, name)[0])

    def test_without_slides_the_grid_does_not_move(self):
        model, inputs = small_model(), bag(0)
        grid = model(**inputs).sampling_grid
        y, x = np.divmod(np.arange(grid.shape[3]), 3)  # 13 columns of cells: 3 points; 9 rows: 2
        assert grid.shape == (1, 3, 2, 6, 2)
        np.testing.assert_array_equal(grid[0, 1, 1].detach(), np.stack([x, y], -1))

    def test_gradients_are_finite_where_values_are_not(self):
        model, inputs = small_model(), bag(20, batch=2)
        inputs["patch_mask"][0] = False
        inputs["patches"][0] = torch.nan
        inputs["expression_mask"][1] = False
        inputs["expression"][1] = torch.inf
        model(**inputs).logits.square().sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())

    def test_neither_modality_names_the_patients(self):
        model, inputs = small_model(), bag(4, batch=4)
        inputs["patch_mask"][[1, 3]] = False
        inputs["expression_mask"][[1, 2, 3]] = False
        with pytest.raises(ValueError, match="batch rows 1, 3"):
            model(**inputs)


class TestOutput:
    def test_subspace_logits_sum_to_logits(self):
        output = small_model()(**bag(20, batch=2))
        torch.testing.assert_close(output.subspace_logits.sum(1), output.logits)
        assert output.logits.shape == (2, 3)
        assert output.subspace_logits.shape == (2, 3, 3)
        assert output.embedding.shape == output.expression_embedding.shape == (2, 3, 16)
        assert output.attention is None

    def test_one_subspace(self):
        model = SubspaceFusion(SMALL, {"all": range(N_GENES)}).double().eval()
        output = model(**bag(20))
        torch.testing.assert_close(output.subspace_logits[:, 0], output.logits)

    @pytest.mark.parametrize("layout", ["spatial", "raster"])
    @pytest.mark.parametrize("bias", ["table", "exact"])
    def test_attention_is_shared_among_the_patches(self, layout, bias):
        model, inputs = small_model(layout=layout, position_bias=bias), bag(300, width=20, batch=2)
        inputs["patch_mask"][1, 200:] = False
        attention = model(**inputs, need_attention=True).attention
        assert attention.shape == (2, 3, 4, 300)
        assert (attention >= 0).all()
        assert (attention[1, ..., 200:] == 0).all()
        total = attention.sum(-1)
        assert (total < 1 + 1e-9).all()
        if layout == "spatial":
            # All of it, unless every point of a head moved off the tissue.
            assert torch.minimum((total - 1).abs(), total).max() < 1e-3
            assert total.mean() > 0.8

    @pytest.mark.parametrize("bias", ["table", "exact"])
    @pytest.mark.parametrize("layout", ["spatial", "raster"])
    def test_every_parameter_receives_a_gradient(self, bias, layout):
        model = small_model(position_bias=bias, layout=layout).train()
        model(**bag(60, batch=2)).logits.square().sum().backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []

    def test_tabulated_bias_is_close_to_the_exact_one(self):
        table, exact = small_model(table_size=256), small_model(position_bias="exact")
        inputs = bag(60)
        expected = exact(**inputs).logits
        assert (table(**inputs).logits - expected).abs().max() < 1e-4
        assert 0 < position_bias_error(table) < 2e-3
        assert position_bias_error(exact) == 0

    def test_table_error_falls_with_its_size(self):
        errors = [position_bias_error(small_model(table_size=size)) for size in (32, 128, 512)]
        assert errors[0] > errors[1] > errors[2]
        assert errors[0] > 4 * errors[2]

    @pytest.mark.parametrize("bias", ["table", "exact"])
    def test_dropout_only_in_training(self, bias):
        model, inputs = small_model(dropout=0.3, position_bias=bias), bag(60)
        assert_same(model(**inputs), model(**inputs), atol=0, rtol=0)
        model.train()
        torch.manual_seed(1)
        first, second = model(**inputs).logits, model(**inputs).logits
        assert (first - second).abs().max() > 1e-3
        torch.manual_seed(1)
        torch.testing.assert_close(model(**inputs).logits, first)

    @pytest.mark.parametrize("bias", ["table", "exact"])
    def test_bfloat16_autocast(self, bias):
        model, inputs = small_model(position_bias=bias).float(), bag(60)
        inputs = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
        expected = model(**inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model(**inputs)
            found.logits.float().square().sum().backward()
        torch.testing.assert_close(found.logits.float(), expected.logits, atol=3e-2, rtol=3e-2)
        assert found.sampling_grid.dtype == torch.float32
        assert all(p.grad.isfinite().all() for p in model.parameters())


class TestErrors:
    @pytest.mark.parametrize(
        ("gene_sets", "message"),
        [
            ({}, "at least one subspace"),
            ({"a": []}, r"gene_sets\['a'\]"),
            ({"a": [0, -1]}, "-1"),
            ({"a.b": [1]}, "a.b"),
            ({"": [1]}, "''"),
        ],
    )
    def test_gene_sets(self, gene_sets, message):
        with pytest.raises(ValueError, match=message):
            SubspaceFusion(SMALL, gene_sets)

    def test_gene_out_of_range(self):
        with pytest.raises(ValueError, match=r"gene_sets\['b'\].*0 to 5.*Found 6"):
            SubspaceFusion(SMALL, {"a": [0, 5], "b": [2, 6]}, n_genes=6)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"heads": 3}, "offset_groups"),
            ({"offset_kernel": 5}, "offset_kernel"),
            ({"offset_kernel": 2}, "offset_kernel"),
            ({"grid": (3, 9)}, "grid"),
            ({"grid": (9,)}, "grid"),
            ({"grid": (9, 9, 9)}, "grid"),
            ({"n_outputs": 0}, "n_outputs"),
            ({"dropout": 1.0}, "dropout"),
            ({"dropout": -0.1}, "dropout"),
        ],
    )
    def test_config(self, change, message):
        with pytest.raises((ValueError, jaxtyping.TypeCheckError), match=message):
            replace(SMALL, **change)

    def test_the_smallest_sizes_are_no_error(self):
        model = small_model(dropout=0.0, offset_kernel=4, grid=(4, 4))
        assert model(**bag(5)).logits.isfinite().all()

    def test_too_few_genes(self):
        inputs = bag(5)
        inputs["expression"] = inputs["expression"][:, :5]
        with pytest.raises(ValueError, match=r"at least 6.*Found 5"):
            small_model()(**inputs)
        inputs["expression"] = bag(5)["expression"][:, :6]
        small_model()(**inputs)

    @pytest.mark.parametrize("n_genes", [6, 8])
    def test_other_genes_than_declared(self, n_genes):
        model = SubspaceFusion(SMALL, {"a": [0, 1], "b": [3, 5]}, n_genes=7)
        inputs = bag(5)
        inputs["expression"] = torch.zeros(len(inputs["expression"]), n_genes)
        with pytest.raises(ValueError, match=rf"7 columns of n_genes. Found {n_genes}"):
            model(**inputs)

    def test_wrong_patch_width(self):
        inputs = bag(5)
        inputs["patches"] = inputs["patches"][..., :9]
        with pytest.raises(ValueError, match=r"patches must have the 10 features.*Found 9"):
            small_model()(**inputs)

    @pytest.mark.parametrize("name", ["coords", "patch_mask", "expression", "expression_mask"])
    def test_shapes_that_do_not_fit(self, name):
        inputs = bag(5, batch=2)
        inputs[name] = inputs[name][:1]
        with pytest.raises((ValueError, jaxtyping.TypeCheckError), match=name):
            small_model()(**inputs)

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    @pytest.mark.parametrize("name", ["patches", "expression"])
    def test_features_that_are_not_finite(self, name, value):
        inputs = bag(5, batch=3)
        inputs[name][1, 2] = value
        with pytest.raises(ValueError, match=f"{name} must be finite.*batch rows 1"):
            small_model()(**inputs)


def test_head_is_a_linear_layer_on_the_concatenation():
    head = SubspaceHead(2, 3, 5)
    embedding = torch.randn(4, 2, 5)
    linear = torch.nn.functional.linear(embedding.flatten(1), head.weight.transpose(0, 1).flatten(1), head.bias)
    torch.testing.assert_close(head(embedding).sum(1), linear)
