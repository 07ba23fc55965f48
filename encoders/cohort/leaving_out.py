"""Who must be left out so that a split keeps its promise: relatives across sites, relatives of held-out people.

Each function returns id -> reason of the people to leave out; nobody is dropped without being listed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from encoders.cohort.kinship import Pair


def relatives_pruned(ids: Iterable[str], related: Iterable[Pair]) -> dict[str, str]:
    """People to leave out so that no two of the rest are related: those with most relatives first.

    The greedy rule of PLINK's --rel-cutoff and UK Biobank's own list: not the largest unrelated set there is, but
    close to it, and the same every time.
    """
    relatives: dict[str, set[str]] = {name: set() for name in ids}
    for a, b in related:
        if a in relatives and b in relatives and a != b:
            relatives[a].add(b)
            relatives[b].add(a)
    left_out: dict[str, str] = {}
    place = {name: k for k, name in enumerate(relatives)}
    while True:
        name = max(relatives, key=lambda one: (len(relatives[one]), place[one]), default=None)
        if name is None or not relatives[name]:
            return left_out
        for other in relatives.pop(name):
            relatives[other].discard(name)
        left_out[name] = "pruned: has relatives among the people who are kept"


def away_from_family(groups: Mapping[str, str], site: Mapping[str, str]) -> dict[str, str]:
    """People whose family has more members at another site: they would tie two sites together.

    Args:
        groups: Id -> family.
        site: Id -> site.
    """
    members: dict[str, list[str]] = {}
    for name in site:
        members.setdefault(groups[name], []).append(name)
    left_out = {}
    for names in members.values():
        home = Counter(site[name] for name in names).most_common(1)[0][0]
        left_out |= {name: "has relatives at another site" for name in names if site[name] != home}
    return left_out


def relatives_of(held_out: Iterable[str], groups: Mapping[str, str]) -> dict[str, str]:
    """People who are not held out themselves, but belong to the family of somebody who is."""
    held_out = set(held_out)
    families = {groups[name] for name in held_out}
    return {
        name: "has relatives among the held-out people"
        for name, family in groups.items()
        if family in families and name not in held_out
    }
