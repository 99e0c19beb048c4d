"""Who runs the commands of each part of each page.

All of them are run by tests/docs/test_commands.py, in a shell with strict stand-ins of the programs
that they start. Those of `ELSEWHERE` are besides run for what they do, by the tests that it names.
"""

from __future__ import annotations

# A path, or several where each has some of the commands.
ELSEWHERE: dict[tuple[str, str], tuple[str, ...]] = {
    ("README.md", "On this computer"): ("tests/docs/test_this_computer.py",),
    ("README.md", "On Google Cloud"): ("tests/engine/test_manual.py",),
    ("README.md", "Who reaches the server"): ("tests/engine/test_manual.py",),
    ("docs/deploying.md", "A domain of your own"): ("tests/engine/test_manual.py",),
    ("docs/deploying.md", "From GitHub"): ("tests/engine/test_manual.py",),
    ("docs/moving.md", "From an SQLite file"): ("tests/chaos/test_moving_in.py",),
    ("docs/moving.md", "From a folder mlruns"): ("tests/chaos/test_moving_in.py",),
    ("docs/moving.md", "From another server"): ("tests/chaos/test_moving_in.py",),
    ("docs/moving.md", "From a deployment made by hand"): (
        "tests/engine/test_adoption.py",
        "tests/local/test_other_names.py",
    ),
    ("docs/moving.md", "Moving out"): ("tests/chaos/test_moving_out.py",),
    ("docs/runbooks.md", "Runbooks"): ("tests/engine/test_manual.py",),
    ("docs/runbooks.md", "More or less of it"): ("tests/engine/test_manual.py",),
    ("docs/runbooks.md", "An incident"): ("tests/engine/test_manual.py",),
}
# By stand-ins alone: Google's side of it is played by other means in tests/chaos, or the commands
# only look, or install.
STAND_INS = {
    ("README.md", "mlflow-gcp"),
    ("README.md", "Using it"),
    ("CONTRIBUTING.md", "Contributing"),
    ("CONTRIBUTING.md", "A new setting"),
    # Each sample itself: tests/gallery.
    ("sample_client/README.md", "Samples"),
    ("docs/deploying.md", "With what is there already"),
    ("docs/operating.md", "Deleting for good"),
    ("docs/runbooks.md", "Roll back"),
    # What Pulumi does about a deleted signer: tests/engine/test_life.py.
    ("docs/runbooks.md", "A stolen token of the server's account"),
    ("docs/runbooks.md", "Upgrade MLflow"),
    ("docs/runbooks.md", "Restore the database"),
    ("docs/runbooks.md", "Restore artifacts"),
}
