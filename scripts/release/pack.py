#!/usr/bin/env python3
"""Packs a directory into an archive whose bytes depend on its contents only.

    pack.py tar|tgz|wheel OUT EPOCH DIR

Files are sorted. They belong to root and have the time EPOCH (seconds since 1970; a wheel knows no year before 1980).
Modes are 755 for directories and for files that their owner may execute, 644 for others. Links are refused. A wheel
gets its RECORD, the list of its files with their hashes. What goes into an archive is decided by the other scripts.
"""

import base64
import gzip
import hashlib
import io
import os
import sys
import tarfile
import time
import zipfile


def files_of(root: str) -> list[tuple[str, str]]:
    """Path in the archive and on disk of everything below root, directories before their contents."""
    found = []
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                sys.exit(f"pack.py: {path} is a link; copy the file instead")
            found.append((os.path.relpath(path, root), path))
    return sorted(found)


def mode_of(path: str) -> int:
    return 0o755 if os.path.isdir(path) or os.stat(path).st_mode & 0o100 else 0o644


def tar(root: str, epoch: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, path in files_of(root):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.mtime = mode_of(path), epoch
            if os.path.isdir(path):
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
                continue
            entry.size = os.path.getsize(path)
            with open(path, "rb") as content:
                archive.addfile(entry, content)
    return buffer.getvalue()


def tgz(root: str, epoch: int) -> bytes:
    # Neither a name nor a time in the header of gzip.
    return gzip.compress(tar(root, epoch), compresslevel=9, mtime=0)


def wheel(root: str, epoch: int) -> bytes:
    buffer = io.BytesIO()
    when = time.gmtime(max(epoch, 315532800))[:6]
    record = []
    with zipfile.ZipFile(buffer, "w") as archive:

        def add(name: str, mode: int, content: bytes) -> None:
            entry = zipfile.ZipInfo(name, when)
            entry.create_system = 3
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=9)

        for name, path in files_of(root):
            if os.path.isdir(path):
                if name.endswith(".dist-info"):
                    record.append(f"{name}/RECORD,,\n")
                continue
            with open(path, "rb") as file:
                content = file.read()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            record.append(f"{name},sha256={digest},{len(content)}\n")
            add(name, mode_of(path), content)
        own = next(line for line in record if line.endswith("/RECORD,,\n"))
        add(own.removesuffix(",,\n"), 0o644, "".join(record).encode())
    return buffer.getvalue()


def main() -> None:
    kinds = {"tar": tar, "tgz": tgz, "wheel": wheel}
    if len(sys.argv) != 5 or sys.argv[1] not in kinds:
        sys.exit("usage: pack.py tar|tgz|wheel OUT EPOCH DIR")
    _, kind, out, epoch, root = sys.argv
    if not os.path.isdir(root):
        sys.exit(f"pack.py: there is no directory {root}")
    with open(out, "wb") as file:
        file.write(kinds[kind](root, int(epoch)))


main()
