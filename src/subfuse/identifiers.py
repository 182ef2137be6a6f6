"""One rule for names: whatever becomes a folder, a file or a column is a plain name on every system."""

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
