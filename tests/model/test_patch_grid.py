import pytest
import torch
from torch import Tensor

from subfuse.model.patch_grid import no_cells, patch_pitch, raster_cells, spatial_cells


def rows(n: int, width: int, pitch: float = 256.0, origin: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    index = torch.arange(n)
    return torch.stack([index % width, index // width], -1) * pitch + torch.tensor(origin)


def everything(coords: Tensor) -> Tensor:
    return torch.ones(coords.shape[:2], dtype=torch.bool)


class TestPitch:
    def test_of_a_regular_grid_with_holes(self):
        coords = rows(900, 30)[torch.randperm(900, generator=torch.Generator().manual_seed(0))[:300]][None]
        torch.testing.assert_close(patch_pitch(coords, everything(coords)), torch.tensor([256.0]))

    def test_of_slides_side_by_side_whose_rows_do_not_line_up(self):
        coords = torch.cat([rows(100, 10), rows(60, 6, origin=(5000.0, 31.7)), rows(49, 7, origin=(9003.0, 17.3))])[
            None
        ]
        torch.testing.assert_close(patch_pitch(coords, everything(coords)), torch.tensor([256.0]))

    def test_ignores_padding(self):
        coords = torch.cat([rows(20, 5), torch.rand(30, 2)])[None]
        mask = torch.arange(50)[None] < 20
        torch.testing.assert_close(patch_pitch(coords, mask), torch.tensor([256.0]))

    def test_of_scattered_patches_follows_their_density(self):
        coords = 1000 * torch.rand(1, 400, 2, generator=torch.Generator().manual_seed(0))
        assert 20 < patch_pitch(coords, everything(coords)) < 80

    def test_of_rows_whose_coordinates_were_rounded(self):
        coords = rows(100, 10) + 2 * torch.rand(100, 2, generator=torch.Generator().manual_seed(0)) - 1
        assert 253 < patch_pitch(coords[None], everything(coords[None])) < 259

    def test_of_a_row_with_a_patch_apart_below_a_patch_of_its_own_row(self):
        x = torch.tensor([0.0, 0.0, 1000.0, 1256.0, 1512.0, 1768.0])
        coords = torch.stack([x, torch.tensor([0.0] + [256.0] * 5)], -1)[None]
        torch.testing.assert_close(patch_pitch(coords, everything(coords)), torch.tensor([256.0]))

    def test_of_a_grid_with_a_stray_patch_or_the_same_patch_twice(self):
        for stray in ((900.0, 512.0), (512.0, 512.0)):
            coords = torch.cat([rows(100, 10), torch.tensor([stray])])[None]
            torch.testing.assert_close(patch_pitch(coords, everything(coords)), torch.tensor([256.0]))

    def test_of_two_patches_is_as_if_they_filled_a_rectangle(self):
        coords = torch.tensor([[[0.0, 0.0], [0.0, 90.0]]])
        assert patch_pitch(coords, everything(coords)).item() == pytest.approx((45 * 135 / 2) ** 0.5)

    def test_of_one_patch_or_a_column(self):
        assert patch_pitch(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[True]])) == 0
        column = torch.stack([torch.zeros(9), 100.0 * torch.arange(9)], -1)[None]
        assert 80 < patch_pitch(column, everything(column)) < 125


class TestSpatialCells:
    def test_patches_keep_their_places_and_tissue_is_centred(self):
        coords = rows(12, 4, origin=(7000.0, -900.0))[None]
        cells = spatial_cells(coords, everything(coords), (7, 10))
        row, column = cells.cell[0] // 10, cells.cell[0] % 10
        assert row.tolist() == [2] * 4 + [3] * 4 + [4] * 4
        assert column.tolist() == [3, 4, 5, 6] * 3

    def test_a_patch_between_two_cells_lies_in_the_nearer_one_in_any_unit(self):
        coords = rows(70, 10)
        coords[[22, 37, 44]] += 256 * torch.tensor([[-0.4, 0.0], [0.0, -0.4], [0.3, 0.4]])
        for unit in (1.0, 1e-4):
            cells = spatial_cells(unit * coords[None], everything(coords[None]), (7, 10), every_cell=True)
            assert cells.token[0].tolist() == list(range(70))

    def test_tissue_that_fills_the_grid(self):
        coords = rows(77, 11)[None]
        cells = spatial_cells(coords, everything(coords), (7, 11))
        assert cells.is_dense
        assert cells.token[0].tolist() == list(range(77))

    def test_larger_tissue_is_binned_evenly_with_the_aspect_kept(self):
        coords = rows(22 * 14, 22)[None]
        cells = spatial_cells(coords, everything(coords), (11, 11))
        count = torch.bincount(cells.cell[0][cells.token[0]] if not cells.is_dense else cells.token[0], minlength=121)
        count = count.view(11, 11)
        assert (count[2:9] == 4).all()
        assert count[:2].sum() == count[9:].sum() == 0

    def test_one_patch_lies_in_the_middle(self):
        cells = spatial_cells(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[True]]), (5, 9))
        assert cells.cell.tolist() == [[2 * 9 + 4]]

    def test_gather_is_the_mean_and_spread_its_transpose_in_sum(self):
        generator = torch.Generator().manual_seed(0)
        coords = rows(60, 10).repeat(2, 1)[None].repeat(2, 1, 1)
        mask = torch.rand(2, 120, generator=generator) < 0.6
        cells = spatial_cells(coords, mask, (4, 5))
        values = torch.randn(2, 120, 3, generator=generator)
        gathered = cells.gather(values)
        for b in range(2):
            for t in range(gathered.shape[1]):
                members = (cells.token[b] == t) & mask[b]
                if cells.token_mask[b, t]:
                    torch.testing.assert_close(gathered[b, t], values[b, members].mean(0))
                else:
                    assert not members.any()
                    assert not gathered[b, t].any()
        received = torch.rand(2, 7, gathered.shape[1], generator=generator) * cells.token_mask[:, None]
        spread = cells.spread(received)
        torch.testing.assert_close(spread.sum(-1), received.sum(-1))
        assert not spread.transpose(1, 2)[~mask].any()


def test_bags_without_patches_have_no_token():
    cells = no_cells(torch.zeros(3, 0, dtype=torch.bool))
    assert cells.cell.shape == cells.token_mask.shape == (3, 0)


@pytest.mark.parametrize("n_real", [1, 5, 12, 30])
def test_raster_cells_repeat_or_thin_in_list_order(n_real):
    mask = torch.zeros(1, 40, dtype=torch.bool)
    real = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:n_real].sort().values
    mask[0, real] = True
    cells = raster_cells(mask, (3, 4))
    expected = [i % n_real if n_real < 12 else i * n_real // 12 for i in range(12)]
    assert cells.patch[0].tolist() == real[expected].tolist()
    spread = cells.spread(torch.ones(1, 2, 12))
    assert spread.sum() == 24
    assert not spread[:, :, ~mask[0]].any()
