"""A comparison of arms in Python: it shows itself, and has its verdicts by the names of the arms."""

import html
from dataclasses import dataclass

from cnnjax.reports.arguments import FORMATS, Format, write_findings
from cnnjax.reports.findings import Findings
from cnnjax.settings.checking import choice
from cnnjax.statistics import Contrast


@dataclass(frozen=True, repr=False)
class Comparison:
    """A comparison of arms, which shows itself as tables, and in a notebook as the page with pictures.

    Attributes:
        findings: everything that was found.
    """

    findings: Findings

    @property
    def contrasts(self) -> dict[str | tuple[str, str], Contrast]:
        """The comparisons with their verdicts, by the arm that is compared with the baseline, or by both arms."""
        has_base = self.findings.base is not None
        return {each.first if has_base else (each.first, each.second): each for each in self.findings.contrasts}

    def write(self, form: Format = "terminal", *, all_tests: bool = False) -> str:
        """Returns the comparison as text.

        Args:
            form: ``terminal``, ``markdown``, ``latex``, ``csv``, ``json``, or ``html``, which is a page with pictures.
            all_tests: adds every test of significance, which csv and json always have.
        """
        return write_findings(self.findings, choice(form, FORMATS, "form"), all_tests=all_tests)

    def __repr__(self) -> str:
        return self.write()

    def _repr_html_(self) -> str:
        page = html.escape(self.write("html"))
        return f'<iframe srcdoc="{page}" sandbox="allow-scripts" style="width: 100%; height: 40em; border: 0"></iframe>'
