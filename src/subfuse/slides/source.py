"""Where slides or their ready features are: as the cohort file declares it, and one by one."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from subfuse.identifiers import plain_name
from subfuse.settings import FilePath, Section
from subfuse.slides.tissue import doubt_of_mpp


class SlidesSection(Section):
    """Slides or their ready features: a table that assigns them to patients, the place that holds them, or both."""

    table: FilePath | None = None  # slide_id, patient_id, optional path and mpp
    folder: FilePath | None = None  # slide files and folders of tiles, searched with its subfolders
    features: FilePath | None = None  # feature files of another tool instead, searched with its subfolders
    feature_table: FilePath | None = None  # one row per slide instead: slide_id, then one numeric column per feature
    encoder: str | None = Field(default=None, min_length=1)  # what made `features`, where the files do not say
    include: tuple[str, ...] = ()  # slides that are used although they show a recurrence or normal tissue
    mpp: float | None = None  # µm per level-0 pixel of every slide that the table gives none for

    @field_validator("mpp")
    @classmethod
    def _plausible(cls, mpp: float | None) -> float | None:
        doubt = None if mpp is None else doubt_of_mpp(mpp)
        if doubt is not None:
            raise ValueError(f"must be {doubt}")
        return mpp

    @field_validator("encoder")
    @classmethod
    def _names_a_folder(cls, encoder: str | None) -> str | None:
        if encoder is not None:
            plain_name(encoder.replace("/", "-"))  # as `encoder_id` does
        return encoder

    @model_validator(mode="after")
    def _one_source(self) -> "SlidesSection":
        places = [name for name in ("folder", "features", "feature_table") if getattr(self, name) is not None]
        if not places and self.table is None:
            raise ValueError(
                "give a `folder` of slides, a `table` with a `path` column, or both; or `features` or a `feature_table`"
            )
        if len(places) > 1:
            raise ValueError(f"give one of `folder`, `features` and `feature_table`, not {' and '.join(places)}")
        if self.encoder is not None and self.features is None:
            raise ValueError("`encoder` names what made `features`; for slides pass --encoder to `subfuse prepare`")
        return self


@dataclass(frozen=True)
class SlideSource:
    """Where one slide is. `path` is a slide file, a folder of PNG or JPEG images, or one such image."""

    slide_id: str
    patient_id: str
    path: Path
    mpp: float | None = None  # µm per level-0 pixel where the file does not say; a declared value is preferred


@dataclass(frozen=True)
class FeatureSource(SlideSource):
    """A slide that comes as features. `path` is a feature file or a zarr store, or the table that has its row."""

    encoder: str | None = None  # as declared, for files that do not name it
    in_table: bool = False
