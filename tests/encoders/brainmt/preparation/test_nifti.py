"""Reading one NIfTI file: damage of every kind is refused, orientation is undone exactly."""

import gzip
import hashlib
from collections import Counter
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest

from encoders.brainmt.preparation.nifti import read_nifti
from encoders.brainmt.preparation.quarantine import ScanRefused

LIMIT = 2**24
HTML = b"<!DOCTYPE html><title>Sign in</title>"


def dense(image):
    """(X, Y, Z, T) in scanner units from what was read."""
    values = image.stored[:, image.order].reshape(-1, *image.grid)
    return np.moveaxis(values * image.slope + image.intercept, 0, -1)


@pytest.fixture
def refusal(tmp_path):
    def refusal(content, limit=LIMIT):
        path = tmp_path / "scan.nii.gz"
        path.write_bytes(content)
        with pytest.raises(ScanRefused) as caught:
            read_nifti(path, max_bytes=limit)
        assert caught.value.sentence and caught.value.fix
        return caught.value

    return refusal


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_numbers_are_those_of_nibabel(build, tmp_path, kind, endian):
    data = np.random.default_rng(0).integers(0, 100, (*build.GRID, 3)).astype(kind)
    content = build.nifti(data, endian=endian, slope=0.5, intercept=3)
    (tmp_path / "scan.nii.gz").write_bytes(build.pack(content))
    image = read_nifti(tmp_path / "scan.nii.gz", max_bytes=LIMIT)
    theirs = nib.as_closest_canonical(nib.Nifti1Image.from_bytes(content))
    np.testing.assert_array_equal(dense(image), np.asanyarray(theirs.dataobj))
    np.testing.assert_array_equal(image.affine, theirs.affine)
    assert (image.orientation, image.tr, image.space_code) == ("RAS", 2.0, 4)


def test_one_head_in_48_orientations_reads_the_same(build, tmp_path):
    data = np.random.default_rng(1).integers(0, 1000, (*build.GRID, 3)).astype("i2")
    seen = set()
    for name, stored, affine in build.orientations(data):
        path = tmp_path / "scan.nii.gz"
        path.write_bytes(build.pack(build.nifti(stored, affine=affine)))
        image = read_nifti(path, max_bytes=LIMIT)
        np.testing.assert_array_equal(dense(image), data, err_msg=name)
        np.testing.assert_array_equal(image.affine, build.AFFINE, err_msg=name)
        seen.add(image.orientation)
    assert len(seen) == 48


def test_several_gzip_streams_and_padding_are_read(build, tmp_path):
    content = build.nifti(build.bold(0))
    packed = b"".join(build.pack(content[i : i + 5000]) for i in range(0, len(content), 5000))
    (tmp_path / "scan.nii.gz").write_bytes(packed + bytes(512))
    image = read_nifti(tmp_path / "scan.nii.gz", max_bytes=LIMIT)
    np.testing.assert_array_equal(dense(image), build.bold(0))


def test_every_truncation_is_refused(build, refusal):
    packed = build.pack(build.nifti(build.bold(0)))
    for length in [2, 9, 11, 60, *np.linspace(200, len(packed) - 1, 30).astype(int)]:
        assert refusal(packed[:length]).code == "E_TRUNCATED", length


def test_every_flipped_bit_is_damage_unless_it_means_nothing(build, tmp_path):
    data = build.bold(0)
    packed = build.pack(build.nifti(data))
    path, codes, idle = tmp_path / "scan.nii.gz", Counter(), []
    places = [*range(80), *np.random.default_rng(0).integers(80, len(packed) * 8 - 64, 400)]
    for place in [*places, *range(len(packed) * 8 - 64, len(packed) * 8)]:  # all of the first and last bytes
        damaged = bytearray(packed)
        damaged[place // 8] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(dense(read_nifti(path, max_bytes=LIMIT)), data)
            idle.append(place)
        except ScanRefused as refused:
            codes[refused.code] += 1
    assert set(codes) == {"E_CRC"}
    # time stamp, system and hints of a gzip file, and a few codes that no symbol uses
    assert sum(place >= 80 for place in idle) <= 10 and min(idle) >= 24


def test_bytes_after_the_end_are_refused(build, refusal):
    assert refusal(build.pack(build.nifti(build.bold(0))) + b"appended").code == "E_CRC"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (HTML, "web page"),
        (b"\n  " + HTML, "web page"),
        (gzip.compress(HTML, mtime=0), "before the end of the header"),
        (gzip.compress(HTML * 50, mtime=0), "no NIfTI header"),
        (b"PK\x03\x04 a zip", "504b0304"),
    ],
)
def test_what_is_no_nifti_file_is_named(refusal, content, words):
    caught = refusal(content)
    assert caught.code in ("E_NOT_NIFTI", "E_TRUNCATED") and words in caught.sentence


def test_a_bomb_is_refused_by_its_declared_size(build, refusal):
    huge = build.nifti(np.zeros((1, 1, 1, 1), "f4"), dim=(2175, 2175, 2175, 1))
    caught = refusal(build.pack(huge + bytes(2**24)))
    assert caught.code == "E_SIZE" and "38.3 GiB" in caught.sentence and "--max_gib" in caught.fix


def test_a_stream_that_goes_on_after_its_voxels_is_refused(build, refusal):
    caught = refusal(build.pack(build.nifti(build.bold(0)) + bytes(2**24)))
    assert caught.code == "E_SIZE" and "more than the" in caught.sentence


def test_fewer_voxels_than_declared_are_refused(build, refusal):
    data = build.bold(0)
    assert refusal(build.pack(build.nifti(data)[:-2])).code == "E_TRUNCATED"


@pytest.mark.parametrize("dim", [(5, 7, -6, 3), (5, 7, 0, 3), (5, 7, 6, 3, 1, 1, 1)])
def test_impossible_axes_are_refused(build, refusal, dim):
    content = bytearray(build.nifti(np.zeros((5, 7, 6, 3), "i2"), dim=dim))
    if len(dim) == 7:
        content[40:42] = (8).to_bytes(2, "little")  # eight axes
    assert refusal(build.pack(bytes(content))).code == "E_NOT_NIFTI"


@pytest.mark.parametrize(
    ("kind", "code", "bits", "label"),
    [
        ("c8", None, None, "complex64"),
        ("i8", None, None, "int64"),
        ("u1", 128, 24, "RGB"),
        ("i2", 777, 16, "unknown"),
    ],
)
def test_types_without_one_real_number_per_voxel_are_refused(build, refusal, kind, code, bits, label):
    data = np.zeros((*build.GRID, 9), kind)
    dim = (*build.GRID, 3) if code == 128 else None
    caught = refusal(build.pack(build.nifti(data, code=code, bits=bits, dim=dim)))
    assert caught.code == "E_DTYPE" and label in caught.sentence


def test_five_axes_are_refused(build, refusal):
    assert refusal(build.pack(build.nifti(np.zeros((5, 7, 6, 2, 3), "i2")))).code == "E_FRAMES"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sform": 0, "qform": 0}, "code are 0"),
        ({"affine": np.diag([24.0, 24.0, 0.0, 1.0])}, "singular"),
        ({"affine": np.diag([24.0, np.nan, 24.0, 1.0])}, "singular or not finite"),
        ({"affine": np.diag([-24.0, 24.0, 24.0, 1.0]), "qform": 1}, "disagree"),
    ],
)
def test_a_scan_without_a_place_in_space_is_refused(build, refusal, changed, words):
    caught = refusal(build.pack(build.nifti(build.bold(0), **changed)))
    assert caught.code == "E_AFFINE" and words in caught.sentence


def test_the_qform_is_used_where_there_is_no_sform(build, tmp_path):
    content = build.nifti(build.bold(0), sform=0, qform=4)
    (tmp_path / "scan.nii.gz").write_bytes(build.pack(content))
    image = read_nifti(tmp_path / "scan.nii.gz", max_bytes=LIMIT)
    np.testing.assert_allclose(image.affine, build.AFFINE)
    assert image.space_code == 4


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(ScanRefused, match="E_READ: it cannot be read .No such file"):
        read_nifti(tmp_path / "gone.nii.gz", max_bytes=LIMIT)


def test_nifti_2_is_read(build, tmp_path):
    data = build.bold(0)
    content = BytesIO()
    nib.Nifti2Image(data, build.AFFINE).to_stream(content)
    (tmp_path / "scan.nii.gz").write_bytes(build.pack(content.getvalue()))
    np.testing.assert_array_equal(dense(read_nifti(tmp_path / "scan.nii.gz", max_bytes=LIMIT)), data)


def test_an_uncompressed_file_reads_the_same_and_says_that_nothing_vouches_for_its_bytes(build, tmp_path):
    content = build.nifti(build.bold(0))
    (tmp_path / "scan.nii").write_bytes(content)
    (tmp_path / "scan.nii.gz").write_bytes(build.pack(content))
    plain, packed = (read_nifti(tmp_path / name, max_bytes=LIMIT) for name in ("scan.nii", "scan.nii.gz"))
    np.testing.assert_array_equal(dense(plain), dense(packed))
    assert plain.checksum == "none (not compressed)" and packed.checksum == "gzip CRC"
    assert plain.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda content: content[:-2], "E_TRUNCATED", "ends after"),
        (lambda content: content[:200], "E_TRUNCATED", "before the end of the header"),
        (lambda content: b"", "E_NOT_NIFTI", "the file is empty"),
        (lambda content: HTML, "E_NOT_NIFTI", "web page"),
        (lambda content: b"PK" + content, "E_NOT_NIFTI", "length of a NIfTI header"),
        (lambda content: content + bytes(2**21), "E_SIZE", "more than"),
        (lambda content: content[:344] + bytes(4) + content[348:], "E_NOT_NIFTI", "no NIfTI header"),
    ],
)
def test_an_uncompressed_file_is_checked_by_its_length_and_header(build, tmp_path, change, code, words):
    (tmp_path / "scan.nii").write_bytes(change(build.nifti(build.bold(0))))
    with pytest.raises(ScanRefused, match=words) as caught:
        read_nifti(tmp_path / "scan.nii", max_bytes=LIMIT)
    assert caught.value.code == code


def test_the_name_must_say_whether_it_is_compressed(build, refusal, tmp_path):
    content = build.nifti(build.bold(0))
    assert "name it .nii" in refusal(content).fix
    (tmp_path / "scan.nii").write_bytes(build.pack(content))  # what says gzip and holds is read
    np.testing.assert_array_equal(dense(read_nifti(tmp_path / "scan.nii", max_bytes=LIMIT)), build.bold(0))
