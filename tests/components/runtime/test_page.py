"""Pages for the Kubeflow UI: well-formed, self-contained, and safe with any text."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from components.runtime.curves import draw_all
from components.runtime.page import figure, page, paragraph, table

_VOID = {"meta", "hr", "br"}


class _Reader(HTMLParser):
    """Collects text and checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(html: str) -> str:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    assert "<script" not in html
    assert "http" not in html, "nothing is loaded from elsewhere"
    return reader.text


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00", exclude_categories=("C",)))


@given(_TEXT, st.lists(st.tuples(_TEXT, st.integers())))
def test_any_text_is_shown_as_it_is(text: str, rows: list[tuple[str, int]]) -> None:
    found = _read(page("Title", paragraph(text), table(("name", "number"), rows)))
    assert text in found
    for name, number in rows:
        assert f"{name}{number}" in found


def test_curves_have_axes_lines_and_words() -> None:
    rows = [{"step": float(i), "loss": 2.0 / (i + 1), "learning_rate": 0.1 * i} for i in range(20)]
    curves = draw_all("common", rows)
    html = page("Training", *map(figure, curves))
    found = _read(html)
    assert [curve.metric for curve in curves] == ["loss", "learning rate"]
    assert html.count("<path") == 2
    assert "loss of common: 2 at step 0, 0.1 at step 19" in found
