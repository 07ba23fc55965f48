"""Connectomes of everyone in the store as SubjectVectors; see :mod:`encoders.brainmt.prediction.connectome`."""

import numpy as np

from encoders.brainmt.connectome_config import ExportConnectome
from encoders.brainmt.prediction.connectome import connectomes
from encoders.brainmt.store import FMRIStore
from encoders.cohort import Split
from encoders.runs.artifact import file_sha256
from encoders.vectors import SubjectVectors


def connectome_vectors(store: FMRIStore, config: ExportConnectome, split: Split) -> SubjectVectors:
    """Vectors of everyone in the store.

    Args:
        store: fMRI store; every run is checked against its sha256.
        config: Options.
        split: Its training people are learned from.

    Raises:
        InputError: as of :func:`encoders.brainmt.prediction.connectome.connectomes`.
    """
    made = connectomes(
        store,
        train=split.train,
        people=store.subjects,
        atlas=config.atlas,
        parcels=config.parcels,
        kinds=[config.kind],
        seed=config.seed,
    )
    learned = sorted(set(split.train) & set(made.ids))
    return SubjectVectors(
        ids=made.ids,
        values=made.features[config.kind].astype(np.float32),
        provenance={
            "encoder": f"{config.kind} connectome",
            "weights_sha256": None,
            "config": {
                "kind": config.kind,
                "parcels": config.parcels,
                "seed": config.seed,
                "atlas_sha256": file_sha256(config.atlas) if config.atlas else None,
            },
            "store_digest": store.digest,
            "trained_on": {"split_digest": split.digest, "ids": learned, "complete": True},
        }
        | made.told,
    )
