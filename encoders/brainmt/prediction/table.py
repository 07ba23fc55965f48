"""Predictions on disk: the table, one row per person and target, readable by its owner only; and figures."""

import base64
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from encoders.brainmt.prediction.predict import BRAINMT, Predictions
from encoders.runs.artifact import PRIVATE, replacing, write_text

MISSING = "n/a"


def write_table(path: Path, found: Predictions) -> None:
    """Write who was predicted what by which model.

    Columns: participant_id, fold (train, val, test or none; in a cross-validation the number of the fold that was
    held out), unseen, target, observed, then per model its prediction: `predicted` in the unit of the target, or
    `p_<class>`; baselines' columns start with their name. `n/a` is what is missing or belongs to another target.
    """
    classes = list(dict.fromkeys(label for target in found.targets for label in target.classes))
    columns = [f"p_{label}" for label in classes] or ["predicted"]
    models = {name: "" if name == BRAINMT else f"{name}_" for name in found.predicted}
    header = ["participant_id", "fold", "unseen", "target", "observed"]
    header += [prefix + column for prefix in models.values() for column in columns]
    lines = ["\t".join(header)]
    for row in sorted(range(len(found.ids)), key=found.ids.__getitem__):
        fold = found.parts[row] if found.folds is None else str(found.folds[row])
        unseen = MISSING if found.unseen is None else str(bool(found.unseen[row])).lower()
        for k, target in enumerate(found.targets):
            truth = found.wanted[k][row]
            if not math.isfinite(truth):
                observed = MISSING
            else:
                observed = target.classes[int(truth)] if target.classes else f"{truth:.6g}"
            cells = [found.ids[row], fold, unseen, target.name, observed]
            for name in models:
                said = np.atleast_1d(found.predicted[name][k][row])
                own = dict(
                    zip([f"p_{label}" for label in target.classes] or ["predicted"], said, strict=True)
                )
                cells += [f"{own[column]:.6g}" if column in own else MISSING for column in columns]
            lines.append("\t".join(cells))
    write_text(path, "\n".join(lines) + "\n", mode=PRIVATE)


def write_figures(folder: Path, figures: Mapping[str, str], *, private: bool = False) -> None:
    """Write data URIs as SVG or PNG files; ``private``: readable by their owner only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o755)
    for name, uri in figures.items():
        kind, _, data = uri.partition(",")
        ending = "svg" if "svg" in kind else "png"
        with replacing(folder / f"{name}.{ending}") as temporary:
            temporary.write_bytes(base64.b64decode(data))
            temporary.chmod(PRIVATE if private else 0o644)
