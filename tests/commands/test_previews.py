"""What was shown before consent, as often and in as many forms as somebody who has to approve it needs."""

from __future__ import annotations

import dataclasses
import resource
from dataclasses import dataclass
from pathlib import Path

import pytest

from runbooks.engine.consent import Consenting
from runbooks.engine.runner import Engine
from runbooks.engine.runs import Runs
from runbooks.model.errors import ConsentNeeded, JournalBroken, LocalFault, NotFound, Refused, UsageFault
from runbooks.model.moment import Moment
from runbooks.model.run_id import RunId
from runbooks.report.answer import Answer
from runbooks.report.previews import shown_again
from tests.commands.operator import CODES, Operator, Said, now
from tests.engine.previews import Read
from tests.engine.toy import TOY, Request, Shelf, ToyPlan, engine

RECOVER = "recover.accidental-delete"
TYPED = "Beto</td><script>alert(1)</script>\x1b[2J\u202e"
"""By a user of the application, into a form."""


@dataclass(frozen=True)
class Waiting:
    """A recovery that waits for consent."""

    operator: Operator
    said: Said

    @property
    def page(self) -> Path:
        return self.operator.runs / self.said.run_id / "preview.html"


@pytest.fixture(scope="module")
def waiting(operator: Operator) -> Waiting:
    operator.sql("update clients set full_name = %s, referred_by = null where id = 90", TYPED)
    moment = now()
    operator.sql("delete from reservations where client_id = 90")
    operator.sql("delete from clients where id = 90")
    words = ("--at", moment, "--tables", "clients", "--where", "id = 90")
    return Waiting(operator, operator.invoke(RECOVER, *words))


def test_a_run_that_asks_says_where_its_page_lies_and_a_resume_writes_it_again(waiting: Waiting) -> None:
    waiting.said.stopped("ConsentNeeded", f"as a page, to be sent     {waiting.page}\n", f"page:  {waiting.page} ")
    first = waiting.page.read_bytes()
    waiting.page.unlink()
    told = waiting.operator.invoke("run.resume", waiting.said.run_id, "--json")
    assert told.code == CODES["ConsentNeeded"]
    assert told.data["error"]["page"] == str(waiting.page)
    assert waiting.page.read_bytes() == first
    assert waiting.page.stat().st_mode & 0o777 == 0o600


def test_the_page_holds_the_row_as_text_the_plan_and_the_run_and_not_the_value_to_confirm(waiting: Waiting) -> None:
    text = waiting.page.read_text()
    read = Read(text)
    assert any(r"Beto</td><script>alert(1)</script>\x1b[2J\u202e" in each for each in read.texts("div"))
    assert "script" not in {tag for tag, _ in read.elements}
    (digest,) = read.attributes("span", "title")
    assert digest
    assert digest in waiting.said.err
    assert waiting.said.run_id in read.texts("dd")
    assert "sandbox" in read.texts("dd")
    assert waiting.said.confirm not in text


def test_the_preview_is_shown_again_as_text_and_as_the_page(waiting: Waiting) -> None:
    ana, run_id = waiting.operator, waiting.said.run_id
    again = ana.invoke("run.preview", run_id)
    assert again.code == 0
    assert again.out.strip() in waiting.said.err.replace(f"  as a page, to be sent     {waiting.page}\n", "")
    assert ana.invoke("run.preview", run_id, "--html", "-").out == waiting.page.read_text()


RUN = RunId.parse("20251203-143000-k7qx")


class Asked:
    """A run of the toy runbook that waits for consent; shown again in this process, as a new one costs a second."""

    def __init__(self, folder: Path) -> None:
        self.runs = Runs(folder / "runs")
        (folder / "shelf").mkdir()
        self.shelf = Shelf(folder / "shelf")
        with pytest.raises(ConsentNeeded) as waiting:
            self.engine.start(TOY, Request(name="book"), self.shelf, Consenting("tester"), RUN)
        assert waiting.value.page == self.runs.folder(RUN) / "preview.html"

    @property
    def engine(self) -> Engine:
        return engine(self.runs.root)

    def again(self, html: str = "", *, as_json: bool = False) -> Answer:
        return shown_again(self.runs, RUN, TOY, "UTC", html, as_json=as_json)


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


def test_as_data_it_is_the_whole_preview_and_the_plan_it_is_of(asked: Asked) -> None:
    data = asked.again(as_json=True).data
    assert {name: data[name] for name in ("run_id", "runbook", "environment", "operator")} == {
        "run_id": str(RUN), "runbook": "toy.put", "environment": "toy", "operator": "tester",
    }  # fmt: skip
    planned = next(each for each in asked.runs.reading(RUN).entries if each.event == "planned")
    assert (data["digest"], data["planned"]) == (planned.data["digest"], Moment.of(planned.at).iso())
    assert data["preview"] == ToyPlan(name="book", there=()).preview().as_json()


def test_the_page_goes_to_a_new_file_and_to_no_other(asked: Asked, tmp_path: Path) -> None:
    path = tmp_path / "to send.html"
    for _ in range(2):  # the same again is no loss
        answer = asked.again(str(path))
        assert answer.text.splitlines()[0] == answer.data["page"] == str(path)
    assert path.read_bytes() == (asked.runs.folder(RUN) / "preview.html").read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("a letter")
    for there in (path, tmp_path):
        with pytest.raises(Refused, match="something else"):
            asked.again(str(there))
    assert path.read_text() == "a letter"
    with pytest.raises(LocalFault, match="No such file"):
        asked.again(str(tmp_path / "no" / "folder"))
    with pytest.raises(UsageFault, match="both want stdout"):
        asked.again("-", as_json=True)


def test_half_a_page_is_not_left_on_a_full_disk(asked: Asked, tmp_path: Path) -> None:
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, was[1]))
    try:
        with pytest.raises(LocalFault, match="too large"):
            asked.again(str(tmp_path / "page.html"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert not (tmp_path / "page.html").exists()


def test_after_the_run_its_preview_is_still_what_it_was(asked: Asked) -> None:
    before, page = asked.again(), asked.again("-")
    asked.engine.resume(TOY, RUN, asked.shelf, Consenting("tester", value="shelf/book"))
    assert (asked.again(), asked.again("-")) == (before, page)


def test_a_run_without_a_plan_has_no_preview(asked: Asked) -> None:
    journal = asked.runs.folder(RUN) / "journal.jsonl"
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    with pytest.raises(NotFound, match="no plan") as refused:
        asked.again()
    assert f"invoke run.show {RUN}" in refused.value.next_step


def test_the_plan_of_another_version_is_not_shown_as_if_it_were_ours(asked: Asked) -> None:
    class OtherPlan(ToyPlan):
        there: tuple[str, ...] = ()
        more: str = "a field with a default"

    with pytest.raises(JournalBroken, match="reads back differently"):
        shown_again(asked.runs, RUN, dataclasses.replace(TOY, plan_type=OtherPlan), "UTC", "", as_json=False)


def test_a_run_that_has_nothing_to_ask_keeps_no_page(tmp_path: Path) -> None:
    class Harmless(ToyPlan):
        def confirmation(self) -> None:
            return None

    (tmp_path / "shelf").mkdir()
    book = dataclasses.replace(
        TOY, plan_type=Harmless, plan=lambda request, survey: Harmless(name=request.name, there=survey.there)
    )
    ended = engine(tmp_path / "runs").start(
        book, Request(name="book"), Shelf(tmp_path / "shelf"), Consenting("tester"), RUN
    )
    assert [each.name for each in ended.folder.iterdir()] == ["journal.jsonl"]
