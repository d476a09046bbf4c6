#!/usr/bin/env python3
"""clang-tidy and cppcheck over app lib host formats arch; exits 1 on any finding.

    scripts/lint.py [--build build/release] [FILE...]

.clang-tidy says what clang-tidy looks for, .cppcheck what cppcheck leaves out. The static analysis behind clang-tidy costs a
second or two a file: what was found good is kept in BUILD/lint by the hash of the file's preprocessed text, comments included,
so that only what has changed since, headers too, is looked at again.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time

FOLDERS = ("app", "lib", "host", "formats", "arch")
VERSIONS = {"clang-tidy": r"version 14\.", "cppcheck": r"Cppcheck 2\.10"}  # Debian 12's: others find other things


def usable(tool):
    if not shutil.which(tool):
        print(f"skipped: wants {tool} (Debian: {tool})")
        return False
    said = subprocess.run([tool, "--version"], capture_output=True, text=True).stdout
    if not re.search(VERSIONS[tool], said):
        print(f"skipped: the tree is clean by {tool} of Debian 12, this one would differ: {' '.join(said.split())[:80]}")
        return False
    return True


class Tidy:
    def __init__(self, build):
        self.build, self.cache = build, build / "lint"
        self.cache.mkdir(parents=True, exist_ok=True)
        self.config = pathlib.Path(".clang-tidy").read_bytes()
        self.looked_at, self.lock = 0, threading.Lock()

    def key(self, command):
        """A hash of all that clang-tidy reads of a file; None where it cannot be preprocessed."""
        words = shlex.split(command["command"])
        keep = [w for w in words[1:] if w.startswith(("-D", "-I", "-isystem", "-std", "-include"))]
        text = subprocess.run(["cc", "-E", "-C", "-D__clang_analyzer__", *keep, command["file"]],
                              cwd=command["directory"], capture_output=True)
        return hashlib.sha256(self.config + " ".join(keep).encode() + text.stdout).hexdigest() if text.returncode == 0 else None

    def check(self, command):
        """What it found in a file; empty where it is good."""
        key = self.key(command)
        if key and (self.cache / key).exists():
            os.utime(self.cache / key)
            return ""
        with self.lock:
            self.looked_at += 1
        ran = subprocess.run(["clang-tidy", "-p", self.build, "--quiet", command["file"]], capture_output=True, text=True)
        if ran.returncode == 0:
            if key:
                (self.cache / key).touch()
            return ""
        return ran.stdout or ran.stderr

    def forget(self, days=30):
        for entry in self.cache.iterdir():
            if entry.is_file() and time.time() - entry.stat().st_mtime > days * 86400:
                entry.unlink()


def tidy(build, only, jobs):
    commands = {}
    for command in json.loads((build / "compile_commands.json").read_text()):
        path = pathlib.Path(command["file"])
        name = os.path.relpath(path)
        if name.startswith(tuple(f + "/" for f in FOLDERS)) and (not only or name in only):
            commands[name] = command
    work = Tidy(build)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        found = 0
        for text in pool.map(work.check, commands.values()):
            print(text, end="", flush=True)
            found += bool(text)
    work.forget()
    print(f"clang-tidy: {len(commands)} files, {work.looked_at} of them looked at, {found} with findings")
    return not found


def cppcheck(build, only, jobs):
    """All of them, those of Windows too: it wants no compiler's command."""
    kept = build / "lint" / "cppcheck"
    kept.mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(
        ["cppcheck", "--quiet", f"-j{jobs}", "--std=c11", "--language=c", "-I.", f"-I{build}", "--inline-suppr", "-U__clang_analyzer__",
         "--enable=warning,performance,portability", "--suppressions-list=.cppcheck", f"--cppcheck-build-dir={kept}",
         "--template={file}:{line}: {severity}: {message} [{id}]", "--error-exitcode=1", *(only or FOLDERS)],
        capture_output=True, text=True)
    print(ran.stdout + ran.stderr, end="")
    print(f"cppcheck: {'good' if ran.returncode == 0 else 'findings'}")
    return ran.returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default="build/release", help="a configured build, for its compile_commands.json")
    parser.add_argument("files", nargs="*", help="only these")
    args = parser.parse_args()
    os.chdir(pathlib.Path(__file__).resolve().parent.parent)
    jobs = os.cpu_count() or 1
    good = True
    if usable("clang-tidy"):
        good = tidy(args.build, set(args.files), jobs) and good
    if usable("cppcheck"):
        good = cppcheck(args.build, args.files, jobs) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
