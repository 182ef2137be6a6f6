"""How wide patches are on the tissue: features of wider or narrower ones show the network another scale."""

from collections.abc import Collection, Mapping

from subfuse.errors import preview

_SAME = 1.25  # ratio; pixel sizes of scanners at one magnification differ less


def mixed_widths(width_um: Mapping[str, float], *, by_spacing: Collection[str] = ()) -> tuple[str, ...]:
    """Returns a warning where patches of a cohort differ in width.

    Args:
        width_um: Side of the patches of each slide in µm.
        by_spacing: Slides whose files do not record it, so that it is how far the patches lie apart.

    Example:
        >>> mixed_widths({"a": 128.0, "b": 129.3, "c": 512.0})
        ('patches differ in width on the tissue: about 128 µm in 2 slides, 512 µm in 1 (c). A network takes them for \
one scale. Correct mpp where it is wrong, or extract all features at one scale',)
        >>> mixed_widths({"a": 128.0, "b": 129.3})
        ()
    """
    kinds: list[list[str]] = []
    last = 0.0
    for slide, width in sorted(width_um.items(), key=lambda item: item[1]):
        if width > _SAME * last:
            kinds.append([])
        kinds[-1].append(slide)
        last = width
    if len(kinds) < 2:
        return ()
    first, *others = sorted(kinds, key=len, reverse=True)
    found = [f"about {width_um[first[0]]:.0f} µm in {len(first)} slides"]
    found += [f"{width_um[names[0]]:.0f} µm in {len(names)} ({preview(sorted(names), limit=3)})" for names in others]
    remedy = "Correct mpp where it is wrong, or extract all features at one scale"
    doubtful = first if set(first) <= set(by_spacing) else []  # else the usual width is recorded
    if unrecorded := sorted(set(by_spacing).intersection([*(name for names in others for name in names), *doubtful])):
        remedy = (
            f"In {len(unrecorded)} ({preview(unrecorded, limit=3)}) it is only how far patches lie apart: where it is "
            "wrong, write their side in level-0 pixels into the file, as attribute `patch_size_level0` of `coords`. "
            + remedy.replace("Correct mpp", "Else correct mpp")
        )
    return (f"patches differ in width on the tissue: {', '.join(found)}. A network takes them for one scale. {remedy}",)


def beyond_training(width_um: float, trained_um: tuple[float, float]) -> bool:
    """Returns whether patches are clearly narrower than the narrowest of training, or wider than the widest."""
    narrowest, widest = trained_um
    return not narrowest / _SAME <= width_um <= widest * _SAME
