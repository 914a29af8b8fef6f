#!/usr/bin/env python3
"""Collects the licence texts of everything that is compiled into the binary.

    licenses.py OUT TARGET

OUT/NAME-VERSION has the files LICENSE, COPYING, NOTICE and so on of each crate, as the crate has them, OUT/rust and
OUT/musl those of the standard library and of the C library, OUT/zen-lead that of the project, and OUT/index.txt one
line for each crate with its licence. Which licences are allowed is decided by deny.toml. A crate without a text is an error.
"""

import json
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEXT = re.compile(r"^(licen[sc]e|copying|copyright|notice|unlicense|patents)", re.IGNORECASE)
# Crates that were published without their text, and the crate of the same repository that has it.
TEXT_OF = {"tonic-prost": "tonic"}
MUSL = "musl as a whole is licensed under the MIT licence.\n\nCopyright (c) 2005-2020 Rich Felker, et al.\n\n"


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def compiled_in(target: str) -> set[tuple[str, str]]:
    """Name and version of the crates in the binary; build scripts and derive macros are not in it."""
    tree = run("cargo", "tree", "--locked", "--package", "zen-lead", "--edges", "normal,no-proc-macro", "--target", target,
               "--prefix", "none", "--format", "{p}")
    return {(name, version.lstrip("v")) for name, version, *_ in (line.split() for line in tree.splitlines() if line)}


def texts(directory: str) -> list[str]:
    """The files with licence texts at the top of a crate, and in a directory of that name."""
    found = []
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if TEXT.match(name) and not name.endswith(".rs"):
            inner = sorted(os.listdir(path)) if os.path.isdir(path) else None
            found += [path] if inner is None else [os.path.join(path, file) for file in inner]
    return found


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: licenses.py OUT TARGET")
    out, target = sys.argv[1:]
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    packages = {(p["name"], p["version"]): p for p in metadata["packages"]}
    directory_of = {p["name"]: os.path.dirname(p["manifest_path"]) for p in metadata["packages"]}
    lines, missing = [], []
    for name, version in sorted(compiled_in(target)):
        package = packages[name, version]
        lines.append(f"{name} {version}: {package['license']}\n")
        if package["source"] is None:
            continue
        found = texts(os.path.dirname(package["manifest_path"]))
        if not found and name in TEXT_OF:
            found = texts(directory_of[TEXT_OF[name]])
        if not found and "Apache-2.0" in package["license"]:
            # This text is the same for all; a crate may leave it out.
            found = [os.path.join(ROOT, "LICENSE")]
        if not found:
            missing.append(f"{name} {version} ({package['license']})")
        os.makedirs(f"{out}/{name}-{version}")
        for path in found:
            shutil.copyfile(path, f"{out}/{name}-{version}/{os.path.basename(path)}")
    if missing:
        sys.exit("licenses.py: no licence text in " + ", ".join(missing) + "; name a sibling in TEXT_OF")

    os.makedirs(f"{out}/zen-lead")
    shutil.copyfile(f"{ROOT}/LICENSE", f"{out}/zen-lead/LICENSE")
    documents = os.path.join(run("rustc", "--print", "sysroot").strip(), "share/doc/rust")
    os.makedirs(f"{out}/rust")
    shutil.copyfile(f"{documents}/COPYRIGHT-library.html", f"{out}/rust/COPYRIGHT-library.html")
    if target.endswith("-musl"):
        os.makedirs(f"{out}/musl")
        with open(f"{documents}/licenses/MIT.txt", encoding="utf-8") as source:
            permission = source.read()
        with open(f"{out}/musl/COPYRIGHT", "w", encoding="utf-8") as file:
            file.write(MUSL + permission[permission.index("Permission is hereby"):])
    with open(f"{out}/index.txt", "w", encoding="utf-8") as file:
        file.writelines(lines)


main()
