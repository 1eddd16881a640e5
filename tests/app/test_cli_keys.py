"""`modelpress keys`, on a data folder of its own."""

import json
from pathlib import Path

import pytest

from app.cli import main


def test_keys_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = ["--data-dir", str(tmp_path)]
    assert main(["keys", "create", "laptop", "--owner", "ada", "--days", "2", *data]) == 0
    text = capsys.readouterr().out.strip()
    assert main(["keys", "list", "--json", *data]) == 0
    (key,) = json.loads(capsys.readouterr().out)
    assert text.startswith(f"mp_{key['id']}_")
    assert (key["owner"], key["name"], key["scopes"]) == ("ada", "laptop", "read,write")
    assert (key["state"], key["last_used_at"]) == ("live", None)
    assert main(["keys", "revoke", key["id"], *data]) == 0
    assert main(["keys", "revoke", key["id"], *data]) == 2
    capsys.readouterr()
    assert main(["keys", "list", *data]) == 0
    shown = capsys.readouterr().out
    assert "revoked" in shown
    assert text not in shown


@pytest.mark.parametrize(
    "wrong", [["--owner", "../x"], ["--owner", "A b"], ["--scopes", "root"]]
)
def test_what_cannot_be_a_key_is_refused(tmp_path, capsys, wrong):
    assert main(["keys", "create", "x", *wrong, "--data-dir", str(tmp_path)]) == 2
    assert "[invalid_parameter]" in capsys.readouterr().err
