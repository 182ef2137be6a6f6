"""How slides of a cohort file are to be cut into patches: one tiling for all of them, and the rules of tissue."""

from dataclasses import replace

from subfuse.cohort.cohort_file import CohortFile
from subfuse.errors import ConfigurationError, listed
from subfuse.features.encoder import encoder_tiling
from subfuse.slides.source import SlidesToEncode
from subfuse.slides.tissue import Tiling


def declared_tiling(cohort_file: CohortFile, encoder: str) -> Tiling:
    """Returns the tiling of all slides of a cohort file: that of the encoder, but for what the file declares.

    Raises:
        ConfigurationError: Cohorts declare different ones, or what is declared does not fit the rest.
    """
    own = encoder_tiling(encoder)
    tilings: dict[Tiling, list[str]] = {}
    for member in cohort_file.members:
        if isinstance(member.slides, SlidesToEncode):
            section = member.slides.tiling
            declared = {} if section is None else section.model_dump(exclude_none=True)
            if declared.get("overlap_px", own.overlap_px) >= declared.get("tile_px", own.tile_px):
                raise ConfigurationError(
                    f"{member.name}, slides.tiling: an overlap below the side of a patch is required, which is "
                    f"{declared.get('tile_px', own.tile_px)} px. Found overlap_px {declared['overlap_px']}."
                )
            tilings.setdefault(replace(own, **declared), []).append(member.name)
    if len(tilings) > 1:
        found = listed(f"{tiling} for {listed(names)}" for tiling, names in tilings.items())
        raise ConfigurationError(
            f"slides.tiling: one tiling for all cohorts is required, as for models. Found {found}. Declare the same."
        )
    return next(iter(tilings), own)


def declared_tissue(cohort_file: CohortFile) -> list[str]:
    """Returns how tissue is found on the slides that models are developed on, or on all where there are none."""
    found = [(m.role, m.slides.tissue) for m in cohort_file.members if isinstance(m.slides, SlidesToEncode)]
    developed = [rule for role, rule in found if role == "develop"]
    return sorted({*developed} or {rule for _, rule in found})


def declared_stain(cohort_file: CohortFile) -> str:
    """Returns how the stain of all slides is normalised.

    Raises:
        ConfigurationError: Cohorts declare different ways.
    """
    found = {m.name: m.slides.stain for m in cohort_file.members if isinstance(m.slides, SlidesToEncode)}
    if len(set(found.values())) > 1:
        raise ConfigurationError(
            "slides.stain: one way for all cohorts is required, as for models. Found "
            f"{listed(f'{stain} for {name}' for name, stain in found.items())}. Declare the same."
        )
    return next(iter(found.values()), "none")
