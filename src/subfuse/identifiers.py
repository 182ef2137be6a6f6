"""One rule for names: whatever becomes a folder, a file or a column is a plain name."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from subfuse.errors import preview

# R writes dots where column names have dashes
_BARCODE = re.compile(r"^TCGA([-.])([A-Z0-9]{2})\1([A-Z0-9]{4})(?:\1(\d{2})([A-Z]?).*)?$", re.IGNORECASE)

_BARCODE_WITHIN = re.compile(r"(?<![A-Z0-9])TCGA([-.])([A-Z0-9]{2})\1([A-Z0-9]{4})(?![A-Z0-9])", re.IGNORECASE)


def composed(name: str) -> str:
    """Returns a name with letters and their accents as one character each (Unicode NFC), as most programs write it.

    File names of macOS hold them apart and look the same.

    Example:
        >>> len("Mu\N{COMBINING DIAERESIS}ller"), len(composed("Mu\N{COMBINING DIAERESIS}ller"))
        (7, 6)
    """
    return unicodedata.normalize("NFC", name)


def patient_of_barcode(identifier: str) -> str:
    """Returns the 12-character patient of a TCGA sample, aliquot or slide barcode; others `composed`.

    Example:
        >>> patient_of_barcode("TCGA-02-0047-01Z-00-DX1.4755D138"), patient_of_barcode("case.7")
        ('TCGA-02-0047', 'case.7')
        >>> patient_of_barcode("TCGA.02.0047.01")
        'TCGA-02-0047'
    """
    match = _BARCODE.match(identifier)
    return f"TCGA-{match[2]}-{match[3]}".upper() if match else composed(identifier)


def patient_named_in(name: str) -> str | None:
    """Returns the patient of the TCGA barcode that a name has anywhere, None without one.

    Example:
        >>> patient_named_in("scan_TCGA-02-0047-01Z-00-DX1_20x"), patient_named_in("case 7")
        ('TCGA-02-0047', None)
    """
    match = _BARCODE_WITHIN.search(name)
    return f"TCGA-{match[2]}-{match[3]}".upper() if match else None


def site_of_barcode(identifier: str) -> str | None:
    """Returns the tissue source site (contributing hospital) of a TCGA barcode, None for other identifiers.

    Example:
        >>> site_of_barcode("TCGA-02-0047")
        '02'
    """
    match = _BARCODE.match(identifier)
    return match[2].upper() if match else None


def sample_type_of_barcode(identifier: str) -> int | None:
    """Returns the sample type code (1 primary, 2 recurrent, 10 to 19 normal) where the barcode has one.

    Example:
        >>> sample_type_of_barcode("TCGA-02-0047-02A"), sample_type_of_barcode("TCGA-02-0047")
        (2, None)
    """
    match = _BARCODE.match(identifier)
    return int(match[4]) if match and match[4] else None


def vial_of_barcode(identifier: str) -> str | None:
    """Returns the vial of a sample (A the first one), by which TCGA tells frozen tissue from what was added as FFPE.

    Example:
        >>> vial_of_barcode("TCGA-A6-6650-01B-02R-A277-07"), vial_of_barcode("TCGA-A6-6650-01")
        ('B', None)
    """
    match = _BARCODE.match(identifier)
    return match[5].upper() if match and match[5] else None


_TOLD_APART = 4  # characters
_LOOK_ALIKE = str.maketrans("oilsbz", "011582")
_COMPARED = 50  # names of each side that are compared letter by letter
LONGEST_NAME = 150  # bytes; file systems allow 255 for a name, and ours get prefixes and suffixes
NAME_RULE = (
    f"printable, at most {LONGEST_NAME} bytes, without slash or backslash, not beginning with a dot, =, +, - or @, and "
    "without spaces at either end"
)


def is_plain_name(name: str) -> bool:
    """Returns True for a name that is safe as a folder, a file, a column and a cell of a spreadsheet.

    A slash, a backslash or a leading dot would lead elsewhere; spreadsheets execute what begins with `=`, `+`, `-` or
    `@`, and commands take a leading dash for an option.

    Example:
        >>> is_plain_name("TCGA-02-0047"), is_plain_name("../x"), is_plain_name("=1+1"), is_plain_name("x" * 300)
        (True, False, False, False)
    """
    fits = 0 < len(name.encode(errors="replace")) <= LONGEST_NAME and name.isprintable() and name == name.strip()
    return fits and name[0] not in ".=+-@" and not set(name) & set("/\\")


def plain_name(name: str) -> str:
    """Returns the name, for the validation of files.

    Raises:
        ValueError: It is not a plain name.
    """
    if not is_plain_name(name):
        raise ValueError(f"a name must be {NAME_RULE}")
    return name


def is_plain_label(label: str) -> bool:
    """Returns True for a value that is safe as a class: part of a column's name, never of a path.

    Example:
        >>> is_plain_label("II/III"), is_plain_label("+"), is_plain_label(chr(7)), is_plain_label("x" * 300)
        (True, True, False, False)
    """
    return 0 < len(label.encode(errors="replace")) <= LONGEST_NAME and label.isprintable()


def describe_mismatch(ours: Collection[str], places: Mapping[str, Collection[str]], *, of_ours: str) -> str:
    """Returns why identifiers of two sources may not meet: three of each place, and the nearest pair.

    Args:
        ours: Identifiers of one source.
        places: Where those of the other may be, in words, and what is there; none of `ours` is among them.
        of_ours: What the first are, for the text.

    Example:
        >>> describe_mismatch(["P01", "P02"], {"slides": ["p1", "p2"]}, of_ours="patients")
        'patients: P01, P02; slides: p1, p2; nearest: P01 and p1, which differ only in case, zeros or separators'
        >>> describe_mismatch(["01", "02"], {"columns": ["X01", "X02"]}, of_ours="patients")  # as R writes them
        'patients: 01, 02; columns: X01, X02; nearest: 01 and X01'
        >>> describe_mismatch(["P 01", "P 09"], {"slides": ["P09_S1", "P01_S1"]}, of_ours="patients")
        'patients: P 01, P 09; slides: P01_S1, P09_S1; nearest: P 01 and P01_S1'
        >>> describe_mismatch(["A01"], {"slides": ["B1"]}, of_ours="patients")
        'patients: A01; slides: B1'
    """
    named = {of_ours: sorted(ours)} | {place: sorted(found) for place, found in places.items()}
    shown = "; ".join(f"{place}: {preview(names, 3) or 'none'}" for place, names in named.items())
    ours, theirs = named.pop(of_ours), sorted(name for names in named.values() for name in names)
    like = {_canonical(name): name for name in reversed(theirs)}
    alike = next(((name, like[_canonical(name)]) for name in ours if _canonical(name) in like), None)
    if alike is not None:
        return f"{shown}; nearest: {alike[0]} and {alike[1]}, which differ only in {difference_of_spelling(*alike)}"
    bare = {_without_prefix(name): name for name in reversed(theirs)}
    pairs = ((name, bare[_without_prefix(name)]) for name in ours if _without_prefix(name) in bare)
    prefixed = next((pair for pair in pairs if any(_canonical(name).isdigit() for name in pair)), None)
    if prefixed is not None:
        return f"{shown}; nearest: {prefixed[0]} and {prefixed[1]}"
    for name in ours[:_COMPARED]:
        longer = next((other for other in theirs if _is_part(name, other) or _is_part(other, name)), None)
        if longer is not None:
            return f"{shown}; nearest: {name} and {longer}"
        near = difflib.get_close_matches(name.lower(), [other.lower() for other in theirs[:_COMPARED]], n=1)
        if near:
            return f"{shown}; nearest: {name} and {next(other for other in theirs if other.lower() == near[0])}"
    return shown


def _is_part(name: str, longer: str) -> bool:
    """Whether one name begins another, or is a part of it between separators, in whatever case."""
    if _canonical(name) in {_canonical(longer[: mark.start()]) for mark in re.finditer(r"[\W_]+", longer)} - {""}:
        return True
    name, longer = name.lower(), longer.lower()
    if longer.startswith(name) or name not in longer:
        return longer.startswith(name)
    return re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", longer) is not None


def spelt_otherwise(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Returns, for each name that is not known but is in another spelling, that difference in words.

    Another spelling is one of other case, zeros or separators; or one of another character, where a single name of
    those that are known and not among `names` is so near, and near to no other.

    Example:
        >>> spelt_otherwise(["P01", "P02", "P03"], ["p1", "P02"])
        {'P01': '; p1 is, which differs only in case, zeros or separators'}
        >>> spelt_otherwise(["G2"], ["g2", "g3"])
        {'G2': '; g2 is, which differs only in case'}
        >>> spelt_otherwise(["PT-O07", "PT-017"], ["PT-007", "PT-017", "PT-119"])
        {'PT-O07': '; PT-007 is, which differs in one character'}
    """
    names, exact = list(names), frozenset(known)
    others = [name for name in dict.fromkeys(names) if name not in exact]
    alike = same_but_for_spelling(others, exact)
    found = {n: f"; {other} is, which differs only in {difference_of_spelling(n, other)}" for n, other in alike.items()}
    near = _one_character_away([name for name in others if name not in found], exact.difference(names))
    return found | {name: f"; {other} is, which differs in one character" for name, other in near.items()}


def same_but_for_spelling(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Returns the known counterpart of each name that differs from it at most in case, zeros or separators.

    Example:
        >>> same_but_for_spelling(["p1", "p_01", "P2"], ["P01"])
        {'p1': 'P01', 'p_01': 'P01'}
        >>> same_but_for_spelling(["0100", "100"], ["100.0"])
        {'0100': '100.0', '100': '100.0'}
    """
    like = {_canonical(name): name for name in sorted(known, reverse=True)}
    return {name: like[_canonical(name)] for name in names if _canonical(name) in like}


def _one_character_away(names: Sequence[str], known: Collection[str]) -> dict[str, str]:
    """Returns pairs of names and known ones that are alike but for one character: another, missing, added or moved.

    Letters and digits that look alike come before others; what has several counterparts is left out.
    """
    pairs: dict[str, str] = {}
    for forms in (_look, _without_each_character):
        by_form: dict[str, set[str]] = {}
        for other in known if names else ():
            for form in forms(other):
                by_form.setdefault(form, set()).add(other)
        left = [name for name in names if name not in pairs]
        near = {name: set().union(*(by_form.get(form, ()) for form in forms(name))) for name in left}
        counts = Counter(other for others in near.values() for other in others)
        pairs |= {name: min(others) for name, others in near.items() if len(others) == 1 == counts[min(others)]}
    return pairs


def _look(name: str) -> set[str]:
    """The name with one digit for letters and digits that look alike."""
    return {name.lower().translate(_LOOK_ALIKE)} if len(name) >= _TOLD_APART else set()


def _without_each_character(name: str) -> set[str]:
    """The name in lower case and with one character left out, for names long enough to be told apart by the others."""
    text = name.lower()
    return {text, *(text[:i] + text[i + 1 :] for i in range(len(text)))} if len(text) >= _TOLD_APART else set()


def difference_of_spelling(name: str, other: str) -> str:
    """Returns in what two names differ that are `same_but_for_spelling`.

    Example:
        >>> difference_of_spelling("G2", "g2"), difference_of_spelling("P01", "p-1")
        ('case', 'case, zeros or separators')
    """
    return "case" if name.lower() == other.lower() else "case, zeros or separators"


def spelling_of_label(label: str) -> str:
    """Returns what labels have in common that differ only in case, zeros or separators.

    Signs stay, and what separates numbers: they may be all that tells two labels apart.

    Example:
        >>> [spelling_of_label(label) for label in ("G 2", "g-2", "G02", "2.0", "02", "IDH-", "IDH+", "1-3", "1.05")]
        ['g2', 'g2', 'g2', '2', '2', 'idh-', 'idh+', '1-3', '1.05']
    """
    text = re.sub(r"^(\d+)\.0+$", r"\1", composed(label).strip().lower())
    text = re.sub(r"(?<=[^\W\d_])[\s_-]+(?=[^\W_])|(?<=\d)[\s_-]+(?=[^\W\d_])", "", text)
    return re.sub(r"(?<![\d.,])0+(?=\d)", "", text)


def _without_prefix(name: str) -> str:
    """The letters and digits of a name without letters before its digits: R writes X01 for 01."""
    return re.sub(r"^[^\W\d_]+(?=\d+$)0*", "", _canonical(name))


def _canonical(name: str) -> str:
    """The letters and digits of a name, in lower case, without leading zeros and those that a float ends in (100.0)."""
    whole = re.sub(r"^(\d+)\.0+$", r"\1", name)
    return re.sub(r"[\W_]+", "", re.sub(r"(?<!\d)0+(?=\d)", "", composed(whole).lower()))
