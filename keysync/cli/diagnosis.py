"""The findings of `check`: one per cause, without findings that follow from another, and how they are printed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from keysync.cli.streams import console_for
from keysync.failures import FailureRecord
from keysync.names import natural
from keysync.report.causes import affected, identity_of, many
from keysync.report.console import Span, to_json
from keysync.report.text import account_name, print_message
from keysync.sync.model import Result

Level = Literal["ok", "warning", "problem"]

_STYLES: Final = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One finding: what was tested (`subject`), the outcome, and a hint to fix it.

    `record` is the failure that caused it. Findings of one cause are printed once, with all subjects that are `affected`.
    """

    level: Level
    subject: str
    message: str
    hint: str | None = None
    record: FailureRecord | None = field(default=None, repr=False)
    affected: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The finding in ``--output json``."""
        finding = {"level": self.level, "subject": self.subject, "message": self.message, "hint": self.hint}
        return {**finding, "affected": list(self.affected or (self.subject,))}

    def explains(self, result: Result) -> bool:
        """Whether this finding, about the secret's account or vault, is the cause of `result`."""
        if result.outcome == "refused":
            return f"{result.ref.key}: {result.reason}" in self.message
        # Not by the summary, which has the IDs of one attempt.
        error = result.error if result.outcome == "failed" else None
        return error is not None and self.record is not None and identity_of(error) == identity_of(self.record)


def account_subject(resource_id: str) -> str:
    """The subject of findings about an account."""
    return f"account {account_name(resource_id)}"


def unexplained(results: Iterable[Result], findings: Iterable[Diagnosis]) -> Iterator[Result]:
    """The results that no finding of their account or vault explains."""
    problems: dict[str, list[Diagnosis]] = {}
    for each in findings:
        if each.level == "problem":
            problems.setdefault(each.subject, []).append(each)
    for result in results:
        subjects = (account_subject(result.ref.account), f"vault {result.ref.vault}")
        if not any(each.explains(result) for subject in subjects for each in problems.get(subject, ())):
            yield result


def by_cause(findings: Iterable[Diagnosis]) -> list[Diagnosis]:
    """One finding per cause: "ok" first, then warnings, then problems; within a level in natural order."""
    groups: dict[object, list[Diagnosis]] = {}
    for number, each in enumerate(findings):
        if each.level == "ok":
            key: object = number
        elif each.record is not None:
            key = identity_of(each.record)
        else:
            key = each.level, each.subject.partition(" ")[0], each.message, each.hint
        groups.setdefault(key, []).append(each)
    merged = (_merged(sorted(group, key=lambda each: natural(each.subject))) for group in groups.values())
    levels: tuple[Level, ...] = ("ok", "warning", "problem")
    return sorted(merged, key=lambda each: (levels.index(each.level), natural(each.subject)))


def _merged(group: list[Diagnosis]) -> Diagnosis:
    subjects = list(dict.fromkeys(each.subject for each in group))
    about = group[0].record.about if group[0].record is not None else ""
    main = next((each for each in group if about.startswith("credential ") and each.subject == about), None)
    main = main or next((each for each in group if each.subject.startswith("vault ")), group[0])
    if len(subjects) == 1:
        return main
    others = [subject for subject in subjects if subject != main.subject]
    if main.subject.startswith(("credential ", "vault ")):
        return replace(main, message=f"{main.message}; it also stops {_named(others)}", affected=tuple(subjects))
    hint = main.hint
    if hint is not None and any(each.hint != hint for each in group):
        hint = f"for {main.subject}, and the others in the same way: {hint}"
    return replace(main, subject=_named(subjects), hint=hint, affected=tuple(subjects))


def _named(subjects: Iterable[str]) -> str:
    by_noun: dict[str, list[str]] = {}
    for subject in subjects:
        noun, _, name = subject.partition(" ")
        by_noun.setdefault(noun, []).append(name)
    return "; ".join(affected(names, noun) for noun, names in by_noun.items())


def print_findings(findings: list[Diagnosis], output: str | None) -> None:
    """Prints the findings to stdout: `output` is ``text`` or ``json``."""
    if output == "json":
        sys.stdout.write(to_json({"findings": [each.to_dict() for each in findings]}) + "\n")
        return
    console = console_for(sys.stdout)
    passed = [each.subject for each in findings if each.level == "ok"]
    if passed:
        # As counts, such as `configuration, 1 credential, 300 accounts, 2 vaults`.
        counted = Counter(subject.partition(" ")[0] for subject in dict.fromkeys(passed)).items()
        nouns = ", ".join(noun if noun == "configuration" else many(count, noun) for noun, count in counted)
        console.line(Span("✓ ", "green"), Span(f"{nouns}: ok"), no_wrap=True)
    for each in (each for each in findings if each.level != "ok"):
        mark, style = _STYLES[each.level]
        console.line(Span(f"{mark} ", style), Span(each.subject, "bold"), Span(f": {each.message}"), no_wrap=True)
        if each.hint:
            print_message(console, each.hint, Span("    → ", "cyan"))
    counts = {level: sum(each.level == level for each in findings) for level in ("ok", "warning", "problem")}
    summary = f"{counts['ok']} ok, {many(counts['warning'], 'warning')}, {many(counts['problem'], 'problem')}"
    console.line(Span(summary, "bold red" if counts["problem"] else "bold green"))
