"""Lists the test that runs the commands of each section of each page.

tests/docs/test_commands.py runs all of them, in a shell with strict stand-ins of the programs that
they start. The tests that `ELSEWHERE` names also run them for their effect.
"""

from __future__ import annotations

# A path, or several if each runs some of the commands.
ELSEWHERE: dict[tuple[str, str], tuple[str, ...]] = {
    ("README.md", "On this computer"): ("tests/docs/test_this_computer.py",),
    ("README.md", "On Google Cloud"): ("tests/engine/test_manual.py",),
    ("docs/access.md", "Choosing who can reach the server"): ("tests/engine/test_manual.py",),
    ("docs/access.md", "Logging in from a program"): ("tests/engine/test_manual.py",),
    ("docs/deploying.md", "A domain of your own"): ("tests/engine/test_manual.py",),
    ("docs/github.md", "The main branch"): ("tests/engine/test_manual.py",),
    ("docs/github.md", "Previews of pull requests"): ("tests/engine/test_manual.py",),
    ("docs/moving.md", "From an SQLite file"): ("tests/chaos/test_moving_in.py",),
    ("docs/moving.md", "From a folder mlruns"): ("tests/chaos/test_moving_in.py",),
    ("docs/moving.md", "From another server"): ("tests/chaos/test_moving_in.py",),
    ("docs/moving.md", "From a deployment made by hand"): (
        "tests/engine/test_adoption.py",
        "tests/local/test_other_names.py",
    ),
    ("docs/moving-out.md", "Take the data"): ("tests/chaos/test_moving_out.py",),
    ("docs/moving-out.md", "Start another server"): ("tests/chaos/test_moving_out.py",),
    ("docs/scaling.md", "Finding the bottleneck"): ("tests/engine/test_manual.py",),
    ("docs/scaling.md", "Changing it"): ("tests/engine/test_manual.py",),
    ("docs/incidents.md", "Incidents"): ("tests/engine/test_manual.py",),
    ("docs/incidents.md", "A leaked password"): ("tests/engine/test_manual.py",),
    ("docs/incidents.md", "Lock the server down"): ("tests/engine/test_manual.py",),
    ("docs/incidents.md", "Find out who did what"): ("tests/engine/test_manual.py",),
    ("docs/incidents.md", "The server returns 5xx"): ("tests/engine/test_manual.py",),
}
# Only with stand-ins: tests/chaos plays Google's side by other means, or the commands only read or
# install something.
STAND_INS = {
    ("README.md", "mlflow-gcp"),
    ("README.md", "Using it"),
    ("CONTRIBUTING.md", "Contributing"),
    ("CONTRIBUTING.md", "A new setting"),
    # Each sample itself: tests/gallery.
    ("sample_client/README.md", "Samples"),
    ("docs/accounts.md", "Accounts"),
    ("docs/accounts.md", "Adding a person"),
    # The settings themselves: tests/infra/test_access.py.
    ("docs/accounts.md", "Signing in with Google"),
    ("docs/accounts.md", "The log"),
    ("docs/using.md", "From MLflow's client"),
    ("docs/logging-runs.md", "Set up your computer"),
    ("docs/calendar.md", "Restore drill"),
    ("docs/existing.md", "A secret with the password"),
    ("docs/operating.md", "Deleting permanently"),
    # The job itself: tests/server/test_upkeep.py, tests/operations/test_local_stack.py.
    ("docs/upkeep.md", "Set it up"),
    # The worker itself: tests/server/test_jobs.py, tests/operations/test_local_stack.py.
    ("docs/jobs.md", "Set it up"),
    ("docs/jobs.md", "The log"),
    ("docs/runbooks.md", "Runbooks"),
    ("docs/runbooks.md", "Roll back"),
    ("docs/deploying.md", "The first deployment"),
    ("docs/deploying.md", "Labels"),
    ("docs/ready-image.md", "Verify an image"),
    ("docs/ready-image.md", "Copy it into your registry"),
    # What Pulumi does about a deleted signer: tests/engine/test_life.py.
    ("docs/incidents.md", "A stolen token of the server's account"),
    ("docs/runbooks.md", "Upgrade MLflow"),
    ("docs/runbooks.md", "Restore the database"),
    ("docs/runbooks.md", "Restore artifacts"),
}
