"""Small cohorts in the layouts of their origins; each scan is a real NIfTI file on an FSL-like grid."""

import io
import zipfile
from pathlib import Path

import numpy as np


class LayoutTree:
    """Files below `root`.

    Args:
        root: The folder.
        build: The module that makes NIfTI files (`nifti`, `pack`, `bold`, `brain`, `AFFINE`).
        fsl: The module that makes warps.
    """

    def __init__(self, root: Path, build, fsl) -> None:
        self.root, self.build, self.fsl = root, build, fsl
        root.mkdir(parents=True, exist_ok=True)

    def put(self, path: str, content: bytes | str) -> Path:
        """Any file."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def scan_bytes(self, seed: int, *, frames: int = 40, **header) -> bytes:
        """A series whose header says neither MNI nor where it is from (sform code 1, as HCP's of another template)."""
        return self.build.pack(self.build.nifti(self.build.bold(seed, frames), **{"sform": 1, **header}))

    def mask_bytes(self) -> bytes:
        return self.build.pack(self.build.nifti(self.build.brain().astype("u1")))

    def results(
        self, folder: str, names: list[str], *, motion: str = "rms", mask: str = "", seed: int = 0
    ) -> None:
        """One run of an HCP-like pipeline: scans by name, motion file, mask beside it if named."""
        for k, name in enumerate(names):
            self.put(f"{folder}/{name}", self.scan_bytes(seed + k))
        if motion in ("rms", "both"):
            self.put(f"{folder}/Movement_RelativeRMS.txt", "0\n" + "0.08\n" * 39)
        if motion in ("regressors", "both"):
            rows = [
                "0 0 0 0 0 0 0 0 0 0 0 0",
                *(f"{0.1 * (k % 2)} 0 0 {0.1 * (k % 2)} 0 0 0 0 0 0 0 0" for k in range(1, 40)),
            ]
            self.put(f"{folder}/Movement_Regressors.txt", "\n".join(rows) + "\n")
        if mask:
            self.put(f"{folder}/{mask}", self.mask_bytes())

    def ukb_files(
        self, seed: int = 0, *, warped: bool = False, warp: bool = True, par: str = ""
    ) -> dict[str, bytes]:
        """What lies in a zip of field 20227, in the person's own space, and what does not (the warped series)."""
        build, fsl = self.build, self.fsl
        own = build.AFFINE.copy()
        own[:3, 3] += (5, -3, 4)  # the head lies elsewhere in the scanner
        move = np.eye(4)
        move[:3, 3] = (5, -3, 4)
        series = build.pack(build.nifti(build.bold(seed), affine=own, sform=1))
        mask = build.pack(build.nifti(build.brain().astype("u1"), affine=own, sform=1))
        lines = [f"{0.002 * (k % 2)} 0 0 0 0 {0.05 * (k % 2)}" for k in range(40)]  # FD 0.1 + 0.05
        files = {
            "fMRI/rfMRI.ica/filtered_func_data_clean.nii.gz": series,
            "fMRI/rfMRI.ica/mask.nii.gz": mask,
            "fMRI/rfMRI.ica/mc/prefiltered_func_data_mcf.par": (par or "\n".join(lines) + "\n").encode(),
            "fMRI/rfMRI.ica/mc/prefiltered_func_data_mcf_abs.rms": b"9.9\n" * 40,
        }
        if warp:
            field = fsl.warp_field((build.GRID, build.AFFINE), (build.GRID, own), move)
            path = fsl.save_warp(self.root.parent / "warp.nii.gz", field, build.AFFINE)
            files["fMRI/rfMRI.ica/reg/example_func2standard_warp.nii.gz"] = path.read_bytes()
        if warped:
            files["fMRI/filtered_func_data_clean_MNI.nii.gz"] = build.pack(
                build.nifti(build.bold(seed), sform=1)
            )
        return files

    def ukb_zip(self, name: str, files: dict[str, bytes]) -> Path:
        """A zip as UK Biobank's bulk download."""
        return self.put(name, zip_bytes(files))

    def ukb_folder(self, name: str, files: dict[str, bytes]) -> None:
        """The same, unpacked."""
        for inner, content in files.items():
            self.put(f"{name}/{inner}", content)


def zip_bytes(files: dict[str, bytes]) -> bytes:
    """A zip archive of files by name."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return whole.getvalue()
