"""What is kept of the checks: beside the notebook, whole or not at all, and readable for a teacher."""

import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import nbformat
import pytest

from zflib import check
from zflib.check import score_sheet
from zflib.check.score_sheet import FILE, SOLVED, TRIED, keep, read

ROOT = Path(__file__).resolve().parents[2]


def verdict(state):
    return check.Verdict(state, "")


def test_what_was_solved_stays_solved(tmp_path):
    for state, known in (
        (check.NOT_ATTEMPTED, None),
        (check.WRONG, TRIED),
        (check.RIGHT, SOLVED),
        (check.WRONG, SOLVED),
    ):
        keep("unpool", verdict(state), tmp_path)
        assert read(tmp_path / FILE).get("unpool") == known


def test_many_at_once_lose_nothing(tmp_path):
    names = [f"exercise {i}" for i in range(16)]
    threads = [threading.Thread(target=keep, args=(name, verdict(check.RIGHT), tmp_path)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read(tmp_path / FILE)) == sorted(names)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"unpool": 3}', b"\xff"])
def test_a_damaged_file_is_an_empty_one(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    assert read(tmp_path / FILE) == {}
    keep("unpool", verdict(check.RIGHT), tmp_path)
    assert read(tmp_path / FILE) == {"unpool": SOLVED}


def test_outside_a_notebook_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check.unpool(check.unpool.target).state == check.RIGHT
    assert list(tmp_path.iterdir()) == []


def test_in_a_notebook_it_survives_the_kernel(tmp_path):
    """Two kernels, one after the other, in the notebook's folder."""
    script = """
        from jupyter_client.manager import start_new_kernel
        for code in ("check.unpool(check.unpool.target)", "check.rectify(lambda maps: maps)", "check.progress()"):
            manager, client = start_new_kernel()
            def show(message):
                print(message["content"].get("text", ""), end="")
            client.execute_interactive("from zflib import check; " + code, output_hook=show, timeout=120)
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    """
    environment = {"PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert re.search(r"^01  1 of \d   solved: unpool; open: ", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert re.search(r"^02  0 of \d   attempted: rectify; open: ", done.stdout, re.MULTILINE)


def test_every_exercise_of_a_notebook_has_its_chapter():
    calls = re.compile(r"^check\.(\w+)\(", re.MULTILINE)
    for chapter, names in score_sheet.chapters().items():
        paths = [*ROOT.glob(f"notebooks/{chapter}_*.ipynb"), *ROOT.glob(f"notebooks/deeper/{chapter}_*.ipynb")]
        for path in paths + [ROOT / "notebooks/deeper/bug_museum.ipynb"] * (chapter == "04"):
            cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
            called = set(calls.findall("\n".join(cells)))
            assert called <= set(names), f"{path.name} calls {called - set(names)}, which belong to another chapter"


def test_report_has_a_row_for_each_student(tmp_path, capsys):
    for student, name in (("ada", "unpool"), ("bo", "vote")):
        (tmp_path / student).mkdir()
        keep(name, verdict(check.RIGHT), tmp_path / student)
    check.report(tmp_path)
    head, ada, bo, whole = capsys.readouterr().out.splitlines()
    columns = head.split()
    assert ada.split()[columns.index("01")] == "1" and bo.split()[columns.index("05")] == "1"
    assert ada.split()[-1] == bo.split()[-1] == "1" and len(whole.split()) == len(columns) - 1
    with pytest.raises(ValueError, match="folder: there is no"):
        check.report(tmp_path / "nobody")
