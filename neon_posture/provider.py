"""The dynamic provider. As it is in a module, Pulumi's state only names it: neither code nor key is in there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    CreateResult,
    DiffResult,
    ReadResult,
    ResourceProvider,
    UpdateResult,
)
from pulumi.runtime.rpc import UNKNOWN

from neon_posture.posture import Posture, problems
from runbooks.model.errors import BloomError


class PostureProvider(ResourceProvider):
    """Creating adopts the project, deleting leaves everything at Neon as it is. Every method may be repeated.

    It keeps nothing between calls: the API key comes from the environment of the process, when it is needed.
    """

    serialize_as_secret_always = False

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        wanted = _inputs(news)
        unknown = [name for name, value in wanted.items() if value == UNKNOWN]
        found = problems({name: value for name, value in wanted.items() if name not in unknown}, unknown)
        if not found and not unknown:
            found = Posture.model_validate(wanted).impossible(_inputs(_olds))
        return CheckResult(news, [CheckFailure(place, why) for place, why in found.items()])

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """`_olds` is what Neon was last seen to have, so drift that a refresh has found is a difference too."""
        news = _inputs(_news)
        if UNKNOWN in news.values():
            moved = news.get("project") == UNKNOWN
            return DiffResult(changes=True, replaces=["project"] if moved else [])
        changed = Posture.model_validate(news).differs(_inputs(_olds))
        return DiffResult(changes=bool(changed), replaces=["project"] if "project" in changed else [])

    def create(self, props: dict[str, Any]) -> CreateResult:
        wanted = Posture.model_validate(_inputs(props))
        return CreateResult(wanted.project, _settled(wanted))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(_settled(Posture.model_validate(_inputs(_news))))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """What Neon has goes into the inputs as well: the next `check` compares with it, not with what was asked."""
        from neon_posture.project import held, opened  # the HTTP client loads slowly, and a preview needs none

        known = _inputs(props)
        place = Posture.model_construct(**known)
        with _told():
            found = held(opened(place), place).as_outputs()
        return ReadResult(id_, known | found, _inputs(known | found))

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """A project is data: its settings stay, too."""


def _inputs(props: dict[str, Any]) -> dict[str, Any]:
    """Those of a posture that have a value: Pulumi also carries the provider itself, and outputs."""
    return {name: props[name] for name in Posture.model_fields if props.get(name) is not None}


def _settled(wanted: Posture) -> dict[str, Any]:
    from neon_posture.project import brought_in_line, opened

    with _told():
        return wanted.as_inputs() | brought_in_line(opened(wanted), wanted).as_outputs()


@contextmanager
def _told() -> Iterator[None]:
    """All three sentences of an error: Pulumi shows its text and its notes."""
    try:
        yield
    except BloomError as error:
        error.add_note(f"safe: {error.safe}\nnext: {error.next_step}")
        raise
