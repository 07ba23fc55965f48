"""The report's numbers as words: cells, sentences and provenance, with small counts and private text held back.

Everything here takes plain JSON values and returns text or dictionaries of text for the template.
"""

import math
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

GALLERIES = {
    "raw": "Raw",
    "adjusted": "Confound-adjusted",
    "matched": "Confound-matched",
}
DIRECTIONS = {"brain_to_gene": "brain → genome", "gene_to_brain": "genome → brain"}
METRICS = {  # name -> (title, what it is)
    "auc2afc": ("2AFC accuracy", "own partner preferred to one random other"),
    "R@1": ("R@1", "own partner is the nearest"),
    "R@5": ("R@5", "own partner among the 5 nearest"),
    "R@10": ("R@10", "own partner among the 10 nearest"),
    "median_rank": ("Median rank", "of the own partner; 1 is best"),
    "mean_rank": ("Mean rank", "of the own partner; 1 is best"),
    "mrr": ("MRR", "mean of 1 / rank"),
}
MODELS = {
    "neurohelix": ("NeuroHelix", "this alignment"),
    "ridge_cca": ("Ridge CCA", "linear, same vectors, same people"),
    "pls": ("PLS", "partial least squares: linear, same vectors, same people"),
    "static_brain": ("Static brain", "ridge CCA of the time-averaged image: no dynamics"),
    "connectome": ("Connectome", "ridge CCA of functional connectivity"),
    "linear_snps": ("Linear SNPs", "ridge CCA of components of genotype dosages"),
    "polygenic_scores": ("Polygenic scores", "ridge CCA of a table of scores"),
    "confounds_only": ("Confounds only", "a tower that sees nothing but confounds"),
    "chance": ("Chance", "all similarities alike"),
    "oracle": ("Oracle", "reads the generator's true genetic scores"),
}
VARIABLES = {"mean_fd": "head motion", "ancestry": "ancestry cluster"}
LEVELS = {"mean_fd": "head-motion tertile", "age": "age bin"}  # what is equal within a matched gallery
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "accelerate", "faiss-cpu", "faiss-gpu", "matplotlib")
HASH_LENGTH = 12  # digits shown of a sha256


def count(number: int, least: int) -> str:
    """A count of people for print: 1 to least - 1 become "< least"; zero is told."""
    return f"< {least}" if 0 < number < least else f"{number:,}"


def number(value: float | int | None, metric: str) -> str:
    """A value in the form that suits its metric; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if metric.startswith("R@"):
        return f"{100 * value:.1f} %"
    return f"{value:.1f}" if metric.endswith("rank") else f"{value:.3f}"


def cell(found: Mapping[str, Any] | None, metric: str) -> dict[str, str] | None:
    """Value, interval, p, chance and lift of one metric; None where it was not computed."""
    if not found:
        return None
    lift = found.get("lift")
    unit = " %" if metric.startswith("R@") else ""
    low, high = (number(found[end], metric).removesuffix(" %") for end in ("ci_low", "ci_high"))
    return {
        "value": number(found["value"], metric),
        "interval": f"{low} to {high}{unit}",
        "p": f"{found['p_perm']:.2g}" if found.get("p_perm") is not None else "–",
        "chance": number(found["chance"], metric) if "chance" in found else "",
        "lift": f"{lift:.1f}×" if lift is not None and math.isfinite(lift) else "",
    }


def metric_rows(galleries: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The big table: one group per metric, one row per direction, one cell per gallery."""
    known = {name for gallery in galleries.values() for d in DIRECTIONS for name in gallery.get(d, {})}
    groups = []
    for metric, (title, meaning) in METRICS.items():
        if metric not in known and not metric.startswith("R@"):
            continue
        rows = [
            {
                "direction": words,
                "cells": [
                    (heading, cell(galleries[name].get(direction, {}).get(metric), metric))
                    for name, heading in GALLERIES.items()
                ],
            }
            for direction, words in DIRECTIONS.items()
        ]
        needs = f"needs {5 * int(metric[2:])} people" if metric.startswith("R@") else "nobody to compare with"
        groups.append({"title": title, "meaning": meaning, "rows": rows, "missing": needs})
    return groups


def gallery_sizes(galleries: Mapping[str, Any], least: int) -> list[tuple[str, dict[str, str]]]:
    """Per gallery: people asked for, median number of people among whom each partner was sought."""
    sizes = []
    for name, heading in GALLERIES.items():
        gallery = galleries[name]
        alone = gallery["num_without_distractors"]
        asked = count(gallery["num_anchors"], least)
        if (
            0 < alone < least
        ):  # with the size of another gallery, the exact number would give the small one away
            asked = f"all but < {least}"
        sizes.append(
            (
                heading,
                {"asked": asked, "size": f"{gallery['median_gallery']:g}", "alone": count(alone, least)},
            )
        )
    return sizes


def model_rows(models: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The comparison table: 2AFC of each model in each gallery, both directions."""
    rows = []
    for name in dict.fromkeys([*(m for m in MODELS if m in models), *models]):
        title, meaning = MODELS.get(name, (name.replace("_", " "), ""))
        cells = [
            (
                heading,
                [
                    (words, cell(models[name].get(gallery, {}).get(direction), "auc2afc"))
                    for direction, words in DIRECTIONS.items()
                ],
            )
            for gallery, heading in GALLERIES.items()
        ]
        rows.append({"title": title, "meaning": meaning, "cells": cells})
    return rows


def share_cells(shares: Mapping[str, float | None] | None) -> list[tuple[str, str]] | None:
    """Our share of the oracle's excess over chance, per gallery."""
    if not shares:
        return None
    values = {name: shares.get(name) for name in GALLERIES}
    return [
        (GALLERIES[name], "–" if share is None else f"{100 * share:.0f} %") for name, share in values.items()
    ]


def people_rows(people: Mapping[str, int], least: int) -> list[tuple[str, str]]:
    """Counts of people per fold and without a modality."""
    evaluated, held_out = people["evaluated"], people["test"]
    shown = count(held_out, least)
    if 0 < held_out - evaluated < least:  # the difference would give a small count away
        shown = f"{evaluated:,} or a few more"
    rows = [
        ("Training", count(people["train"], least)),
        ("Validation", count(people["val"], least)),
        ("Held out", shown),
    ]
    if held_out != evaluated:
        rows.append(("Held out and evaluated", count(evaluated, least)))
    words = {"without_brain": "Without a brain vector", "without_genetics": "Without a genome vector"}
    return rows + [(title, count(people[key], least)) for key, title in words.items() if key in people]


def matching_sentences(matching: Mapping[str, Any], num_people: int, least: int) -> list[str]:
    """What the matched gallery holds equal, what it had to drop, and how many people have enough distractors."""
    kept = [LEVELS.get(name, variable(name)) for name in matching["variables"]]
    dropped = [variable(name) for name in matching["dropped"]]
    wanted, share = matching["wanted_distractors"], matching["share_with_enough"]
    sentences = [f"Everybody in a person's gallery has the same {listed(kept)}; relatives are excluded."]
    if not kept:
        sentences = ["Nothing could be matched; relatives are excluded."]
    if dropped:
        sentences.append(
            f"{listed(dropped).capitalize()} {'was' if len(dropped) == 1 else 'were'} dropped from the matching, "
            f"because too few people would have had {wanted} others to be told apart from; what was dropped is "
            "removed by regression only."
        )
    if num_people and 0 < round((1 - share) * num_people) < least:
        told = f"more than {100 * (1 - least / num_people):.0f} %"
    else:
        told = f"{100 * share:.0f} %"
    return [*sentences, f"{told[0].upper() + told[1:]} of people have at least {wanted} such others."]


def confound_sentences(confounds: Mapping[str, Any]) -> list[str]:
    """What the adjusted columns had regressed out, what the table lacked, what training never saw."""
    used = grouped(confounds.get("used", []))
    sentences = [f"Regressed out, with a regression fitted on training people: {listed(used) or 'nothing'}."]
    if confounds.get("ancestry_from_pcs"):
        sentences.append(
            "The table of people names no ancestry: clusters of its genetic principal components stand for it, fitted on "
            "training people."
        )
    if confounds.get("absent"):
        sentences.append(
            f"Asked for, but not in the table of people: {listed(grouped(confounds['absent']))}."
        )
    for name, levels in (confounds.get("unseen") or {}).items():
        many = len(levels) if isinstance(levels, (list, dict)) else levels
        sentences.append(
            f"{variable(name).capitalize()}: {many} {'level' if many == 1 else 'levels'} not seen in training got "
            "the mean effect."
        )
    for modality, told in (confounds.get("harmonised") or {}).items():
        kept = f", keeping the effects of {listed(grouped(told['keep']))}" if told["keep"] else ""
        rest = len(told["unseen"]) + len(told["small"])
        mean = f"; {rest} that training lacks or knows by one person got the mean effect" if rest else ""
        sentences.append(
            f"Before both models the {modality} vectors were harmonised by {variable(told['by'])} (ComBat, fitted on "
            f"training people){kept}{mean}."
        )
    return sentences


def relatives_sentence(relatives: Mapping[str, Any], least: int) -> str:
    """The positive control in one sentence."""
    pairs = relatives.get("pairs", 0)
    if pairs < least:
        few = "no pairs" if pairs == 0 else f"fewer than {least} pairs"
        return f"There are {few} of relatives among the evaluated people, too few for this control."
    return (
        f"Among {pairs} pairs of relatives, a brain prefers the relative's genome to a stranger's in "
        f"{100 * relatives['auc2afc']:.0f} % of comparisons (chance 50 %); for "
        f"{count(relatives['retrieved_instead'], least)} people a relative's genome comes before every stranger's. "
        "These hits are counted apart, never as success."
    )


def encoder_facts(provenance: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What is known of each encoder: name, weights, options; never ids or paths."""
    facts = []
    for modality, title in (("brain", "Brain encoder"), ("genetics", "Genome encoder")):
        known = provenance.get(modality) or {}
        rows = []
        for key, value in leaves({k: v for k, v in known.items() if k != "trained_on"}):
            if isinstance(value, str) and ("/" in value or "\\" in value):
                continue
            rows.append((key.removeprefix("config.").replace("_", " "), short(value)))
        rows.sort(key=lambda row: row[0] not in ("encoder", "weights sha256", "random weights"))
        if trained := known.get("trained_on"):
            rows.append(("trained on split", short(trained.get("split_digest", "not recorded"))))
        facts.append((title, rows))
    return facts


def random_encoders(provenance: Mapping[str, Any]) -> list[str]:
    """Names of the encoders that ran with random, untrained weights."""
    titles = {"brain": "brain encoder", "genetics": "genome encoder"}
    found = [
        title
        for m, title in titles.items()
        if any(
            key.rpartition(".")[2] == "random_weights" and value is True
            for key, value in leaves(provenance.get(m) or {})
        )
    ]
    return found or (["genome encoder"] if provenance.get("random_weights") else [])


def command_words(command: list[str]) -> str:
    """A stage's command line without the paths of this machine."""
    words = []
    for word in command[1:]:
        option, equals, value = word.partition("=")
        if re.search(r"[/\\~]", value if equals else option):
            word = f"{option}=<path>" if equals else "<path>"
        words.append(word)
    script = re.split(r"[/\\]", command[0])[-1]
    return " ".join([f"scripts/{script}", *words])


def software() -> list[tuple[str, str]]:
    """Versions of what is installed, without importing any of it."""
    found = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every scalar of nested dictionaries; lists are left out, they may hold people."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, (str, int, float, bool)):
            yield f"{prefix}{key}", value


def short(value: Any) -> str:
    """A scalar as text; a sha256 by its first digits."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{40,}", value):
        return f"{value[:HASH_LENGTH]}…"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def variable(name: str) -> str:
    """A column of the table of people in words: `mean_fd^2` is "head motion²"."""
    words = []
    for part in re.split(r":| x ", name):
        column, form = part.removesuffix("^2"), "²" if part.endswith("^2") else ""
        if part.startswith("spline("):
            column, form = part[len("spline(") : -1], " (curve)"
        words.append(VARIABLES.get(column, column.replace("_", " ")) + form)
    return " × ".join(words)


def grouped(names: list[str]) -> list[str]:
    """Column names in words, with pcs_1 ... pcs_10 drawn together."""
    components = [name for name in names if re.fullmatch(r"pcs?_?\d+", name, re.IGNORECASE)]
    words = [variable(name) for name in names if name not in components]
    return words + ([f"{len(components)} genetic principal components"] if components else [])


def listed(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
