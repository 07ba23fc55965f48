"""One person looked up across modalities: who is nearest, where the person's own partner ranks, in words or JSON.

Torch-free and pandas-free: `retrieve` has to answer from a cold start in about a second.
"""

import re
from collections.abc import Iterable
from typing import Any

from align.index import Answer, Entry, Neighbour, query
from encoders.runs.errors import InputError

ENTRY_OF = {"fmri": "brain"}  # --from and --to -> beginning of the entry's name, where it differs
USUAL_OTHER = {"fmri": "genetics", "brain": "genetics", "genetics": "fmri"}
THING = {"fmri": "scan", "brain": "scan", "genetics": "genome"}
VECTORS = {"adjusted": "confound-adjusted", "raw": "raw (not adjusted for confounds)"}
NUM_SUGGESTIONS = 3


def thing(modality: str) -> str:
    """The word for what a modality shows of a person."""
    return THING.get(modality, f"{modality} vector")


def vector_of(modality: str) -> str:
    """The word for a person's vector in a modality."""
    return "fMRI vector" if modality == "fmri" else f"{modality} vector"


def look_up(
    source: Entry,
    target: Entry,
    subject: str,
    *,
    modality: str,
    sought: str,
    k: int,
    vectors: str,
    gallery: str,
) -> dict[str, Any]:
    """Everything that the command prints, as JSON values.

    Args:
        source: Opened entry of the modality asked from.
        target: Opened entry of the other modality.
        subject: Subject id.
        modality: What ``source`` is, "fmri" or "genetics" say.
        sought: What ``target`` is.
        k: Number of nearest people, a count.
        vectors: "adjusted" or "raw": what both entries hold.
        gallery: "all" or "test".

    Raises:
        InputError: the subject is unknown, or has no vector in the modality asked from.
    """
    if subject not in source.folds:
        raise InputError(unknown_subject(subject, source.folds))
    if subject not in source.ids:
        elsewhere = (
            f"only a {vector_of(sought)}; use --from {sought}"
            if subject in target.ids
            else "none in the other modality either; look up somebody else"
        )
        raise InputError(f"{subject} has no {vector_of(modality)}, {elsewhere}")
    fold = None if gallery == "all" else gallery
    answer = query(source, target, subject, k=k, fold=fold)
    return {
        "subject": subject,
        "fold": source.folds[subject],
        "held_out": source.folds[subject] == "test",
        "from": modality,
        "to": sought,
        "vectors": vectors,
        "gallery": {"which": gallery, "people": answer.num_gallery, "people_by_fold": answer.num_by_fold},
        "nearest": [_person(person) for person in answer.nearest],
        "own": _own(answer),
        "notes": _notes(answer, source, target, subject, sought, gallery),
    }


def as_table(found: dict[str, Any]) -> str:
    """The result of :func:`look_up` as text for a terminal."""
    asked, sought = thing(found["from"]), thing(found["to"])
    by_fold = ", ".join(f"{count} {fold}" for fold, count in found["gallery"]["people_by_fold"].items())
    width = max([len("subject"), *(len(person["subject"]) for person in found["nearest"])])
    lines = [
        f"Nearest {sought}s to the {asked} of {found['subject']}",
        f"Vectors: {VECTORS[found['vectors']]}. Gallery: {found['gallery']['people']} people ({by_fold or 'none'}).",
        "",
        f"  {'rank':>6}  {'subject':<{width}}  {'similarity':>10}  fold",
    ]
    for person in found["nearest"]:
        mark = f"  <- {found['subject']}'s own {sought}" if person["is_subject"] else ""
        lines.append(
            f"  {person['rank']:>6g}  {person['subject']:<{width}}  {person['similarity']:>10.3f}  "
            f"{person['fold']:<5}{mark}".rstrip()
        )
    lines.append("")
    if own := found["own"]:
        tied = f", tied with {own['tied_with']} others" if own["tied_with"] else ""
        lines.append(
            f"Own {sought}: rank {own['rank']:g} of {found['gallery']['people']}, similarity "
            f"{own['similarity']:.3f}{tied}; nearer than {100 * own['nearer_than']:.0f} % of the others "
            f"(by chance: rank {own['chance_rank']:g}, 50 %)."
        )
    return "\n".join([*lines, *found["notes"]])


def unknown_subject(subject: str, known: Iterable[str]) -> str:
    """The sentence for an id that is not in the study, with ids of similar spelling."""
    known = list(known)
    near = near_matches(subject, known)
    advice = f"did you mean {' or '.join(near)}?" if near else f"ids look like {known[0]}" if known else ""
    return f"no subject {subject!r} among the {len(known)} people of this index; {advice}"


def near_matches(subject: str, known: list[str]) -> list[str]:
    """Ids that differ in prefix, letter case or leading zeros only; else those of similar spelling."""
    import difflib

    same = [name for name in known if _core(name) == _core(subject)]
    return (same or difflib.get_close_matches(subject, known, n=NUM_SUGGESTIONS, cutoff=0.6))[
        :NUM_SUGGESTIONS
    ]


def _core(name: str) -> str:
    """An id without prefix, case and leading zeros: sub-0007, SUB-7, 007 and 7 are all "7"."""
    return re.sub(r"\d+", lambda digits: str(int(digits[0])), name.strip().lower().removeprefix("sub-"))


def _person(person: Neighbour) -> dict[str, Any]:
    return {
        "rank": person.rank,
        "subject": person.subject,
        "similarity": round(person.similarity, 6),
        "fold": person.fold,
        "is_subject": person.is_subject,
    }


def _own(answer: Answer) -> dict[str, Any] | None:
    if answer.own is None:
        return None
    others = answer.num_gallery - 1
    return {
        "rank": answer.own.rank,
        "nearer_than": round(1 - (answer.own.rank - 1) / others, 6) if others else 0.5,
        "similarity": round(answer.own.similarity, 6),
        "tied_with": answer.num_tied,
        "chance_rank": (answer.num_gallery + 1) / 2,
    }


def _notes(
    answer: Answer, source: Entry, target: Entry, subject: str, sought: str, gallery: str
) -> list[str]:
    """What one has to know to read the numbers, one sentence each."""
    fold = source.folds[subject]
    notes = []
    if subject not in target.ids:
        notes.append(f"{subject} has no {vector_of(sought)}: there is no own {thing(sought)} to rank.")
    elif answer.own is None:
        notes.append(
            f"{subject} is in the {fold} fold, not among the held-out people ranked here: no own rank; use --gallery all."
        )
    notes.append(
        {
            "test": f"{subject} was held out (test fold): nothing was trained or chosen on this person.",
            "val": f"{subject} is in the validation fold, which chose when to stop: slightly optimistic.",
            "train": f"{subject} was in training: the model has seen this very pair, so its own rank is optimistic.",
        }[fold]
    )
    return notes
