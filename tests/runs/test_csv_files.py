"""csv files in the encodings and with the separators that spreadsheets save."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro.csv_files import read_csv, read_text
from repro.errors import UserError

TEXT = 'name,value\né,1\n\n"a, b",2\n'
RECORDS = [(2, {"name": "é", "value": "1"}), (4, {"name": "a, b", "value": "2"})]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_encodings_and_separators(tmp_path: Path, encoding: str, line_end: str, separator: str) -> None:
    path = tmp_path / "table.csv"
    text = TEXT.replace("a, b", "a#b").replace(",", separator).replace("a#b", "a, b").replace("\n", line_end)
    path.write_bytes(text.encode(encoding))
    assert list(read_csv(path, ("name", "value"))) == RECORDS


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TEXT.encode("latin-1"), " line 2: not in UTF-8; save the file in UTF-8"),
        (codecs.BOM_UTF16_LE + b"n", " line 1: not in UTF-8; save the file in UTF-8"),
        (b"", ": an empty file; expected a header with name,value"),
        (b"\n ,\n", ": no column name, value; expected a header with name,value"),
        (b"\n\nname;vlaue\n", ": no column value (but 'vlaue'); expected a header with name,value"),
        (b"name,value,name\n", ": two columns 'name' in the header; remove or rename one"),
        (b"name;vlaue\n", ": no column value (but 'vlaue'); expected a header with name,value"),
        (b"name\n", ": no column value; expected a header with name,value"),
        (b"<html>Sign in</html>", ": an HTML page; download the file again, logged in if necessary"),
        (b"name,value\na\n", " line 2: 1 value, the header has 2"),
        (b"name,value\na,1,2\n", " line 2: 3 values, the header has 2"),
        (b"name,value\na," + b"x" * 200_000, " line 2: not csv (field larger than field limit (131072))"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        list(read_csv(path, ("name", "value")))
    assert str(caught.value) == f"{path}{message}"


def test_a_folder_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_text(tmp_path)
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\)"):
        read_text(tmp_path / "missing.csv")


@given(st.one_of(st.binary(max_size=200), st.text(alphabet='a,;\t"\n\r\x00é', max_size=60).map(str.encode)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_records_or_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "random.csv"
    path.write_bytes(b"a,b\n" + data)
    try:
        outcome = str([sorted(record) for _, record in read_csv(path, ("a", "b"))])
    except UserError as error:
        outcome = str(error)
    assert len(outcome.splitlines()) == 1
