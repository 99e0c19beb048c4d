"""Each setting that is refused, how it is said, and that it is all said at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pytest
import yaml

from infra.facts import tiers
from infra.facts.limits import CONNECTIONS_PER_PROCESS, mebibytes
from infra.settings.loader import load
from infra.settings.reader import SettingsError
from tests.infra.declared import ROOT

NAMED = {"gcp:project": "my-project"}
# As many connections as the processes of 8 CPUs need, on a machine that accepts them.
MANY = {"databaseConnections": 32, "databaseTier": "db-custom-1-3840"}
KEY = "projects/my-keys/locations/us-central1/keyRings/ring/cryptoKeys/mlflow_1"
ADA = '["user:ada@example.com"]'
NETWORK = "projects/my-project/global/networks/my-network"
SUBNETWORK = "projects/my-project/regions/us-central1/subnetworks/my-subnetwork"
SECRET = "projects/my-project/secrets/my-password/versions/1"
SHARED, DOMAINS = "my-project:us-central1:shared", '["mlflow.example.com"]'
EMAIL, PAYER = "oncall+mlflow@example.com", "012345-6789AB-CDEF01"


def loaded(**settings: Any) -> Any:
    return load({**NAMED, **{f"mlflow-gcp:{key}": value for key, value in settings.items()}})


def refused(config: Mapping[str, Any]) -> SettingsError:
    with pytest.raises(SettingsError) as error:
        load(config, is_secret=lambda _: False)
    return error.value


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("gcp:project", "", "the id of a Google Cloud project"),
        ("gcp:project", "My-Project", "6 to 30 lower-case"),
        ("gcp:project", "short", "6 to 30 lower-case"),
        ("gcp:project", "1-project", "starting with a letter"),
        ("gcp:project", "ends-with-", "not ending with a hyphen"),
        ("gcp:project", "p" * 31, "6 to 30"),
        ("gcp:project", "123456789012", "not the name or number"),
        ("gcp:region", "us-centrall1", "us-central1"),
        ("gcp:region", "us-central1-a", "us-central1"),
        ("gcp:region", "mars", "a region of Cloud Run"),
        ("name", "MLflow", "lower-case"),
        ("name", "1st", "starting with a letter"),
        ("name", "ml-", "not ending"),
        ("name", "ml_flow", "lower-case letters, digits and hyphens"),
        ("name", "n" * 24, "at most 23 characters"),
        ("name", "my-google-ml", "google"),
        ("artifacts", "both", "one of proxied, direct"),
        ("access", "private", "one of public, internal, iam, iap"),
        ("invokers", "user:ada@example.com", "a list of user:, group:"),
        ("invokers", '["ada@example.com"]', "a list of user:, group:"),
        ("invokers", '["user:ada"]', "with an e-mail address"),
        ("invokers", '["user:a@b@example.com"]', "with an e-mail address"),
        ("invokers", '["domain:ada@example.com"]', "domain: with a domain"),
        ("invokers", '["User:ada@example.com"]', "a list of user:, group:"),
        ("invokers", '["principalSet://iam.googleapis.com/x"]', "a list of user:, group:"),
        ("invokers", '["allUsers"]', "not allUsers"),
        ("invokers", '["allAuthenticatedUsers"]', "not allUsers or allAuthenticatedUsers"),
        ("invokers", '["user:ada@example.com", "allUsers"]', "not allUsers"),
        ("invokers", "[1]", "a list of user:, group:"),
        ("publicThrough", "everyone", "one of allUsers, invokerIamDisabled"),
        ("trackingUsername", "ml:flow", "without a colon"),
        ("trackingUsername", " mlflow", "without spaces"),
        ("trackingUsername", "ml\nflow", "printable"),
        ("trackingPassword", "fourteen chars", "at least 15"),
        ("trackingPassword", "with-a-line-end\n", "line end"),
        ("viewerUsername", "view:er", "without a colon"),
        ("viewerUsername", "mlflow", "another name than trackingUsername's"),
        ("viewerPassword", "fourteen chars", "at least 15"),
        ("image", "us-docker.pkg.dev/p/r/server", "its digest or tag"),
        ("image", "ghcr.io/owner/server:1", "what Cloud Run pulls from"),
        ("image", "not an image:1", "an image"),
        ("builder", "podman", "one of docker, cloud-build"),
        ("databaseVersion", "14", "from 15 to 18"),
        ("databaseVersion", "19", "from 15 to 18"),
        ("databaseVersion", "17.2", "a whole number"),
        ("databaseTier", "db-f1-mikro", "db-f1-micro"),
        ("databaseTier", "db-custom-3-7680", "1 CPU or an even number"),
        ("databaseTier", "db-custom-1-3840-HIGHMEM", "db-custom"),
        ("databaseTier", "db-custom-1-2048", "at least 3840"),
        ("databaseTier", "db-custom-1-7680", "6.5 GiB"),
        ("databaseTier", "db-custom-2-7681", "a multiple of 256"),
        ("databaseTier", "db-perf-optimized-N-3", "db-perf-optimized-N-<2|4|"),
        ("databaseEdition", "PLUS", "one of ENTERPRISE, ENTERPRISE_PLUS"),
        ("databaseDiskGb", "9", "from 10 to 65536 GB"),
        ("databaseAvailability", "GLOBAL", "one of ZONAL, REGIONAL"),
        ("databaseConnections", "3", "from 4 to"),
        ("backupRetention", "0", "from 1 to 365"),
        ("memory", "511Mi", "512Mi to 4096Mi"),
        ("memory", "5Gi", "512Mi to 4096Mi"),
        ("memory", "1G", "Mi or Gi"),
        ("memory", "1.5Gi", "a whole number of Mi or Gi"),
        ("memory", "[]", "Mi or Gi"),
        ("memory", [], "Mi or Gi"),
        ("cpu", "3", "one of 1, 2, 4, 6, 8"),
        ("cpu", "0.5", "one of 1, 2, 4, 6, 8"),
        ("concurrency", "1001", "from 1 to 1000"),
        ("minInstances", "-1", "from 0"),
        ("maxInstances", "0", "from 1"),
        ("maxInstances", "many", "a whole number"),
        ("maxInstances", "true", "a whole number"),
        ("maxInstances", {"a": 1}, "a whole number"),
        ("maxInstances", "9" * 5000, "a whole number"),
        ("requestTimeout", "3601", "from 1 to 3600 seconds"),
        ("customDomains", "mlflow.example.com", "a list of host names"),
        ("customDomains", '{"a": "b.com"}', "a list of host names"),
        ("customDomains", '["https://a.example.com"]', "without scheme"),
        ("customDomains", '["a.example.com:8080"]', "without scheme, port"),
        ("customDomains", '["*"]', "or *"),
        ("customDomains", '["*.example.com"]', "or *"),
        ("customDomains", '["a.example.com,evil.com"]', "host names"),
        ("customDomains", "[1]", "host names"),
        ("internalNetworks", "10.8.0.0/24", "a list of private address ranges"),
        ("internalNetworks", '["10.8.0.1/24"]', "private address ranges"),
        ("internalNetworks", '["10.8.0.0"]', "private address ranges"),
        ("internalNetworks", '["0.0.0.0/0"]', "private address ranges"),
        ("internalNetworks", '["127.0.0.0/8"]', "private address ranges"),
        ("internalNetworks", '["169.254.0.0/16"]', "private address ranges"),
        ("internalNetworks", '["8.8.8.0/24"]', "private address ranges"),
        ("internalNetworks", '["llm.internal"]', "private address ranges"),
        ("deletionProtection", "yes", "true or false"),
        ("bucketForceDestroy", "1", "true or false"),
        ("mlflowTelemetry", "off", "true or false"),
        ("bucketLocation", "moon", "a region, or one of"),
        ("existingBucket", "gs://my-artifacts", "without gs://"),
        ("existingBucket", "My-Artifacts", "the name of a bucket"),
        ("existingDatabaseInstance", "shared", "the connection name"),
        ("existingDatabaseInstance", "my-project:us-central1:Shared", "the connection name"),
        ("existingNetwork", "My-Network", "the name of a VPC network"),
        ("existingNetwork", "projects/p/global/networks/n", "or the full name"),
        ("existingNetwork", f"{NETWORK}/", "or the full name"),
        ("existingSubnetwork", f"{SUBNETWORK}\n", "or its full name"),
        ("existingSubnetwork", "my-subnetwork", "with it existingNetwork"),
        ("existingNetwork", NETWORK, "with it network private"),
        ("trackingPasswordSecret", "my-password/versions/1", "by the project's id"),
        ("trackingPasswordSecret", SECRET.replace("my-project", "123456789012"), "project's id"),
        ("trackingPasswordSecret", SECRET.replace("/1", "/latest"), "with the version's number"),
        ("trackingPasswordSecret", SECRET.replace("my-project", "other-project"), "no other's"),
        ("loadBalancer", "yes", "true or false"),
        ("rateLimit", "1000001", "from 0 to 1000000 requests a minute"),
        ("network", "internal", "one of public, private"),
        ("kmsKey", "mlflow", "the full name of a key"),
        ("kmsKey", f"{KEY}/cryptoKeyVersions/1", "not of a version of it"),
        ("kmsKey", f"//cloudkms.googleapis.com/{KEY}", "the full name of a key"),
        ("kmsKey", f"{KEY}\n", "the full name of a key"),
        ("kmsKey", KEY.replace("us-central1", "us-east1"), "a key in us-central1"),
        ("kmsKey", KEY.replace("us-central1", "global"), "this one is in global"),
        ("alertEmail", "oncall", "one e-mail address"),
        ("alertEmail", "on call@example.com", "one e-mail address"),
        ("alertEmail", "a@example.com,b@example.com", "one e-mail address"),
        ("alertEmail", "Ada <ada@example.com>", "one e-mail address"),
        ("alertEmail", "ada@example.com\n", "one e-mail address"),
        ("alertEmail", "ada@localhost", "one e-mail address"),
        ("uptimeCheck", "yes", "true or false"),
        ("monthlyBudget", "-1", "from 0"),
        ("monthlyBudget", "49.90", "a whole number"),
        ("billingAccount", "012345-678901-cdef01", "in upper case"),
        ("billingAccount", "billingAccounts/012345-6789AB-CDEF01", "the id of a billing account"),
        ("maxInstance", "3", "did you mean maxInstances?"),
        ("nonsense", "3", "a key that Pulumi.yaml lists"),
    ],
)
def test_refused(key: str, value: Any, wanted: str) -> None:
    full = key if ":" in key else f"mlflow-gcp:{key}"
    [problem] = refused({**NAMED, full: value}).problems
    assert problem.key == full
    assert wanted in problem.wanted
    assert problem.example.startswith("pulumi config ")


@pytest.mark.parametrize(
    ("settings", "key", "wanted"),
    [
        ({"image": "gcr.io/p/s:1", "builder": "cloud-build"}, "builder", "no builder beside"),
        ({"access": "iam"}, "invokers", "with access iam at least one"),
        ({"access": "iap", "invokers": "[]"}, "invokers", "with access iap at least one"),
        ({"invokers": ADA}, "invokers", "none: they are let in by access iam or iap"),
        ({"access": "internal", "invokers": ADA}, "invokers", "everybody in the VPC"),
        (
            {"access": "internal", "publicThrough": "invokerIamDisabled"},
            "publicThrough",
            "nothing: it says how access public is granted, and access is internal",
        ),
        (
            {"access": "iap", "invokers": ADA, "publicThrough": "invokerIamDisabled"},
            "publicThrough",
            "access is iap",
        ),
        ({"kmsKey": KEY, "bucketLocation": "US"}, "bucketLocation", "none beside kmsKey"),
        *(
            ({"existingDatabaseInstance": SHARED, key: value}, key, "nothing beside existingData")
            for key, value in (
                ("network", "private"),
                ("databaseVersion", 18),
                ("databaseEdition", "ENTERPRISE_PLUS"),
                ("databaseDiskGb", 20),
                ("databaseDiskLimitGb", 50),
                ("databaseAvailability", "REGIONAL"),
                ("backupRetention", 3),
            )
        ),
        (
            {"existingDatabaseInstance": "other-project:us-central1:shared"},
            "existingDatabaseInstance",
            "in the stack's project, which is my-project",
        ),
        *(
            ({"existingBucket": "my-artifacts", key: value}, key, "nothing beside existingBucket")
            for key, value in (("bucketLocation", "EU"), ("bucketForceDestroy", "true"))
        ),
        *(
            (
                {
                    "network": "private",
                    "existingNetwork": NETWORK,
                    "existingSubnetwork": SUBNETWORK.replace(old, new),
                },
                "existingSubnetwork",
                "a subnetwork in us-central1, where the server is, and of the project my-project",
            )
            for old, new in (("us-central1", "us-east1"), ("my-project", "other-project"))
        ),
        (
            {"trackingPasswordSecret": SECRET, "trackingPasswordVersion": 2},
            "trackingPasswordSecret",
            "nothing beside trackingPasswordVersion",
        ),
        ({"viewerPasswordSecret": SECRET}, "viewerUsername", "with viewerPasswordSecret the name"),
        (
            {
                "trackingPasswordSecret": SECRET,
                "viewerUsername": "viewer",
                "viewerPasswordSecret": SECRET.replace("/1", "/2"),
            },
            "viewerPasswordSecret",
            "another secret than trackingPasswordSecret's",
        ),
        *(
            (
                {
                    "viewerUsername": "viewer",
                    f"{who}PasswordSecret": SECRET.replace("my-password", own),
                },
                f"{who}PasswordSecret",
                f"a secret of your own: {own} is the stack's",
            )
            for who, own in (
                ("tracking", "mlflow_tracking_password"),
                ("viewer", "mlflow_tracking_password"),
                ("viewer", "mlflow_kek_passphrase"),
            )
        ),
        ({"loadBalancer": "true"}, "customDomains", "with loadBalancer at least one"),
        (
            {
                "loadBalancer": "true",
                "customDomains": [f"ml{number}.example.com" for number in range(16)],
            },
            "customDomains",
            "at most 15",
        ),
        (
            {"loadBalancer": "true", "customDomains": DOMAINS, "access": "internal"},
            "loadBalancer",
            "false: it is for callers from the internet",
        ),
        ({"rateLimit": 6000}, "rateLimit", "with it loadBalancer"),
        (
            {"loadBalancer": "true", "customDomains": DOMAINS, "rateLimit": 99},
            "rateLimit",
            "at least 100",
        ),
        ({"uptimeCheck": "true"}, "uptimeCheck", "with it alertEmail"),
        ({"monthlyBudget": "50", "billingAccount": PAYER}, "monthlyBudget", "with it alertEmail"),
        (
            {"monthlyBudget": "50", "alertEmail": EMAIL},
            "billingAccount",
            "with monthlyBudget the billing account",
        ),
        (
            {"billingAccount": PAYER, "alertEmail": EMAIL},
            "monthlyBudget",
            "an amount of at least 1",
        ),
        (
            {"uptimeCheck": "true", "alertEmail": EMAIL, "access": "internal"},
            "uptimeCheck",
            "false: Google asks from the internet without logging in, which access internal",
        ),
        (
            {"uptimeCheck": "true", "alertEmail": EMAIL, "access": "iam", "invokers": ADA},
            "uptimeCheck",
            "which access iam refuses",
        ),
        ({"databaseEdition": "ENTERPRISE_PLUS"}, "databaseEdition", "ENTERPRISE, which"),
        (
            {"databaseTier": "db-perf-optimized-N-2"},
            "databaseEdition",
            "ENTERPRISE_PLUS, which databaseTier db-perf-optimized-N-2 belongs to",
        ),
        ({"databaseDiskLimitGb": 10, "databaseDiskGb": 20}, "databaseDiskLimitGb", "at least"),
        ({"minInstances": 3}, "minInstances", "at most maxInstances, which is 2"),
        (
            {"cpu": 8, "memory": "4Gi", "databaseConnections": 31},
            "databaseConnections",
            "at least 32: 4, which one request may take, for each of the 8 processes",
        ),
        ({"cpu": 4, **MANY}, "memory", "2048Mi to 16384Mi, which is what 4 CPU can have"),
        ({"cpu": 8, "memory": "33Gi", **MANY}, "memory", "4096Mi to 32768Mi"),
    ],
)
def test_options_that_exclude_each_other(settings: dict[str, Any], key: str, wanted: str) -> None:
    [problem] = refused(
        {**NAMED, **{f"mlflow-gcp:{name}": value for name, value in settings.items()}}
    ).problems
    assert problem.key == f"mlflow-gcp:{key}"
    assert wanted in problem.wanted


def test_a_key_of_the_stacks_region() -> None:
    assert loaded().kms_key is None
    assert loaded(kmsKey=KEY).kms_key == KEY
    # The bucket's place may be said; a region that is none isn't held against the key.
    assert loaded(kmsKey=KEY, bucketLocation="us-central1").kms_key == KEY
    config = {"gcp:region": "us-centrall1", "mlflow-gcp:kmsKey": KEY.replace("central", "east")}
    assert [p.key for p in refused({**NAMED, **config}).problems] == ["gcp:region"]


def test_an_invoker_is_one_however_it_is_written() -> None:
    given = [
        "user:Ada@Example.com",
        "user:ada@example.com",
        "serviceAccount:ci@my-project.iam.gserviceaccount.com",
        "group:ml@example.com",
        "domain:Example.com",
    ]
    assert loaded(access="iam", invokers=given).access.invokers == (
        "user:ada@example.com",
        "serviceAccount:ci@my-project.iam.gserviceaccount.com",
        "group:ml@example.com",
        "domain:example.com",
    )


def test_what_is_wrong_with_access_is_said_at_once_and_once() -> None:
    settings = {"access": "internal", "publicThrough": "invokerIamDisabled", "invokers": ADA}
    config = {f"mlflow-gcp:{key}": value for key, value in settings.items()}
    problems = refused({**NAMED, **config}).problems
    assert [p.key for p in problems] == ["mlflow-gcp:publicThrough", "mlflow-gcp:invokers"]
    # With an access that is none nothing else of it can be judged.
    config |= {"mlflow-gcp:access": "private"}
    assert [p.key for p in refused({**NAMED, **config}).problems] == ["mlflow-gcp:access"]
    config |= {"mlflow-gcp:access": "iam", "mlflow-gcp:invokers": "ada"}
    assert len(refused({**NAMED, **config}).problems) == 2


def test_all_that_is_missing_for_alerts_is_said_at_once() -> None:
    config = {"mlflow-gcp:uptimeCheck": "true", "mlflow-gcp:monthlyBudget": "50"}
    problems = refused({**NAMED, **config}).problems
    assert {problem.key.partition(":")[2] for problem in problems} == {
        "uptimeCheck",
        "monthlyBudget",
        "billingAccount",
    }
    # An address that is none is not missed as well.
    config["mlflow-gcp:alertEmail"] = "oncall"
    problems = refused({**NAMED, **config}).problems
    assert {problem.key.partition(":")[2] for problem in problems} == {
        "alertEmail",
        "billingAccount",
    }


def test_bucket_name_too_long_for_this_project() -> None:
    config = {"gcp:project": "p" * 30, "mlflow-gcp:name": "n" * 16}
    [problem] = refused(config).problems
    assert problem.key == "mlflow-gcp:name"
    assert "at most 15 characters" in problem.wanted
    assert "64 of 63" in problem.wanted
    assert load({**config, "mlflow-gcp:name": "n" * 15}).name == "n" * 15


def test_the_tier_of_an_existing_instance_says_how_many_connections_it_accepts() -> None:
    shared = {"existingDatabaseInstance": SHARED, "maxInstances": 20}
    assert refused({**NAMED, **{f"mlflow-gcp:{key}": value for key, value in shared.items()}})
    # Its edition is not asked for.
    found = loaded(**shared, databaseTier="db-perf-optimized-N-2")
    assert found.database.existing_instance == SHARED


def test_connection_budget_shows_the_arithmetic_and_the_ways_out() -> None:
    config = {**NAMED, "mlflow-gcp:maxInstances": "3"}
    [problem] = refused(config).problems
    assert problem.given == "maxInstances 3 x databaseConnections 8 = 24"
    assert problem.wanted == (
        "at most 17: db-f1-micro accepts 25, less 8 (3 superuser_reserved_connections, "
        "3 Cloud SQL's agents, 2 a new revision that boots); take maxInstances 2 or "
        "databaseConnections 5 or a larger databaseTier (db-g1-small)"
    )


@pytest.mark.parametrize(
    ("instances", "connections", "tier", "fits"),
    [
        (2, 8, "db-f1-micro", True),
        (1, 17, "db-f1-micro", True),
        (1, 18, "db-f1-micro", False),
        (5, 4, "db-f1-micro", False),
        (5, 8, "db-g1-small", True),
        (6, 8, "db-g1-small", False),
        (11, 8, "db-custom-1-3840", True),
        (12, 8, "db-custom-1-3840", False),
        (124, 8, "db-custom-20-122880", True),
        (1000, 4, "db-custom-20-122880", False),
    ],
)
def test_connection_budget(instances: int, connections: int, tier: str, fits: bool) -> None:
    settings = {
        "maxInstances": instances,
        "databaseConnections": connections,
        "databaseTier": tier,
    }
    if fits:
        assert loaded(**settings).database.connections == connections
    else:
        with pytest.raises(SettingsError, match=f"{instances * connections}"):
            loaded(**settings)


def test_all_errors_at_once_and_no_secret_among_them() -> None:
    error = refused(
        {
            "mlflow-gcp:memory": "tiny",
            "mlflow-gcp:trackingPassword": "hunter2",
            "mlflow-gcp:trackingUsername": "mlflow:hunter2",
            "mlflow-gcp:trakingPassword": "hunter2",
            "mlflow-gcp:maxInstances": "many",
        }
    )
    assert isinstance(error, pulumi.RunError)
    assert [problem.key for problem in error.problems] == [
        "gcp:project",
        "mlflow-gcp:trackingUsername",
        "mlflow-gcp:trackingPassword",
        "mlflow-gcp:memory",
        "mlflow-gcp:maxInstances",
        "mlflow-gcp:trakingPassword",
    ]
    assert "hunter2" not in str(error)
    assert str(error).startswith("6 settings to correct, nothing was changed:\n  gcp:project\n")
    assert (
        "  mlflow-gcp:memory\n"
        "    given:   tiny\n"
        "    wanted:  a whole number of Mi or Gi\n"
        "    example: pulumi config set memory 1Gi"
    ) in str(error)


def test_a_refused_value_is_not_refused_twice() -> None:
    """Neither the pair of memory and CPU nor the connection budget is checked with it."""
    assert len(refused({**NAMED, "mlflow-gcp:cpu": "3", "mlflow-gcp:memory": "9Gi"}).problems) == 1
    assert len(refused({**NAMED, "mlflow-gcp:databaseTier": "db-huge"}).problems) == 1


def test_the_password_is_not_shown_by_settings() -> None:
    key = "mlflow-gcp:trackingPassword"
    settings = load({**NAMED, key: "correct horse battery"}, is_secret=key.__eq__)
    assert settings.tracking.password == "correct horse battery"
    assert "correct horse battery" not in repr(settings)


def test_a_password_in_plain_text_is_refused() -> None:
    [problem] = refused({**NAMED, "mlflow-gcp:trackingPassword": "correct horse battery"}).problems
    assert problem.key == "mlflow-gcp:trackingPassword"
    assert "set with --secret" in problem.wanted
    assert "config set --secret trackingPassword" in problem.example
    assert "correct horse battery" not in str(problem)
    assert loaded(trackingPassword="").tracking.password is None


def test_a_password_in_the_place_of_its_secrets_name_is_not_shown() -> None:
    given = {"mlflow-gcp:trackingPasswordSecret": "correct horse battery"}
    [problem] = refused({**NAMED, **given}).problems
    assert "correct horse battery" not in str(problem)


def test_a_password_is_in_one_place() -> None:
    both = {"trackingPasswordSecret": SECRET, "trackingPassword": "correct horse battery"}
    with pytest.raises(SettingsError, match="nothing beside trackingPassword, which") as twice:
        load(
            {**NAMED, **{f"mlflow-gcp:{key}": value for key, value in both.items()}},
            is_secret=lambda _: True,
        )
    assert "correct horse battery" not in str(twice.value)


def test_an_existing_network_is_one_however_it_is_named() -> None:
    def found(**settings: Any) -> Any:
        return loaded(network="private", **settings).existing_network

    in_full = found(existingNetwork=NETWORK, existingSubnetwork=SUBNETWORK)
    assert (in_full.project, in_full.name) == ("my-project", "my-network")
    assert in_full.subnetwork == "my-subnetwork"
    assert found(existingNetwork="my-network", existingSubnetwork="my-subnetwork") == in_full
    # As in a network of auto mode.
    assert found(existingNetwork="default").subnetwork == "default"
    shared = found(existingNetwork=NETWORK.replace("my-project", "host-project"))
    assert (shared.project, shared.subnetwork) == ("host-project", "my-network")
    assert found() is None


def test_a_viewer_needs_a_name() -> None:
    assert loaded().viewer is None
    viewer = loaded(viewerUsername="viewer").viewer
    assert viewer
    assert (viewer.username, viewer.password) == ("viewer", None)
    for key, value in (("viewerPassword", "correct horse battery"), ("viewerPasswordVersion", "2")):
        with pytest.raises(SettingsError) as nameless:
            load({**NAMED, f"mlflow-gcp:{key}": value}, is_secret=lambda _: True)
        [problem] = nameless.value.problems
        assert problem.key == "mlflow-gcp:viewerUsername"
        assert f"with {key} the name" in problem.wanted
        assert "correct horse battery" not in str(problem)


def test_keys_of_other_packages_are_theirs() -> None:
    assert load({**NAMED, "gcp:zone": "us-central1-a", "docker:host": "x"}).project == "my-project"


@pytest.mark.parametrize(
    ("tier", "edition", "connections"),
    [
        ("db-f1-micro", "ENTERPRISE", 25),
        ("db-g1-small", "ENTERPRISE", 50),
        ("db-custom-1-3840", "ENTERPRISE", 100),
        ("db-custom-1-5888", "ENTERPRISE", 100),
        ("db-custom-1-6144", "ENTERPRISE", 200),
        ("db-custom-2-7680", "ENTERPRISE", 400),
        ("db-custom-4-15360", "ENTERPRISE", 500),
        ("db-custom-8-30720", "ENTERPRISE", 600),
        ("db-custom-10-61440", "ENTERPRISE", 800),
        ("db-custom-20-122880", "ENTERPRISE", 1000),
        ("db-perf-optimized-N-2", "ENTERPRISE_PLUS", 500),
        ("db-perf-optimized-N-128", "ENTERPRISE_PLUS", 1000),
    ],
)
def test_tiers(tier: str, edition: str, connections: int) -> None:
    found = tiers.require(tier)
    assert (found.edition, found.max_connections) == (edition, connections)


def test_memory() -> None:
    assert (mebibytes("512Mi"), mebibytes("2Gi")) == (512, 2048)


# Pulumi.yaml and the settings say the same.


class Recorder(dict[str, Any]):
    """Remembers which keys were asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def declared_keys() -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    return {key: entry for key, entry in config.items() if ":" not in key}


def test_every_key_is_declared_and_every_declared_key_is_read() -> None:
    recorder = Recorder(NAMED)
    load(recorder)
    asked = {key.removeprefix("mlflow-gcp:") for key in recorder.asked if "mlflow-gcp:" in key}
    assert asked == set(declared_keys())
    for key, entry in declared_keys().items():
        assert {"type", "default", "description"} <= set(entry), key


def test_defaults_are_the_same_in_both() -> None:
    """The engine hands the defaults of Pulumi.yaml over as strings and JSON."""
    from_yaml = {
        f"mlflow-gcp:{key}": str(entry["default"]).lower()
        if isinstance(entry["default"], bool)
        else str(entry["default"])
        for key, entry in declared_keys().items()
    }
    assert load({**NAMED, **from_yaml}) == load(NAMED)


def test_the_region_default_is_the_same_in_both() -> None:
    config = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    assert config["gcp:region"]["value"] == load(NAMED).region


def test_the_dev_stack_is_valid_and_can_be_destroyed() -> None:
    config = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())["config"]
    settings = load({**NAMED, **{key: str(value) for key, value in config.items()}})
    assert settings.deletion_protection is False
    assert settings.bucket_force_destroy is True


def test_the_server_refuses_what_the_program_refuses() -> None:
    theirs = (ROOT / "image" / "tracking_server" / "boot" / "settings.py").read_text()
    assert f"\nCONNECTIONS_PER_PROCESS = {CONNECTIONS_PER_PROCESS}\n" in theirs
