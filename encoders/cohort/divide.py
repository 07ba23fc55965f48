"""From the options of make_splits to a split: whole families or sites, a given hold-out, relatives pruned."""

from collections.abc import Iterable
from pathlib import Path

from encoders.cohort.config import MakeSplits
from encoders.cohort.kinship import Pair, family_pairs, groups_of
from encoders.cohort.leaving_out import away_from_family, relatives_of, relatives_pruned
from encoders.cohort.splits import FEWEST_FOLDS, Split, make_split
from encoders.cohort.table import Cohort
from encoders.runs.errors import InputError


def divide(
    cohort: Cohort, related: list[Pair], config: MakeSplits, *, sources: Iterable[str] = ()
) -> tuple[Split, dict[str, str]]:
    """The split, and the people who had to be left out of it with the reason of each.

    Args:
        cohort: The people.
        related: Pairs of relatives of the kinship table.
        config: Options.
        sources: Where families come from, in words.

    Raises:
        InputError: sites or people that the table does not have, or folds that would be empty.
    """
    groups = groups_of(cohort, related)
    left_out: dict[str, str] = {}

    def leave(more: dict[str, str]) -> None:
        nonlocal cohort
        left_out.update(more)
        cohort = Cohort(frame=cohort.frame.drop(index=list(more)), path=cohort.path)

    if config.prune_relatives:
        leave(relatives_pruned(cohort.ids, [*related, *family_pairs(cohort)]))
    by_site = config.by == "site" or config.leave_site_out
    sites: dict[str, str] = {}
    if by_site or config.held_out_sites:
        column = cohort.column("site")
        leave({name: "has no site" for name in column.index[column.isna()]})
        sites = {name: str(site) for name, site in cohort.column("site").items()}
    test = _held_out(cohort, config, sites)
    if test:
        leave(relatives_of(test, {name: groups[name] for name in cohort.ids}))
    if by_site:
        leave(away_from_family(groups, {name: sites[name] for name in cohort.ids}))
    num_folds = config.num_folds
    if config.leave_site_out:
        num_folds = len({sites[name] for name in cohort.ids})
        if num_folds < FEWEST_FOLDS:
            raise InputError(
                f"{cohort.path} has {num_folds} sites; leaving one out needs {FEWEST_FOLDS} at least"
            )
    told = " and ".join(sources)
    split = make_split(
        cohort,
        {name: groups[name] for name in cohort.ids},
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        stratify=[name for name in config.stratify if not (by_site and name == "site")],
        num_folds=num_folds,
        units={name: sites[name] for name in cohort.ids} if by_site else None,
        test=[name for name in test if name not in left_out],
        seed=config.seed,
        grouped_by=f"{told or 'nobody related'}; whole sites" if by_site else told,
    )
    return split, left_out


def _held_out(cohort: Cohort, config: MakeSplits, sites: dict[str, str]) -> list[str]:
    if config.held_out_sites:
        known = set(sites.values())
        if unknown := [site for site in config.held_out_sites if site not in known]:
            raise InputError(
                f"--held_out_sites: {unknown[0]!r} is no site of {cohort.path}; {sorted(known)} are"
            )
        return [name for name in cohort.ids if sites[name] in config.held_out_sites]
    if config.held_out_people is None:
        return []
    names = read_ids(config.held_out_people)
    known = set(cohort.ids)
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"{len(unknown)} of {len(names)} people of {config.held_out_people} are not in {cohort.path} (or were left "
            f"out for another reason), e.g. {unknown[0]!r}"
        )
    return names


def read_ids(path: Path) -> list[str]:
    """Subject ids, one per line.

    Raises:
        InputError: no such file, or it is empty.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; a file with one subject id per line was wanted")
    names = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not names:
        raise InputError(f"{path} is empty; one subject id per line was wanted")
    return list(dict.fromkeys(names))
