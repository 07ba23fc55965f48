"""One person's resting scan: network time courses shaped by the latents, global signal, motion, noise.

T frames · V in-mask voxels · K latents · 12 networks · R features of the oracle's reader.
An amplitude latent u tilts a pair of networks, exp(+g u) and exp(-g u), with their total power kept, so that
power alone tells nothing; a coupling latent sets the correlation of a pair to tanh(g u).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int16

from encoders.cohort.synthetic.brains import CENTRES, Brain
from encoders.cohort.synthetic.config import NETWORKS, SyntheticCohort

NEURAL_AR, NOISE_AR, GLOBAL_AR = 0.4, 0.3, 0.6  # autocorrelation from one frame to the next
SITE_NOISE = (1.0, 1.25)  # voxel noise by site
LEVEL = 5000.0  # stored integer of the average in-mask voxel
UNIT = 40.0  # stored integers per standard deviation of a voxel's noise
SLOPE = 2.0  # scl_slope: scanner units per stored integer, so that the average voxel holds 10,000
HEAD_RADIUS_MM = 50.0  # turns rotations into displacements (Power et al. 2012)
FIRST, SECOND = np.triu_indices(NETWORKS, k=1)
FEATURES = [f"log_amplitude:{name}" for name in CENTRES] + [
    f"coupling:{list(CENTRES)[a]}:{list(CENTRES)[b]}" for a, b in zip(FIRST, SECOND, strict=True)
]


@dataclass(frozen=True, kw_only=True)
class Person:
    """What a scan depends on: latents (K,), site and sex as 0 or 1, age in years, mean_fd in mm."""

    latents: Float64[np.ndarray, " K"]
    site: int
    sex: int
    age: float
    mean_fd: float


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One run.

    Args:
        values: (T, V) stored integers; times `SLOPE` they are scanner units.
        confounds: Column of the confounds table -> (T,) values; NaN where there is none.
    """

    values: Int16[np.ndarray, "T V"]
    confounds: dict[str, Float64[np.ndarray, " T"]]


def simulate_bold(config: SyntheticCohort, brain: Brain, person: Person, rng: np.random.Generator) -> Scan:
    """Simulate one scan; 5 to 15 ms at 8 mm and 96 frames."""
    frames, num_voxels = config.frames, brain.maps.shape[1]
    courses = _networks(config, person, rng)
    motion, displacement = _motion(person.mean_fd, frames, rng)
    age = (person.age - 56) / 8
    gain = np.exp(0.05 * (person.sex - 0.5) - 0.05 * age)
    level = 0.3 * (1 + 0.1 * age) * _colour(frames, GLOBAL_AR) @ rng.standard_normal(frames)
    level += 0.15 * np.clip((displacement - person.mean_fd) / person.mean_fd, -1, 4)  # spikes with motion
    noise_sd = SITE_NOISE[person.site] * np.exp(0.3 * (person.mean_fd - 0.12)) / config.snr
    average = brain.anatomy + 0.3 * rng.standard_normal(3) @ brain.slopes

    noise = _colour(frames, NOISE_AR).astype(np.float32)
    values = noise @ rng.standard_normal((frames, num_voxels), dtype=np.float32)
    values *= np.float32(noise_sd)
    values += (gain * courses).astype(np.float32) @ brain.maps
    values += level.astype(np.float32)[:, None]
    dvars = np.sqrt(np.square(np.diff(values, axis=0)).mean(axis=1))
    values += (config.anatomy / config.snr * average).astype(np.float32)
    values *= np.float32(UNIT * config.snr)
    values += np.float32(LEVEL)
    stored = np.clip(np.rint(values, out=values), 1, 32767).astype(np.int16)

    confounds = {
        "global_signal": stored.mean(axis=1, dtype=np.float64) * SLOPE,
        "framewise_displacement": np.concatenate([[np.nan], displacement[1:]]),
        "std_dvars": np.concatenate([[np.nan], dvars / np.median(dvars)]).astype(np.float64),
    }
    names = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    return Scan(values=stored, confounds=confounds | dict(zip(names, motion.T, strict=True)))


def read_features(brain: Brain, values: Int16[np.ndarray, "T V"]) -> Float64[np.ndarray, " R"]:
    """What a reader who knows the maps gets from a scan, in the order of `FEATURES`.

    Log standard deviations of the network time courses, and Fisher z of all their correlations.
    """
    scan = values.astype(np.float32)
    courses = ((scan - scan.mean(axis=0)) @ brain.reader).astype(np.float64) / UNIT
    correlation = np.corrcoef(courses.T)[FIRST, SECOND]
    return np.concatenate([np.log(courses.std(axis=0)), np.arctanh(np.clip(correlation, -0.999, 0.999))])


def networks_of(config: SyntheticCohort) -> list[dict[str, object]]:
    """Which networks each latent acts on and how, for `truth.json`."""
    names = list(CENTRES)
    return [
        {
            "latent": k,
            "acts_on": "amplitude" if k < config.amplitude_latents else "coupling",
            "networks": [names[2 * k], names[2 * k + 1]],
        }
        for k in range(config.latents)
    ]


def _networks(
    config: SyntheticCohort, person: Person, rng: np.random.Generator
) -> Float64[np.ndarray, "T 12"]:
    """Time courses with unit variance, coupled and tilted by the latents."""
    kernel = _haemodynamic(config.frames, config.tr)
    courses = kernel @ rng.standard_normal((kernel.shape[1], NETWORKS))
    amplitude = np.exp(0.05 * rng.standard_normal(NETWORKS))
    for k, latent in enumerate(person.latents):
        first, second = 2 * k, 2 * k + 1
        if k < config.amplitude_latents:
            tilt = config.amplitude_gain * latent
            amplitude[[first, second]] *= np.exp([tilt, -tilt]) / np.sqrt(np.cosh(2 * tilt))
        else:
            together = np.tanh(config.coupling_gain * latent)
            courses[:, second] *= np.sqrt(1 - together**2)
            courses[:, second] += together * courses[:, first]
    return courses * amplitude


def _motion(
    mean_fd: float, frames: int, rng: np.random.Generator
) -> tuple[Float64[np.ndarray, "T 6"], Float64[np.ndarray, " T"]]:
    """Realignment parameters (mm, radians) and framewise displacement whose mean is exactly `mean_fd`."""
    steps = rng.standard_normal((frames, 6)) * np.exp(0.4 * rng.standard_normal((frames, 1)))
    steps[0] = 0
    steps[:, 3:] /= HEAD_RADIUS_MM
    displacement = np.abs(steps) @ ([1.0] * 3 + [HEAD_RADIUS_MM] * 3)
    scale = mean_fd / displacement[1:].mean()
    return np.cumsum(steps * scale, axis=0), displacement * scale


@lru_cache(maxsize=8)
def _haemodynamic(frames: int, tr: float) -> Float64[np.ndarray, "T S"]:
    """Matrix from white noise, begun well before the scan, to a unit-variance BOLD series.

    The noise becomes an AR(1) neural series and passes through the double-gamma response of SPM.
    """
    # SciPy only here: `--help` and finished stages need not load it.
    from scipy.stats import gamma

    time = np.arange(0, 32, tr)
    response = gamma.pdf(time, 6) - gamma.pdf(time, 16) / 6
    impulse = np.convolve(NEURAL_AR ** np.arange(16), response)
    impulse /= np.linalg.norm(impulse)
    steps = len(impulse) - 1 + frames
    matrix = np.zeros((frames, steps))
    for frame in range(frames):
        matrix[frame, frame : frame + len(impulse)] = impulse[::-1]
    return matrix


@lru_cache(maxsize=8)
def _colour(frames: int, correlation: float) -> Float64[np.ndarray, "T T"]:
    """Matrix from white noise to a stationary unit-variance AR(1) series."""
    lag = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames)))
    return np.linalg.cholesky(correlation**lag)
