"""Several sets of features of one slide, of several magnifications or encoders, joined place by place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from subfuse.errors import DataError, counted, preview
from subfuse.features.encoder import is_same_encoder
from subfuse.features.feature_file import FeatureFile, require_whole
from subfuse.features.feature_table import encoder_of_vectors
from subfuse.features.hdf5_files import damage_named
from subfuse.features.store import UNKNOWN_ENCODER
from subfuse.files import sha256_of_json
from subfuse.preparation.slides.slide_search import find_features, without_features
from subfuse.slides.source import FeatureFiles, FeatureSource

_SAME_MPP = 0.01  # by which the pixel sizes that files of one slide record may differ, as a share


@dataclass(frozen=True)
class FeatureSets:
    """Which slides have features in a folder, and in those whose features are to be joined to them."""

    found: Mapping[str, Path]  # by slide, in the first folder
    further: Sequence[Mapping[str, Path]]  # in each other folder
    lacking: Mapping[str, str]  # slides that another folder lacks: the reason why they are not used
    notes: tuple[str, ...]  # on what lies there and is not read

    def source(
        self,
        slide_id: str,
        patient_id: str,
        path: Path,
        mpp: float | None,
        encoder: str | None = None,
        *,
        is_copied: bool = False,
    ) -> FeatureSource:
        """Returns where the features of a slide that lacks none are."""
        further = tuple(folder[slide_id] for folder in self.further)
        return FeatureSource(slide_id, patient_id, path, mpp, encoder=encoder, further=further, is_copied=is_copied)


def find_feature_sets(folder: Path, further: Sequence[Path], encoder: str | None) -> FeatureSets:
    """Looks for the feature files of slides in every folder, see `find_features`.

    Raises:
        DataError: As for `find_features`; or a folder is named twice.
    """
    folders = [folder, *further]
    if len({path.resolve() for path in folders}) < len(folders):
        raise DataError(f"{folder}: other folders are required as slides.concatenate. Found one twice. Remove it.")
    found, notes = [], []
    for path in folders:
        files, unread = find_features(path, encoder)
        found.append(files)
        notes += [f"{path}: {preview(unread)} are not read; slides.encoder names which are"] * bool(unread)
        if bare := without_features(path, files):
            notes.append(f"{path}: of {counted(len(bare), 'slide')} only places of patches are there ({preview(bare)})")
    for path, files in zip(further, found[1:], strict=True):
        extra = sorted(set(files) - set(found[0]))
        notes += [f"{path}: {len(extra)} slides are not in {folder} and are not used ({preview(extra)})"] * bool(extra)
    lacking = {
        slide_id: f"no feature file in {path}"
        for path, files in zip(further, found[1:], strict=True)
        for slide_id in set(found[0]) - set(files)
    }
    return FeatureSets(found[0], found[1:], lacking, tuple(notes))


def notes_of_vectors(vectors: Path, section: FeatureFiles) -> tuple[str, ...]:
    """Returns a note where another encoder is declared than the one that made the vectors of all slides.

    Raises:
        DataError: Further features are to be joined to them.
    """
    if section.concatenate:
        raise DataError(
            f"{vectors}: a folder with a file for each slide is required where slides.concatenate joins further "
            "features. Found one file for all slides. Leave `concatenate` out."
        )
    made = encoder_of_vectors(vectors)
    if made is None or section.encoder is None or is_same_encoder(made, section.encoder):
        return ()
    return (f"the features are of encoder {made}, as {vectors.name} says; slides.encoder says {section.encoder}",)


def concatenated(files: Sequence[FeatureFile], paths: Sequence[Path]) -> FeatureFile:
    """Returns one file of the patches of the first, each with the features of all sets at its place.

    To a patch of the first set come, of each further set, the features of the patch that covers its middle; of several
    that do, of the one in which it lies farthest from the edge. Patches whose middle a set does not cover are left out.
    Vectors of slides, which have no places, are joined as they are.

    Source: the pyramidal concatenation of Li et al. 2021 (DSMIL), who join 5x features to the 20x patches inside.

    Args:
        files: Opened feature files of one slide; those of the finest patches first.
        paths: Where they are, for messages.

    Raises:
        DataError: Some have places and others do not, bags without places, other pixel sizes, or no patch is covered
            by all.
    """
    first, joint = files[0], _described(files)
    if any(file.read_coords is None for file in files):
        _require_vectors(files, paths)
        return replace(joint, read=lambda: np.concatenate(list(map(_rows, files, paths)), axis=1))
    for file, path in zip(files[1:], paths[1:], strict=True):
        if abs(file.level0_mpp / first.level0_mpp - 1) > _SAME_MPP:
            raise DataError(
                f"{path}: the pixel size of {paths[0]} is required, {first.level0_mpp:g} µm at level 0. "
                f"Found {file.level0_mpp:g}. Declare `mpp`, or extract the slide again."
            )
    corners, size = first.places(paths[0])
    rows, is_covered = [np.arange(len(corners))], np.ones(len(corners), bool)
    for file, path in zip(files[1:], paths[1:], strict=True):
        theirs, their_size = file.places(path)
        row, covered = _covering(corners + size / 2, theirs + their_size / 2, their_size)
        rows.append(row)
        is_covered &= covered
    n_left_out = int((~is_covered).sum())
    if n_left_out == len(is_covered):
        raise DataError(
            f"{paths[0]}: patches where {', '.join(map(str, paths[1:]))} has some too are required. Found none of "
            f"{len(is_covered)}. Check that the files are of one slide, with places in pixels of level 0."
        )

    def read() -> np.ndarray:
        parts = [_rows(file, path)[row[is_covered]] for file, path, row in zip(files, paths, rows, strict=True)]
        return np.concatenate(parts, axis=1)

    left_out = f"{n_left_out} of {len(is_covered)} patches are left out: not every set of features covers their middle"
    return replace(
        joint,
        shape=(len(is_covered) - n_left_out, joint.shape[1]),
        read=read,
        read_coords=lambda: corners[is_covered],
        patch_size_level0=size,
        warnings=(*joint.warnings, *([left_out] if n_left_out else [])),
    )


def _described(files: Sequence[FeatureFile]) -> FeatureFile:
    """The first file with what is said of all."""
    of_each = [(file.encoder, file.encoder_sha256, file.shape[1]) for file in files]
    is_known = all(file.encoder != UNKNOWN_ENCODER for file in files)
    return replace(
        files[0],
        layout="+".join(dict.fromkeys(file.layout for file in files)),
        shape=(files[0].shape[0], sum(file.shape[1] for file in files)),
        encoder="+".join(file.encoder for file in files) if is_known else UNKNOWN_ENCODER,
        encoder_sha256=sha256_of_json(of_each),
        warnings=tuple(dict.fromkeys(warning for file in files for warning in file.warnings)),
        dtype=np.float32 if any(file.dtype == np.float32 for file in files) else np.float16,
        array=None,
    )


def _require_vectors(files: Sequence[FeatureFile], paths: Sequence[Path]) -> None:
    """Refuses what can be joined neither by places nor as vectors; names a file without places."""
    without = [(file, path) for file, path in zip(files, paths, strict=True) if file.read_coords is None]
    if len(without) < len(files) or any(file.shape[0] > 1 for file in files):
        file, path = max(without, key=lambda pair: pair[0].shape[0])
        raise DataError(
            f"{path}: features are joined by the places of patches, which all files must have; or every file holds one "
            f"vector of the slide. Found {file.shape[0]} patches without places. Extract the slide again with places, "
            "or declare one folder of features."
        )


def _covering(
    middles: Float[np.ndarray, "patch 2"], theirs: Float[np.ndarray, "other 2"], size: int
) -> tuple[Int[np.ndarray, " patch"], Bool[np.ndarray, " patch"]]:
    """Returns, for each point, the square that holds it farthest from the edge, and whether any does."""
    distance, row = cKDTree(theirs).query(middles, p=np.inf)
    return row, distance <= size / 2


def _rows(file: FeatureFile, path: Path) -> np.ndarray:
    with damage_named(path, "a complete file"):
        rows = np.asarray(file.read()).reshape(file.shape)
    require_whole(rows, path)
    return rows
