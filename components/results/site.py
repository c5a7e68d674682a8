"""A finished report with what is known since: the promotion's decision, and labels of failures.

The artifact's page stays as it was made. `b1k results serve` adds the decision when it shows the page, and
`write_again` makes another site of it.
"""

import json
import os
import re
from pathlib import Path

from components.errors import UserError
from components.leaderboard import report
from components.leaderboard.report_data import Labels, as_script
from components.promote.stage import Decision
from components.store.artifact import Artifact
from components.store.files import files_below, link, write_atomic

_PROMOTION = re.compile(r'<section id="promotion".*?</section>\n?', re.DOTALL)
_DATA = re.compile(r'(<script type="application/json" id="data">)(.*?)(?=</script>)', re.DOTALL)


def with_decision(html: str, decision: Decision | None) -> str:
    """The page with what promotion decided; unchanged where there is no decision."""
    if decision is None:
        return html
    section = report.templates().get_template("promotion.html").render(decision=decision)
    return _PROMOTION.sub(lambda _: section, html, count=1)


def write_again(board: Artifact, folder: Path, labels: Labels, decision: Decision | None) -> Path:
    """Write the report of a leaderboard into a folder outside of it; returns the page.

    Videos are hard links where the file system allows it.

    Raises:
        UserError: the leaderboard has no report, or the folder lies in an artifact.
    """
    source = board.path / "report"
    if not (source / report.PAGE).is_file():
        raise UserError(f"{board.path} has no {source.name}/{report.PAGE}; expected a leaderboard's folder")
    if Artifact.containing(folder) is not None:
        raise UserError(f"{folder} lies in an artifact, which is not to be changed; give another folder")
    html = with_decision((source / report.PAGE).read_text(), decision)
    html = _DATA.sub(lambda found: found[1] + as_script({**json.loads(found[2]), "labels": labels}), html)
    # what the page links to beside its own folder
    html = html.replace('href="../', f'href="{os.path.relpath(board.path, folder)}/')
    for path in files_below(source):
        if path != source / report.PAGE:
            link(path, folder / path.relative_to(source))
    write_atomic(folder / report.PAGE, html)
    return folder / report.PAGE
