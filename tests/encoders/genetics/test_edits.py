"""Where a stretch of the reference lies once a haplotype's alleles are written into it."""

import random

from encoders.genetics.edits import apply_edits, edit_of


def random_edits(rng: random.Random, reference: str, start: int, end: int) -> list:
    """Edits that lie in [start, end) and do not begin on its first base, in file order."""
    edits, at = [], start + 1
    while at < end - 4:
        size = rng.randint(1, 4)
        ref = reference[at : at + size]
        alt = rng.choice(
            [rng.choice("ACGT") * size, ref[0], ref + "TT", ref[0] + "".join(rng.choices("ACGT", k=3))]
        )
        if alt != ref:
            edits.append((at, edit_of(ref, alt)))
        at += size + rng.randint(0, 6)
    return edits


def test_a_stretch_without_edits_across_its_borders_is_what_its_own_edits_make_of_it():
    changed = 0
    for seed in range(300):
        rng = random.Random(seed)
        reference = "".join(rng.choices("ACGT", k=120))
        start, end = sorted(rng.sample(range(20, 100), 2))
        inside = random_edits(rng, reference, start, end)
        edits = random_edits(rng, reference, 0, start) + inside + random_edits(rng, reference, end, 120)
        whole = apply_edits(reference, edits)
        alone = apply_edits(reference[start:end], [(at - start, edit) for at, edit in inside])
        first, last = whole.locate(start, end)
        assert whole.bases[first:last] == alone.bases
        changed += alone.bases != reference[start:end]
    assert changed > 200


def test_borders_inside_an_edit_stay_inside_what_it_puts_there():
    deletion = apply_edits("ACGTACGTAC", [(2, edit_of("GTACG", "G"))])
    assert deletion.bases == "ACGTAC"
    assert deletion.locate(0, 4) == (0, 3)  # ends inside: what is left of it
    assert deletion.locate(4, 9) == (3, 5)  # begins inside
    assert deletion.locate(4, 6) == (3, 3)  # lies inside: nothing is left
    replaced = apply_edits("ACGTACGTAC", [(2, edit_of("GTA", "CCCCC"))])
    assert replaced.locate(3, 10) == (3, 12)
