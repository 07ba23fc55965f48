"""Names of chromosomes: `1`, `chr1` and `NC_000001.11` are the same contig."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from encoders.runs.errors import InputError

_CONTIG_LINE = re.compile(r"##contig=<(.*)>", re.IGNORECASE)
_ID = re.compile(r"(?:^|,)ID=([^,]+)")
_LENGTH = re.compile(r"(?:^|,)length=(\d+)", re.IGNORECASE)
_REFSEQ = re.compile(r"NC_0000(0[1-9]|1\d|2[0-4])\.\d+", re.IGNORECASE)

# Length in bases of the chromosomes of the two human builds in use (GRCh38, GRCh37).
_BUILD_LENGTHS = {
    "1": (248956422, 249250621),
    "2": (242193529, 243199373),
    "3": (198295559, 198022430),
    "4": (190214555, 191154276),
    "5": (181538259, 180915260),
    "6": (170805979, 171115067),
    "7": (159345973, 159138663),
    "8": (145138636, 146364022),
    "9": (138394717, 141213431),
    "10": (133797422, 135534747),
    "11": (135086622, 135006516),
    "12": (133275309, 133851895),
    "13": (114364328, 115169878),
    "14": (107043718, 107349540),
    "15": (101991189, 102531392),
    "16": (90338345, 90354753),
    "17": (83257441, 81195210),
    "18": (80373285, 78077248),
    "19": (58617616, 59128983),
    "20": (64444167, 63025520),
    "21": (46709983, 48129895),
    "22": (50818468, 51304566),
    "X": (156040895, 155270560),
    "Y": (57227415, 59373566),
}


def canonical(name: str) -> str:
    """One name for all spellings of a chromosome: `chr1`, `NC_000001.11` -> `1`; `chrM` -> `MT`.

    A name that follows none of the conventions is returned as it is.
    """
    if match := _REFSEQ.fullmatch(name):
        number = int(match[1])
        return {23: "X", 24: "Y"}.get(number, str(number))
    if name.upper().startswith("NC_012920."):
        return "MT"
    bare = name[3:] if name[:3].lower() == "chr" and len(name) > 3 else name
    if bare.upper() in ("M", "MT"):
        return "MT"
    if bare.upper() in ("X", "Y"):
        return bare.upper()
    return str(int(bare)) if bare.isdecimal() and 1 <= int(bare) <= 22 else name


# PLINK's numbers of the chromosomes that have none; XY and PAR1, PAR2 lie on X, in X's coordinates.
_PLINK_CODES = {"23": "X", "24": "Y", "25": "X", "26": "MT", "XY": "X", "PAR1": "X", "PAR2": "X"}


def plink_contig(code: str) -> str:
    """The contig that a chromosome code of PLINK, BGEN or Oxford files means: `23`, `chr25`, `PAR1` -> `X`.

    Other codes are returned as they are.
    """
    bare = code[3:] if code[:3].lower() == "chr" else code
    return _PLINK_CODES.get(bare.upper(), code)


def find_contig(name: str, available: Iterable[str]) -> str | None:
    """The spelling of contig ``name`` in another file: the same, else its only alias; None if absent."""
    available = list(available)
    if name in available:
        return name
    same = [other for other in available if canonical(other) == canonical(name)]
    if not same:  # PLINK numbers X, Y and MT 23, 24 and 26, also in the VCF files it writes
        same = [
            other for other in available if canonical(plink_contig(other)) == canonical(plink_contig(name))
        ]
    return same[0] if len(same) == 1 else None


def as_spelled(listed: Mapping[str, int | None], present: Iterable[str]) -> dict[str, int | None]:
    """Contigs of a header as the records spell them: a header of `chr1` above records of `1` names one contig.

    Args:
        listed: Contigs of the header, with their lengths.
        present: Contigs of the records.
    """
    present, spelled = set(present), {}
    for name in present:
        spelled.setdefault(canonical(name), []).append(name)
    found: dict[str, int | None] = {}
    for name, length in listed.items():
        same = spelled.get(canonical(name), [])
        found[name if name in present or len(same) != 1 else same[0]] = length
    return found


def spellings(name: str) -> str:
    """The names under which a contig was looked for, for messages."""
    short = canonical(name)
    if short not in _BUILD_LENGTHS:
        return f"{name!r}"
    number = {"X": 23, "Y": 24}.get(short) or int(short)
    return f"'{short}', 'chr{short}' and 'NC_{number:06d}'"


def no_contig(name: str, window: str, path: Path, available: list[str]) -> InputError:
    """What to tell when a file of variants does not have the contig of a window."""
    more = f" and {len(available) - 5} more" if len(available) > 5 else ""
    return InputError(
        f"window {window!r} lies on contig {name!r}, which {path} does not have (looked for {spellings(name)}; it "
        f"has {', '.join(available[:5])}{more}); pass the variants of that contig or drop the window",
        code="E_CONTIG",
    )


def header_contigs(header: Iterable[str]) -> dict[str, int | None]:
    """Contigs of the `##contig` lines of a VCF or .pvar header, with their length where it is given."""
    found: dict[str, int | None] = {}
    for line in header:
        if (match := _CONTIG_LINE.match(line)) and (name := _ID.search(match[1])):
            length = _LENGTH.search(match[1])
            found[name[1]] = int(length[1]) if length else None
    return found


def build_of(lengths: Mapping[str, int]) -> str | None:
    """ "GRCh38" or "GRCh37" if contig lengths say so, else None."""
    votes = [0, 0]
    for name, length in lengths.items():
        for build, known in enumerate(_BUILD_LENGTHS.get(canonical(name), ())):
            votes[build] += length == known
    if votes[0] == votes[1]:
        return None
    return "GRCh38" if votes[0] > votes[1] else "GRCh37"
