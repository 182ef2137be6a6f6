"""Where slides or their ready features are: as the cohort file declares it, and one by one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from subfuse.identifiers import plain_name
from subfuse.settings import FilePath, Section
from subfuse.slides.stain import Stain
from subfuse.slides.tissue import doubt_of_mpp
from subfuse.slides.tissue_rule import FIXED, DeclaredTissue


def _plausible_mpp(mpp: float | None) -> float | None:
    doubt = None if mpp is None else doubt_of_mpp(mpp)
    if doubt is not None:
        raise ValueError(f"must be {doubt}")
    return mpp


class SlidesFrom(Section):
    """What every source of slides or of their ready features may declare."""

    table: FilePath | None = None  # slide_id, patient_id, optional path and mpp: assigns slides to patients
    include: tuple[str, ...] = ()  # slides that are used although they show a recurrence or normal tissue
    kinds: tuple[str, ...] | None = Field(default=None, min_length=1)  # such as DX: only these; None: all
    mpp: float | None = None  # µm per level-0 pixel of every slide that the table gives none for

    @field_validator("mpp")
    @classmethod
    def _plausible(cls, mpp: float | None) -> float | None:
        return _plausible_mpp(mpp)

    @model_validator(mode="before")
    @classmethod
    def _only_own_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given = {key: item for key, item in value.items() if item is not None or key not in _KEYS_OF_ONE}
        places = [key for key in _PLACES if key in given]
        if len(places) > 1:
            raise ValueError(f"give one of `folder`, `features` and `feature_table`, not {' and '.join(places)}")
        if "encoder" in given and "encoder" not in cls.model_fields:
            if set(given) <= {*_KEYS_OF_ONE, *cls.model_fields}:
                raise ValueError("`encoder` names what made `features`; for slides pass --encoder to `subfuse prepare`")
            del given["encoder"]  # an unknown key may stand for `features`: it is named first
        for key in ("tissue", "tiling", "stain"):
            if key in given and key not in cls.model_fields:
                raise ValueError(f"`{key}` says how slides are cut into patches; features are made already")
        return given


class TilingSection(Section):
    """Square patches; what is not declared is as the encoder has it."""

    mpp: float | None = None  # µm per pixel of the images that the encoder sees
    tile_px: int | None = Field(default=None, ge=16, le=8192)  # side of a patch, in these pixels
    overlap_px: int | None = Field(default=None, ge=0)  # of neighbouring patches, in these pixels

    @field_validator("mpp")
    @classmethod
    def _plausible(cls, mpp: float | None) -> float | None:
        return _plausible_mpp(mpp)

    @model_validator(mode="after")
    def _overlap_below_the_side(self) -> "TilingSection":
        if self.tile_px is not None and (self.overlap_px or 0) >= self.tile_px:
            raise ValueError(f"an overlap_px below tile_px, {self.tile_px}, is required, not {self.overlap_px}")
        return self


class SlidesToEncode(SlidesFrom):
    """What slides, whose features are still to be made, may declare beside."""

    tissue: DeclaredTissue = FIXED
    tiling: TilingSection | None = None
    stain: Stain = "none"


class SlideFolder(SlidesToEncode):
    """A folder of slide files and folders of tiles, with a table or without."""

    folder: FilePath  # searched with its subfolders


class SlideList(SlidesToEncode):
    """Slide files and folders of tiles that lie where the table says in its column `path`."""

    table: FilePath

    @model_validator(mode="before")
    @classmethod
    def _somewhere(cls, value: Any) -> Any:
        # an unknown key may stand for the one that is missing: it is named first
        if isinstance(value, dict) and value.get("table") is None and set(value) <= {*_KEYS_OF_ONE, *cls.model_fields}:
            raise ValueError(
                "give a `folder` of slides, a `table` with a `path` column, or both; or `features` or a `feature_table`"
            )
        return value


class FeatureFiles(SlidesFrom):
    """Feature files of another tool."""

    features: FilePath  # the folder that holds them, searched with its subfolders
    concatenate: tuple[FilePath, ...] = ()  # folders of further features of these slides, joined place by place
    encoder: str | None = Field(default=None, min_length=1)  # what made them, where they do not say
    copies: bool = Field(default=False, alias="copy")  # all features into the prepared folder

    @field_validator("encoder")
    @classmethod
    def _names_a_folder(cls, encoder: str | None) -> str | None:
        if encoder is not None:
            plain_name(encoder.replace("/", "-"))  # as `encoder_id` does
        return encoder


class FeatureRows(SlidesFrom):
    """A table of features, a row for each slide."""

    feature_table: FilePath  # slide_id, then one numeric column per feature


_PLACES = ("folder", "features", "feature_table")
_KEYS_OF_ONE = (*_PLACES, "encoder")  # that only some sources have


def _place_of(value: Any) -> str:
    """Returns the key that tells where slides come from."""
    given = value.get if isinstance(value, dict) else lambda key: getattr(value, key, None)
    return next((key for key in _PLACES if given(key) is not None), "table")


SlidesSection = Annotated[
    Annotated[SlideFolder, Tag("folder")]
    | Annotated[FeatureFiles, Tag("features")]
    | Annotated[FeatureRows, Tag("feature_table")]
    | Annotated[SlideList, Tag("table")],
    Discriminator(_place_of),
]


@dataclass(frozen=True)
class SlideSource:
    """Where one slide is. `path` is a slide file, a folder of PNG or JPEG images, or one such image."""

    slide_id: str
    patient_id: str
    path: Path
    mpp: float | None = None  # µm per level-0 pixel where the file does not say; a declared value is preferred
    tissue: str = FIXED  # how tissue is found, see `tissue_rule`
    stain: str = "none"  # how patches are normalised, see `stain`


@dataclass(frozen=True)
class FeatureSource(SlideSource):
    """A slide that comes as features. `path` is a feature file or a zarr store, or the table that has its row."""

    encoder: str | None = None  # as declared, for files that do not name it
    in_table: bool = False
    further: tuple[Path, ...] = ()  # files of further features of this slide, see `concatenated`
    is_copied: bool = False  # into the prepared folder, whatever its layout

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files of the slide's features."""
        return (self.path, *self.further)
