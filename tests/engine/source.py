"""Copies Pulumi's source without the parts that no test uses: more than half of its build.

The parts are the commands for Pulumi Cloud, and the drivers for other clouds' keys and buckets. A
change of Pulumi's that an edit doesn't expect ends the build with the name of the file.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

MODULE = "github.com/pulumi/pulumi/pkg/v3"

# Folders of commands below cmd/pulumi: Pulumi Cloud, its agent, and writing manuals.
_COMMANDS = ("cloud", "do", "env", "insights", "markdown", "neo", "org", "trace")

# Other packages need only these files of these packages.
_KEPT = {
    "cmd/esc/cli": {"fs.go", "prepare.go"},
    "cmd/pulumi/cloud": {"envelope.go"},
}

_LEFT_OUT = (
    *(f"cmd/pulumi/{name}" for name in _COMMANDS if f"cmd/pulumi/{name}" not in _KEPT),
    "authhelpers",
    "cmd/pulumi/packagecmd/package_info.go",
    "operations/operations_aws.go",
    "operations/operations_gcp.go",
)

# For each file, patterns and what replaces them. Each pattern must be found.
_EDITS: dict[str, tuple[tuple[str, str], ...]] = {
    "backend/diy/backend.go": (
        (r'\t(_ )?"gocloud\.dev/blob/(azure|gcs|s3)blob".*\n', ""),
        (r'\t_? ?".*/(authhelpers|backend/diy/postgres)".*\n', ""),
        (r"\tif p\.Scheme == (gcs|azure)blob\.Scheme \{\n(\t\t.*\n)+\t\}\n", ""),
    ),
    "backend/diy/bucket.go": (
        (r'\t(awss3 ".*"|"net/url")\n', ""),
        (r"\t\tvar input .*\n\t\tif asFunc\(&input\) \{\n.*\n\t\t\}\n", ""),
        (r"func fixupS3CopySource\(.*\{\n(\t.*\n)+\}\n", ""),
    ),
    "cmd/pulumi/cloud/envelope.go": ((r"\tParameters +\[\]ParamSpec .*\n", ""),),
    "cmd/pulumi/config/config_env_init.go": (
        (r'\t".*/glamour"\n', ""),
        (r"\trenderer, err := (.*\n)+?\treturn rendered,", "\treturn markdown.String(),"),
    ),
    "cmd/pulumi/packagecmd/package.go": ((r"\t\tnewPackageInfoCmd\(\),\n", ""),),
    "cmd/pulumi/pulumi.go": tuple(
        (pattern.format(name=name), "")
        for name in _COMMANDS
        for pattern in (
            r'\t(cmd\w+ )?"[^"]*/cmd/pulumi/{name}"\n',
            r"\t+(?i:(cmd)?{name})\.New\w+Cmd\((.*\n)*?.*\),\n",
        )
    ),
    "operations/resources.go": (
        (r'\tcase "(aws|gcp)":\n\t\treturn (AWS|GCP)OperationsProvider\(.*\n', ""),
    ),
    "secrets/cloud/manager.go": (
        (r'\t(_ )?"gocloud\.dev/secrets/(awskms|azurekeyvault|gcpkms)".*\n', ""),
        (r'\t"(google\.golang\.org/api/cloudkms/v1|.*/authhelpers)"\n|\tnetUrl ".*"\n', ""),
        (r"\tu, err := netUrl(.*\n)+?\tdefault:\n\t(\treturn .*\n)\t\}\n", r"\2"),
    ),
}  # fmt: skip


def copy(module: Path, target: Path) -> None:
    """Copy the module's Go files, without tests, to a folder that is made anew."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(module, target, ignore=shutil.ignore_patterns("testdata", "*_test.go"))
    # Go's cache of modules is read-only.
    for folder in (target, *(each for each in target.rglob("*") if each.is_dir())):
        folder.chmod(0o755)
    for package, kept in _KEPT.items():
        for file in (target / package).glob("*.go"):
            if file.name not in kept:
                file.unlink()
    for name in _LEFT_OUT:
        path = target / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, edits in _EDITS.items():
        file = target / name
        file.chmod(0o644)
        text = file.read_text()
        for pattern, replacement in edits:
            text, found = re.subn(pattern, replacement, text)
            if not found:
                raise ValueError(f"{MODULE} {name}: {pattern} isn't in it; see {__file__}")
        file.write_text(text)
