"""Zips: what could do harm is refused, what is damaged is said to be, members are read without unpacking."""

import io
import os
import stat
import zipfile

import pytest

from encoders.brainmt.preparation.archive import Member, list_members, open_file, read_text
from encoders.brainmt.preparation.quarantine import ScanRefused

CAP = 2**24


def zip_of(path, *members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return path


def test_members_are_listed_and_read_without_unpacking(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("fMRI/", ""), ("fMRI/x.txt", "ä 1\n"))
    assert list_members(path, max_bytes=CAP) == ["fMRI/x.txt"]
    member = Member(archive=path, member="fMRI/x.txt")
    assert read_text(member) == "ä 1\n" and member.name == "x.txt"
    with open_file(member) as file:
        assert file.read(2) + file.read() == "ä 1\n".encode()
    assert os.listdir(tmp_path) == ["a.zip"]


def link(name):
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("member", "content", "words"),
    [
        ("/etc/passwd", "x", "absolute name"),
        ("C:/Windows/x", "x", "absolute name"),
        ("fMRI/../../x", "x", "climbs out"),
        ("..\\x", "x", "climbs out"),
        (link("fMRI/rfMRI.ica"), "/etc", "link"),
        ("fMRI/zeros.nii", bytes(2**23), "grows"),
    ],
)
def test_a_member_that_could_do_harm_makes_the_whole_archive_refused(tmp_path, member, content, words):
    path = zip_of(tmp_path / "a.zip", ("fMRI/good.txt", "x"), (member, content))
    with pytest.raises(ScanRefused, match="E_ARCHIVE: its member") as caught:
        list_members(path, max_bytes=CAP)
    assert words in caught.value.sentence and "do not unpack" in caught.value.fix


def test_small_files_of_repeated_lines_are_no_bombs(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("log.txt", "0\n" * 2**18))
    assert path.stat().st_size * 100 < 2**19
    assert list_members(path, max_bytes=CAP) == ["log.txt"]


def test_a_member_above_the_size_cap_is_refused_before_it_is_read(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("x", os.urandom(2000)))
    with pytest.raises(ScanRefused, match="E_SIZE: its member 'x' declares .*--max_gib"):
        list_members(path, max_bytes=1000)


def test_encrypted_and_doubled_members_are_refused(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("x.txt", "hello"))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(ScanRefused, match="E_ARCHIVE: .*encrypted"):
        list_members(path, max_bytes=CAP)
    with pytest.warns(UserWarning, match="Duplicate"):
        zip_of(path, ("x.txt", "1"), ("x.txt", "2"))
    with pytest.raises(ScanRefused, match="E_ARCHIVE: it has two members named 'x.txt'"):
        list_members(path, max_bytes=CAP)


@pytest.mark.parametrize("content", [b"", b"<html>Log in</html>", None])
def test_what_is_no_whole_archive_is_refused(tmp_path, content):
    path = zip_of(tmp_path / "a.zip", ("x.txt", os.urandom(5000)))
    path.write_bytes(path.read_bytes()[:3000] if content is None else content)
    with pytest.raises(ScanRefused, match="E_ARCHIVE: it is no whole zip archive"):
        list_members(path, max_bytes=CAP)


def test_an_archive_that_is_gone_is_refused(tmp_path):
    with pytest.raises(ScanRefused, match="E_READ"):
        list_members(tmp_path / "gone.zip", max_bytes=CAP)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_bit_in_a_member_is_found_when_it_is_read_to_its_end(tmp_path, compression):
    path = zip_of(tmp_path / "a.zip", ("x.bin", os.urandom(5000)), compression=compression)
    raw = bytearray(path.read_bytes())
    raw[2500] ^= 1
    path.write_bytes(raw)
    member = Member(archive=path, member="x.bin")
    with pytest.raises(ScanRefused, match="E_CRC: its member x.bin is damaged"), open_file(member) as file:
        while file.read(1000):
            pass


def test_a_text_of_absurd_size_is_not_taken(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"0\n" * 2**25 + b"0")
    with pytest.raises(ValueError, match="more than 64 MiB"):
        read_text(tmp_path / "x.txt")


def test_an_open_member_is_a_file_like_any_other(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("x.txt", "1\n2\n"))
    file = open_file(Member(archive=path, member="x.txt"))
    assert isinstance(file, io.BufferedIOBase) and file.readable()
    file.close()
    file.close()
    assert file.closed
