"""Every kind of damage beside healthy scans, through `scripts/prepare_fmri.py`: one code each, siblings untouched."""

import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from scripts.prepare_fmri import main

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("bids_tree", ROOT / "tests/encoders/brainmt/bids_tree.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

DATA = build.bold(1)
PACKED = build.pack(build.nifti(DATA))
RNG = np.random.default_rng(0)


def flip(place: int) -> bytes:
    """The packed scan with one bit flipped; negative places count from the end."""
    damaged = bytearray(PACKED)
    damaged[place // 8] ^= 1 << (place % 8)
    return bytes(damaged)


def bomb() -> bytes:
    """130 kB that claim to be 38 GiB."""
    return build.pack(
        build.nifti(DATA[:1, :1, :1, :1].astype("f4"), dim=(2175, 2175, 2175, 1)) + bytes(2**26)
    )


def with_nan(*, every_frame: bool) -> np.ndarray:
    data = DATA.astype("f4")
    data[2, 3, 2:4, slice(None) if every_frame else 7] = np.nan
    return data


def stored_as(kind: str) -> dict:
    if kind == "rgb":
        return {"data": np.zeros((*build.GRID, 120), "u1"), "code": 128, "bits": 24, "dim": (*build.GRID, 40)}
    return {"data": DATA.astype(kind)}


SLAB = {"data": DATA[:, :, 2:4], "mask": build.brain()[:, :, 2:4]}
SINGULAR = {"affine": np.diag([24.0, 24.0, 0.0, 1.0]), "mask": build.pack(b"")}
HTML = b"<!DOCTYPE html><html><title>Sign in</title></html>"
DAMAGE = {
    **{f"truncated to {n}": ("E_TRUNCATED", {"content": PACKED[:n]}) for n in (100, 2000, len(PACKED) - 1)},
    **{f"bit {n} flipped": ("E_CRC", {"content": flip(n)}) for n in (3, 9, 17, 29, 100, 400, 1500, 3000)},
    **{
        f"bit {n} flipped": ("E_CRC", {"content": flip(int(n))})
        for n in RNG.integers(24000, 8 * len(PACKED), 8)
    },
    "last bit flipped": ("E_CRC", {"content": flip(8 * len(PACKED) - 1)}),
    "zero-length": ("E_NOT_NIFTI", {"content": b""}),
    "HTML": ("E_NOT_NIFTI", {"content": HTML}),
    "HTML packed": ("E_NOT_NIFTI", {"content": build.pack(HTML * 30)}),
    "gzip bomb": ("E_SIZE", {"content": bomb()}),
    "NaN in one frame": ("E_NAN", {"data": with_nan(every_frame=False)}),
    "NaN in all frames": ("E_NAN", {"data": with_nan(every_frame=True)}),
    "NaN, mask computed": ("E_NAN", {"data": with_nan(every_frame=True), "mask": np.zeros(build.GRID, bool)}),
    "TR in ms": ("E_TR", {"tr": 2000.0, "sidecar": {}}),
    "TR in ms, sidecar in s": ("E_TR", {"tr": 2000.0}),
    "TR of 0": ("E_TR", {"tr": 0.0, "sidecar": {}}),
    "TR unlike the sidecar's": ("E_TR", {"sidecar": {"RepetitionTime": 0.8}}),
    "no spatial frame": ("E_AFFINE", {"sform": 0, "qform": 0}),
    "singular affine": ("E_AFFINE", SINGULAR),
    "native space": ("E_SPACE", {"space": "", "sform": 1}),
    "complex": ("E_DTYPE", stored_as("c8")),
    "int64": ("E_DTYPE", stored_as("i8")),
    "RGB": ("E_DTYPE", stored_as("rgb")),
    "slab": ("E_COVERAGE", SLAB),
    "slab without a mask": ("E_COVERAGE", {**SLAB, "mask": np.zeros(build.GRID, bool)}),
    "five frames": ("E_FRAMES", {"frames": 5}),
    "one volume": ("E_FRAMES", {"data": DATA[..., 0]}),
    "stopped": ("E_CONSTANT", {"data": np.where(np.arange(40) < 30, DATA, 0).astype("i2")}),
    "never changing": ("E_CONSTANT", {"data": np.repeat(DATA[..., :1], 40, axis=3)}),
    "moving": ("E_MOTION", {"fd": 1.2}),
}


def runs(store: Path) -> dict[str, tuple]:
    """Header and bytes of every run; two writings of the same content are the same."""
    found = {}
    for path in sorted(store.glob("runs/*")):
        raw = path.read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        found[path.name] = (json.loads(raw[8 : 8 + size]), raw[8 + size :])
    return found


def prepare(study: Path, capsys) -> tuple[int, str, list[dict[str, str]]]:
    """Exit code, what was printed, the quarantine."""
    code = main(["--study", str(study), "--num_workers=1"])
    shown = capsys.readouterr()
    header, *lines = (study / "store/quarantine.tsv").read_text().splitlines()
    return (
        code,
        shown.out + shown.err,
        [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines],
    )


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_scan_is_refused_with_its_code_and_its_siblings_are_as_without_it(tmp_path, capsys, damage):
    wanted, options = DAMAGE[damage]
    tree = build.BidsTree(tmp_path / "study/raw")
    for name in ("a", "z"):
        tree.add(name)
    assert prepare(tmp_path / "study", capsys)[0] == 0
    alone = runs(tmp_path / "study/store")
    assert len(alone) == 2

    bad = tree.add("damaged", **options)
    code, shown, rows = prepare(tmp_path / "study", capsys)
    assert code == 3 and "Traceback" not in shown and wanted in shown
    (row,) = rows
    assert row["code"] == wanted and row["file"] == bad.relative_to(tree.root).as_posix()
    assert len(row["sentence"]) > 10 and len(row["fix"]) > 5
    assert runs(tmp_path / "study/store") == alone

    (tmp_path / "again").mkdir()  # prepared anew, the damaged one in between
    (tmp_path / "again/raw").symlink_to(tree.root)
    assert prepare(tmp_path / "again", capsys)[0] == 3
    assert runs(tmp_path / "again/store") == alone


def test_the_same_damage_in_uncompressed_files(tmp_path, capsys):
    tree = build.BidsTree(tmp_path / "study/raw")
    whole = build.nifti(DATA)
    contents = {
        "well": (None, whole),
        "cut": ("E_TRUNCATED", whole[:-2]),
        "empty": ("E_NOT_NIFTI", b""),
        "page": ("E_NOT_NIFTI", HTML),
        "bomb": ("E_SIZE", build.nifti(DATA[:1, :1, :1, :1], dim=(2175, 2175, 2175, 1))),
        "nan": ("E_NAN", build.nifti(with_nan(every_frame=True))),
        "ms": ("E_TR", build.nifti(DATA, tr=2000.0)),
        "nowhere": ("E_AFFINE", build.nifti(DATA, sform=0)),
        "complex": ("E_DTYPE", build.nifti(DATA.astype("c8"))),
        "five": ("E_FRAMES", build.nifti(DATA[..., :5])),
        "headless": ("E_NOT_NIFTI", bytes(348) + whole[348:]),
    }
    for name, (_, content) in contents.items():
        scan = tree.add(name)
        scan.with_name(scan.name.removesuffix(".gz")).write_bytes(content)
        scan.unlink()
    code, shown, rows = prepare(tmp_path / "study", capsys)
    assert code == 3 and "Traceback" not in shown
    found = {row["subject"].removeprefix("sub-"): row["code"] for row in rows}
    assert found == {name: wanted for name, (wanted, _) in contents.items() if wanted}
    assert list(runs(tmp_path / "study/store")) == ["sub-well_task-rest.safetensors"]


def test_a_wrong_grid_or_mask_is_one_error_before_any_scan_is_read(tmp_path, capsys):
    tree = build.BidsTree(tmp_path / "study/raw")
    tree.add("a")
    native = tmp_path / "native.nii"
    native.write_bytes(build.nifti(build.brain().astype("u1"), sform=1))
    for option, words in (
        (f"--grid={native}", "nothing says that the grid"),
        (f"--mask={native}", "nothing says that the mask"),
        ("--grid=mni3mm", "`grid` may also be none, mni2mm"),
        (f"--mask={tmp_path}/gone.nii.gz", "No such file"),
        ("--clean.low_pass=-1", "clean.low_pass is -1"),
        ("--target_tr=800", "target_tr is 800.0, but a repetition time lies between 0.2 and 10 s"),
        ("--dummy_frames=-1", "dummy_frames is -1"),
    ):
        assert main(["--study", str(tmp_path / "study"), option]) == 2
        shown = capsys.readouterr()
        assert words in shown.err and "Traceback" not in shown.err
    assert not (tmp_path / "study/store").exists()
    assert (
        main(["--study", str(tmp_path / "study"), f"--mask={native}", "--assume_mni=true", "--dry_run=true"])
        == 0
    )
    assert "mask given" in capsys.readouterr().out
