#!/usr/bin/env python3
"""Cuts the changes of one version out of CHANGELOG.md.

    notes.py markdown|artifacthub VERSION

markdown is the section as it is, artifacthub the same as the annotation artifacthub.io/changes of a chart (YAML). A
rehearsal before the section is dated gets the one of Unreleased; with RELEASE=true that is an error.
"""

import json
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def section(text: str, version: str) -> str:
    parts = re.split(r"^## \[(.+?)\].*\n", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2]))
    if version in sections:
        return sections[version].strip() + "\n"
    if os.environ.get("RELEASE") == "true" or "Unreleased" not in sections:
        sys.exit(f"notes.py: CHANGELOG.md has no section {version}; write: ## [{version}] - YYYY-MM-DD")
    return sections["Unreleased"].strip() + "\n"


def changes(notes: str) -> list[dict[str, str]]:
    """One entry for each item of a list, with the heading above it as its kind."""
    found, kind = [], "changed"
    for line in notes.splitlines():
        if line.startswith("### "):
            kind = line.removeprefix("### ").strip().lower()
        elif line.startswith("- "):
            found.append({"kind": kind, "description": line.removeprefix("- ")})
        elif line.strip() and found:
            found[-1]["description"] += " " + line.strip()
    return found


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in ("markdown", "artifacthub"):
        sys.exit("usage: notes.py markdown|artifacthub VERSION")
    with open(f"{ROOT}/CHANGELOG.md", encoding="utf-8") as file:
        notes = section(file.read(), sys.argv[2])
    if sys.argv[1] == "markdown":
        sys.stdout.write(notes)
        return
    for change in changes(notes):
        # A string of JSON is one of YAML.
        print(f"- kind: {change['kind']}\n  description: {json.dumps(change['description'], ensure_ascii=False)}")


main()
