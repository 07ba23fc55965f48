"""How much of the genotypes is missing: the extremes for everybody to see, the table of people for private eyes.

Glossary: S people.
"""

import numpy as np

from encoders.genetics.haplotypes import WindowHaplotypes


def missing_shares(windows: list[WindowHaplotypes]) -> dict[str, str]:
    """The share of missing calls, and the largest of a window and of a person; nothing where no call is missing."""
    missing = np.stack([window.missing for window in windows])
    if not missing.any():
        return {}
    calls = np.array([max(window.calls, 1) for window in windows])
    of_window = missing.sum(axis=1) / calls
    worst = int(of_window.argmax())
    of_person = missing.sum(axis=0) * missing.shape[1] / calls.sum()
    return {
        "missing_share": f"{missing.sum() / calls.sum():.2%} of all calls; most in window "
        f"{windows[worst].window.name!r}: {of_window[worst]:.2%}; most in one person: {of_person.max():.2%}"
    }


def missing_table(windows: list[WindowHaplotypes], people: list[str]) -> str:
    """TSV, one row per person: id, share of missing calls over all windows, then per window. Names people."""
    names = [window.window.name for window in windows]
    shares = np.stack([w.missing / max(w.calls / len(people), 1) for w in windows], axis=1)
    calls = max(sum(w.calls for w in windows) / len(people), 1)
    overall = np.sum([window.missing for window in windows], axis=0) / calls
    lines = ["\t".join(["participant_id", "all", *names])]
    for name, share, row in zip(people, overall.tolist(), shares.tolist(), strict=True):
        lines.append("\t".join([name, f"{share:.6g}", *(f"{value:.6g}" for value in row)]))
    return "\n".join(lines) + "\n"


def skipped_table(windows: list[WindowHaplotypes]) -> str:
    """TSV of the records with symbolic alleles that somebody carries."""
    rows = [f"{w.window.name}\t{record}" for w in windows for record in w.skipped]
    return "\n".join(["window\trecord", *rows]) + "\n"
