"""Previews whose every text is somebody else's, and a page read back by a parser that is not ours."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

from runbooks.engine.plan import Preview, Previewed, Table
from runbooks.model.moment import Moment

ZONE = "America/Mexico_City"
PLANNED = Moment.of(datetime(2025, 12, 3, 14, 30, tzinfo=UTC))
HOSTILE = (
    "</script><script>alert(1)</script>",
    "</style></title></textarea>--><img src=x onerror=alert(1)>",
    "\" onmouseover='alert(1)' x=\"",
    "<!--",
    "<![CDATA[",
    "&lt;&#0;&amp;&notit;",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u2066\u200b",
    "\x00\x1b[2J\x9b\r\n\t\x0b\x85\u2028",
    "שלום عليكم",
    "z" + "\u0301" * 80,
    "y" * 9000,
    "w i d e " * 60,
    "\n" * 50,
    "",
)


def previewed(text: str = "x", *, warnings: int = 2, rows: int = 2) -> Previewed:
    """All texts in it are `text`, those too that our own code writes."""
    wide = Table(title=text, head=(text,) * 6, rows=((text, text, "1,234", text, "2.5 MB", text),) * rows)
    sample = Table(title=text, head=(text,), rows=((text,),) * rows)
    return Previewed(
        run_id=text,
        runbook=text,
        environment=text,
        operator=text,
        planned=PLANNED,
        digest=text,
        preview=Preview(
            title=text,
            target=text,
            facts=((text, text), (text, text)),
            tables=(wide, sample),
            warnings=(text,) * warnings,
            undo=text,
            good_until=PLANNED,
        ),
    )


class Read(HTMLParser):
    """What a page consists of: its elements with their attributes, and the text of each that has no child."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.leaves: list[tuple[str, str]] = []
        self.others: list[str] = []
        """Comments, processing instructions and declarations."""
        self._text: str | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attrs)))
        self._text = ""

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        if self._text is not None:
            self.leaves.append((tag, self._text))
        self._text = None

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def handle_decl(self, decl: str) -> None:
        self.others.append(decl)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)

    def texts(self, *tags: str) -> list[str]:
        return [text for tag, text in self.leaves if tag in tags]

    def attributes(self, tag: str, name: str) -> list[str | None]:
        return [value for each, attrs in self.elements if each == tag for key, value in attrs if key == name]

    def meta(self, name: str) -> str | None:
        found = [dict(attrs) for tag, attrs in self.elements if tag == "meta"]
        return next(each["content"] for each in found if name in (each.get("name"), each.get("http-equiv")))

    def shape(self) -> Iterator[Any]:
        """Without what differs by what a text is: which way a column is set, and the digest in its title."""
        for tag, attrs in self.elements:
            yield tag, [a for a in attrs if a != ("class", "number") and (tag, a[0]) != ("span", "title")]
        yield self.others
