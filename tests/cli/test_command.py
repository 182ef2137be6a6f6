"""Arguments that several commands have: whose patients are taken, and on how many processes."""

import pytest
from jsonargparse import Namespace

from subfuse import devices
from subfuse.cli import command
from subfuse.cli.command import Command, add_role, add_workers, chosen_role, n_workers, read_chosen_cohort
from subfuse.cli.options import Parser
from subfuse.cohort import cohort as cohorts

ROLES = {"ours": "develop", "clinic": "external", "second clinic": "external"}


@pytest.fixture(autouse=True)
def roles(monkeypatch) -> dict[str, str]:
    """Cohorts of the prepared folder by their role."""
    roles = dict(ROLES)
    monkeypatch.setattr(cohorts, "roles_of", lambda folder: roles)
    return roles


@pytest.mark.parametrize(
    ("role", "own", "taken", "left"),
    [
        (None, False, "clinic (external), second clinic (external)", "ours (develop)"),
        (None, True, "ours (develop)", "clinic (external), second clinic (external)"),
        ("develop", False, "ours (develop)", "clinic (external), second clinic (external)"),
        ("clinic", False, "clinic (external)", "ours (develop), second clinic (external)"),
        ("clinic", True, "clinic (external)", "ours (develop), second clinic (external)"),
    ],
)
def test_one_role_or_cohort_is_taken_and_what_is_left_is_said(tmp_path, role, own, taken, left):
    chosen, names, others = chosen_role(tmp_path, role, own=own)
    assert chosen == role or (role is None and chosen == ("develop" if own else "external"))
    assert names == taken
    assert others == f". Not taken: {left}; choose with --role"


@pytest.mark.parametrize("own", [False, True])
def test_the_only_cohort_is_taken_whatever_its_role(tmp_path, roles, own):
    del roles["clinic"], roles["second clinic"]
    assert chosen_role(tmp_path, None, own=own) == ("develop", "ours (develop)", "")


@pytest.mark.parametrize(
    ("own", "several", "is_said"), [(True, True, True), (True, False, False), (False, False, True)]
)
def test_who_is_taken_is_said_unless_the_run_has_no_other_cohort(
    tmp_path, monkeypatch, capsys, roles, own, several, is_said
):
    if not several:
        del roles["clinic"], roles["second clinic"]
    asked = []
    monkeypatch.setattr(cohorts, "read_cohort", lambda folder, *, role: asked.append((folder, role)) or ["P1", "P2"])
    assert read_chosen_cohort(tmp_path, None, own=own) == ["P1", "P2"]
    said = capsys.readouterr()
    assert asked == [(tmp_path, "develop")]
    assert said.out == ""  # results alone
    assert ("Cohort: ours (develop), 2 patients" in said.err) == is_said


def test_commands_name_their_role_and_processes_alike():
    parser = Parser()
    add_role(parser)
    add_workers(parser)
    given = parser.parse_args(["--role", "clinic", "--workers", "3", "--scheduler", "tcp://a:1"])
    assert (given.role, given.workers, given.scheduler) == ("clinic", 3, "tcp://a:1")
    usual = parser.parse_args([])
    assert (usual.role, usual.workers, usual.scheduler) == (None, 0, None)
    alone = Parser()
    add_workers(alone, scheduler=False)
    assert "scheduler" not in alone.parse_args([])


@pytest.mark.parametrize(
    ("workers", "scheduler", "count", "ahead"),
    [(0, None, 5, 1), (3, None, 3, 1), (1, None, 1, 0), (4, "tcp://a:1", 4, 0)],
)
def test_libraries_are_imported_ahead_where_processes_will_need_them(monkeypatch, workers, scheduler, count, ahead):
    begun = []
    monkeypatch.setattr(devices, "available_cores", lambda: 5)
    monkeypatch.setattr(command, "import_ahead", lambda: begun.append(True))
    assert n_workers(Namespace(workers=workers, scheduler=scheduler)) == count
    assert len(begun) == ahead


def test_a_stopped_command_goes_on_unless_it_says_otherwise():
    assert "goes on from there" in Command("Say.", "subfuse say", add_role, print).when_stopped
