"""CLAIM 2024, the checklist for AI in medical imaging (Tejani et al. 2024, Radiology: Artificial Intelligence 6:e240300).

Items are named in our own words. `anchor` is the section of the report that answers one; an item without, or whose section is
not in the report, is the authors' to answer.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from mriflow.reporting.html import Markup
from mriflow.reporting.parts import Table


class Item(NamedTuple):
    """An item, the section that answers it ('' if the authors must) and what they must add."""

    number: int
    what: str
    anchor: str
    add: str


ITEMS = [
    Item(1, "Title: AI method named", "", "Name deep learning in the title or abstract."),
    Item(2, "Abstract: design, methods, results, conclusions", "summary", "Write it; the sentences on top have the numbers."),
    Item(3, "Background, intended use and role", "", "What is it for, and who would use it?"),
    Item(4, "Aims, objectives, hypotheses", "summary", "The hypothesis, fixed before the numbers were seen."),
    Item(5, "Prospective or retrospective", "", "Which of the two."),
    Item(6, "Goal of the study", "", "Such as making a model, feasibility, non-inferiority."),
    Item(7, "Data sources", "data", "Where and when the data were collected; approval and consent."),
    Item(8, "Inclusion and exclusion", "flow", "Who was asked to take part, before the table began."),
    Item(9, "Preprocessing", "methods", ""),
    Item(10, "Selection of subsets of the data", "flow", ""),
    Item(11, "De-identification", "", "How names and faces were removed, and by whom."),
    Item(12, "Missing data", "flow", ""),
    Item(13, "Acquisition protocol", "", "Scanners, field strengths and sequences."),
    Item(14, "How the reference standard was obtained", "reference", "The dataset's key `reference_standard`."),
    Item(15, "Why this reference standard", "", "Why it is the best that there is."),
    Item(16, "Source of annotations", "", "Who annotated, with what training; for age and sex: the records."),
    Item(17, "Annotation of the test set", "", "Whether it was done otherwise than for training."),
    Item(18, "Variability between annotators", "", "If people annotated."),
    Item(19, "How data were assigned to partitions", "parts", ""),
    Item(20, "Level at which partitions are disjoint", "methods", ""),
    Item(21, "Intended sample size", "", "How it was decided; under results stands what this size could find."),
    Item(22, "The model in detail", "methods", "A reference for the architecture; the config has its arguments."),
    Item(23, "Software", "software", ""),
    Item(24, "Initial parameters", "software", ""),
    Item(25, "Training", "methods", ""),
    Item(26, "Selection of the final model", "methods", "How settings were chosen, on whose scans, and how many were tried."),
    Item(27, "Ensembling", "methods", ""),
    Item(28, "Metrics", "results", "Why these metrics fit the clinical question."),
    Item(29, "Significance and uncertainty", "results", ""),
    Item(30, "Robustness", "robustness", "Ask for it with `controls: {robustness: true}`."),
    Item(31, "Explainability", "attention", "Ask for it with `attention`, or say why it is not needed."),
    Item(32, "Evaluation on internal data", "results", ""),
    Item(33, "Testing on external data", "external", "Test on another cohort, or name its lack as a limit."),
    Item(34, "Registration of a clinical trial", "", "If it is one."),
    Item(35, "Numbers included and excluded", "flow", ""),
    Item(36, "Demographic, clinical characteristics by partition", "parts", "Clinical characteristics, if there are patients."),
    Item(37, "Performance with uncertainty", "results", ""),
    Item(38, "Diagnostic performance with its precision", "results", ""),
    Item(39, "Analysis of failures", "failures", "Look at these scans, and say what is wrong with them."),
    Item(40, "Limitations", "summary", "Discuss them; the last sentence on top names some."),
    Item(41, "Implications for practice", "", "What follows, and what does not."),
    Item(42, "Protocol and further technical details", "software", "Where the protocol can be read."),
    Item(43, "Availability of software, model, data", "software", "Where model and data can be had."),
    Item(44, "Funding, and the role of funders", "", "Who paid."),
]


def table_of_claim(anchors: Mapping[str, str], described: Collection[str] = ()) -> Table:
    """Return the table of items.

    Parameters
    ----------
    anchors
        Of each kind of section that the report has, the id of the first.
    described
        Kinds of section whose text is complete, so that nothing need be added to them.
    """
    rows = []
    for item in ITEMS:
        anchor = anchors.get(item.anchor)
        here = Markup(f'<a href="#{anchor}">here</a>') if anchor else "–"
        rows.append([str(item.number), item.what, here, "" if anchor and item.anchor in described else item.add])
    return Table(["item", "what is asked for", "answered", "what the authors must add"], rows)
