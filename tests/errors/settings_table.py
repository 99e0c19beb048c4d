"""What can be wrong with a stack's settings, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Setting:
    name: str
    # Beside a project; keys of ours without their namespace.
    config: Mapping[str, str]
    # Whether what is given for a password was set with --secret.
    secret: bool = True
    # The one problem.
    key: str
    given: str
    wanted: str
    example: str


SETTINGS = (
    Setting(
        name="no project",
        config={"gcp:project": ""},
        key="gcp:project",
        given="nothing",
        wanted=(
            "the id of a Google Cloud project: 6 to 30 lower-case letters, digits and hyphens, "
            "starting with a letter and not ending with a hyphen (the id, not the name or "
            "number)"
        ),
        example="pulumi config set gcp:project my-project",
    ),
    Setting(
        name="a project's name",
        config={"gcp:project": "My Project"},
        key="gcp:project",
        given="My Project",
        wanted=(
            "the id of a Google Cloud project: 6 to 30 lower-case letters, digits and hyphens, "
            "starting with a letter and not ending with a hyphen (the id, not the name or "
            "number)"
        ),
        example="pulumi config set gcp:project my-project",
    ),
    Setting(
        name="region misspelt",
        config={"gcp:region": "us-centrall"},
        key="gcp:region",
        given="us-centrall",
        wanted="a region of Cloud Run; close to it: us-central1, me-central2, me-central1",
        example="pulumi config set gcp:region us-central1",
    ),
    Setting(
        name="no region at all",
        config={"gcp:region": "mars"},
        key="gcp:region",
        given="mars",
        wanted="a region of Cloud Run: https://cloud.google.com/run/docs/locations",
        example="pulumi config set gcp:region us-central1",
    ),
    Setting(
        name="name",
        config={"name": "Mlflow_"},
        key="name",
        given="Mlflow_",
        wanted=(
            "lower-case letters, digits and hyphens, starting with a letter and not ending "
            "with a hyphen"
        ),
        example="pulumi config set name mlflow",
    ),
    Setting(
        name="name too long for the account",
        config={"name": "nnnnnnnnnnnnnnnnnnnnnnnn"},
        key="name",
        given="nnnnnnnnnnnnnnnnnnnnnnnn",
        wanted=(
            "at most 23 characters: the account nnnnnnnnnnnnnnnnnnnnnnnn-server has 31 of 30 "
            "(the service may have 49)"
        ),
        example="pulumi config set name mlflow",
    ),
    Setting(
        name="name too long for the bucket",
        config={"gcp:project": "pppppppppppppppppppppppppppppp", "name": "nnnnnnnnnnnnnnnn"},
        key="name",
        given="nnnnnnnnnnnnnnnn",
        wanted=(
            "at most 15 characters: the bucket "
            "pppppppppppppppppppppppppppppp-nnnnnnnnnnnnnnnn-artifacts-xxxxxx has 64 of 63"
        ),
        example="pulumi config set name mlflow",
    ),
    Setting(
        name="name that looks like Google's",
        config={"name": "goog1e"},
        key="name",
        given="goog1e",
        wanted=(
            "a name that does not make the bucket my-project-goog1e-artifacts-xxxxxx contain "
            "google, or anything that looks like it, which Cloud Storage refuses"
        ),
        example="pulumi config set name mlflow",
    ),
    Setting(
        name="username with a colon",
        config={"trackingUsername": "mlflow:canary"},
        key="trackingUsername",
        given="mlflow:...",
        wanted=(
            "printable characters without a colon, which ends the name in HTTP Basic, and "
            "without spaces around them"
        ),
        example="pulumi config set trackingUsername mlflow",
    ),
    Setting(
        name="password too short",
        config={"trackingPassword": "canary"},
        key="trackingPassword",
        given="(hidden)",
        wanted=(
            "at least 15 printable characters without spaces or a line end around them, or "
            "none: then one is generated"
        ),
        example="pulumi config set --secret trackingPassword 'a phrase that nobody guesses'",
    ),
    Setting(
        name="password in plain text",
        config={"trackingPassword": "canary canary canary canary x"},
        secret=False,
        key="trackingPassword",
        given="(hidden), in plain text, as the stack's file now has it",
        wanted="a new one, set with --secret: the file is there to be committed",
        example="pulumi config set --secret trackingPassword 'a phrase that nobody guesses'",
    ),
    Setting(
        name="version beside a password",
        config={"trackingPassword": "correct horse battery", "trackingPasswordVersion": "2"},
        key="trackingPasswordVersion",
        given="2",
        wanted=(
            "none beside a trackingPassword of your own, which has no versions: to change it, "
            "set another password"
        ),
        example="pulumi config rm trackingPasswordVersion",
    ),
    Setting(
        name="password in place of its secret",
        config={"trackingPasswordSecret": "canary-canary-canary"},
        key="trackingPasswordSecret",
        given="(hidden)",
        wanted=(
            "the full name of a version of a secret, by the project's id and with the "
            "version's number, or none: then the stack makes a secret"
        ),
        example=(
            "pulumi config set trackingPasswordSecret "
            "projects/my-project/secrets/my-password/versions/1"
        ),
    ),
    Setting(
        name="the stack's own secret",
        config={
            "trackingPasswordSecret": (
                "projects/my-project/secrets/mlflow_tracking_password/versions/1"
            )
        },
        key="trackingPasswordSecret",
        given="projects/my-project/secrets/mlflow_tracking_password/versions/1",
        wanted=(
            "a secret of your own: mlflow_tracking_password is the stack's, which takes it away "
            "when it isn't asked for; put the password into another first"
        ),
        example=(
            "pulumi config set trackingPasswordSecret "
            "projects/my-project/secrets/my-password/versions/1"
        ),
    ),
    Setting(
        name="secret beside a password",
        config={
            "trackingPassword": "correct horse battery",
            "trackingPasswordSecret": "projects/my-project/secrets/own/versions/1",
        },
        key="trackingPasswordSecret",
        given="projects/my-project/secrets/own/versions/1",
        wanted="nothing beside trackingPassword, which is of a password that the stack keeps",
        example="pulumi config rm trackingPassword",
    ),
    Setting(
        name="another project's secret",
        config={"trackingPasswordSecret": "projects/their-project/secrets/own/versions/1"},
        key="trackingPasswordSecret",
        given="projects/their-project/secrets/own/versions/1",
        wanted="a secret of the stack's project, which is my-project: the server reads no other's",
        example=(
            "pulumi config set trackingPasswordSecret projects/my-project/secrets/own/versions/1"
        ),
    ),
    Setting(
        name="one password for both",
        config={
            "viewerUsername": "viewer",
            "trackingPasswordSecret": "projects/my-project/secrets/own/versions/1",
            "viewerPasswordSecret": "projects/my-project/secrets/own/versions/2",
        },
        key="viewerPasswordSecret",
        given="projects/my-project/secrets/own/versions/2",
        wanted=(
            "another secret than trackingPasswordSecret's: whoever may look would know the "
            "password of whoever may do everything"
        ),
        example=(
            "pulumi config set viewerPasswordSecret "
            "projects/my-project/secrets/viewer-password/versions/1"
        ),
    ),
    Setting(
        name="viewer without a name",
        config={"viewerPassword": "correct horse battery"},
        key="viewerUsername",
        given="none",
        wanted="with viewerPassword the name of the viewer that it is for",
        example="pulumi config set viewerUsername viewer",
    ),
    Setting(
        name="viewer of the same name",
        config={"viewerUsername": "mlflow"},
        key="viewerUsername",
        given="mlflow",
        wanted="another name than trackingUsername's: whoever logs in says by it who is meant",
        example="pulumi config set viewerUsername viewer",
    ),
    Setting(
        name="image",
        config={"image": "server"},
        key="image",
        given="server",
        wanted=(
            "an image with its digest or tag, in Artifact Registry, gcr.io or docker.io (what "
            "Cloud Run pulls from), or none: then it is built"
        ),
        example=(
            "pulumi config set image us-central1-docker.pkg.dev/my-project/mlflow/server@sha256:..."
        ),
    ),
    Setting(
        name="image and builder",
        config={"image": "docker.io/my/server:1", "builder": "cloud-build"},
        key="builder",
        given="cloud-build",
        wanted="no builder beside a ready image: unset one of image and builder",
        example="pulumi config rm builder",
    ),
    Setting(
        name="choice",
        config={"builder": "podman"},
        key="builder",
        given="podman",
        wanted="one of docker, cloud-build",
        example="pulumi config set builder docker",
    ),
    Setting(
        name="repository",
        config={"githubRepository": "https://github.com/my-org/mlflow-gcp"},
        key="githubRepository",
        given="https://github.com/my-org/mlflow-gcp",
        wanted=(
            "owner/name of a repository on GitHub, spelt as GitHub spells it, or none: then "
            "nothing deploys from there"
        ),
        example="pulumi config set githubRepository my-org/mlflow-gcp",
    ),
    Setting(
        name="repository by its name alone",
        config={"githubRepository": "my-org/mlflow-gcp"},
        key="githubRepositoryId",
        given="nothing",
        wanted=(
            "the number that GitHub has for my-org/mlflow-gcp, as its name could be another's one "
            "day"
        ),
        example=(
            'pulumi config set githubRepositoryId "$(gh api repos/my-org/mlflow-gcp --jq .id)"'
        ),
    ),
    Setting(
        name="a number without its repository",
        config={"githubRepositoryId": "74"},
        key="githubRepositoryId",
        given="74",
        wanted="nothing without githubRepository, whose number it is",
        example="pulumi config rm githubRepositoryId",
    ),
    Setting(
        name="a review without its repository",
        config={"githubReview": "true"},
        key="githubReview",
        given="true",
        wanted="false without githubRepository, whose pull requests it is about",
        example="pulumi config rm githubReview",
    ),
    Setting(
        name="bucket with its scheme",
        config={"existingBucket": "gs://my-artifacts"},
        key="existingBucket",
        given="gs://my-artifacts",
        wanted="the name of a bucket, without gs://, or none: then one is made",
        example="pulumi config set existingBucket my-artifacts",
    ),
    Setting(
        name="location",
        config={"bucketLocation": "Europe"},
        key="bucketLocation",
        given="Europe",
        wanted=(
            "a region, or one of ASIA, EU, US, ASIA1, EUR4, EUR5, EUR7, EUR8, NAM4, or none: "
            "then the stack's region"
        ),
        example="pulumi config set bucketLocation EU",
    ),
    Setting(
        name="yes or no",
        config={"bucketForceDestroy": "yes"},
        key="bucketForceDestroy",
        given="yes",
        wanted="true or false",
        example="pulumi config set bucketForceDestroy false",
    ),
    Setting(
        name="key's short name",
        config={"kmsKey": "mlflow"},
        key="kmsKey",
        given="mlflow",
        wanted=(
            "the full name of a key in Cloud KMS, not of a version of it, or none: then Google "
            "encrypts with keys of its own; `gcloud kms keys list` shows it"
        ),
        example=(
            "pulumi config set kmsKey "
            "projects/my-project/locations/us-central1/keyRings/my-ring/cryptoKeys/mlflow"
        ),
    ),
    Setting(
        name="key elsewhere",
        config={
            "kmsKey": "projects/my-project/locations/europe-west1/keyRings/ring/cryptoKeys/key"
        },
        key="kmsKey",
        given="projects/my-project/locations/europe-west1/keyRings/ring/cryptoKeys/key",
        wanted="a key in us-central1, where everything is: this one is in europe-west1",
        example=(
            "pulumi config set kmsKey "
            "projects/my-project/locations/us-central1/keyRings/my-ring/cryptoKeys/mlflow"
        ),
    ),
    Setting(
        name="location beside a key",
        config={
            "kmsKey": "projects/my-project/locations/us-central1/keyRings/ring/cryptoKeys/key",
            "bucketLocation": "EU",
        },
        key="bucketLocation",
        given="EU",
        wanted=(
            "none beside kmsKey, which is in us-central1: a bucket is encrypted with keys of "
            "its own location"
        ),
        example="pulumi config rm bucketLocation",
    ),
    Setting(
        name="network",
        config={"existingNetwork": "My Network", "network": "private"},
        key="existingNetwork",
        given="My Network",
        wanted=(
            "the name of a VPC network of the project, or the full name of one, which may be "
            "another project's Shared VPC, or none: then one is made"
        ),
        example="pulumi config set existingNetwork projects/my-project/global/networks/my-network",
    ),
    Setting(
        name="subnetwork",
        config={"existingSubnetwork": "My Subnetwork"},
        key="existingSubnetwork",
        given="My Subnetwork",
        wanted=(
            "the name of a subnetwork of existingNetwork, or its full name, or none: then the "
            "one that is called what the network is"
        ),
        example=(
            "pulumi config set existingSubnetwork "
            "projects/my-project/regions/us-central1/subnetworks/my-subnetwork"
        ),
    ),
    Setting(
        name="subnetwork of none",
        config={"existingSubnetwork": "my-subnetwork"},
        key="existingSubnetwork",
        given="my-subnetwork",
        wanted="with it existingNetwork, which it is part of",
        example="pulumi config set existingNetwork my-network",
    ),
    Setting(
        name="subnetwork elsewhere",
        config={
            "existingNetwork": "projects/shared-host/global/networks/shared",
            "existingSubnetwork": "projects/shared-host/regions/europe-west1/subnetworks/shared",
            "network": "private",
        },
        key="existingSubnetwork",
        given="projects/shared-host/regions/europe-west1/subnetworks/shared",
        wanted=(
            "a subnetwork in us-central1, where the server is, and of the project shared-host, "
            "as existingNetwork is"
        ),
        example=(
            "pulumi config set existingSubnetwork "
            "projects/shared-host/regions/us-central1/subnetworks/shared"
        ),
    ),
    Setting(
        name="network of a public database",
        config={"existingNetwork": "my-network"},
        key="existingNetwork",
        given="my-network",
        wanted="with it network private: a public database is in no network",
        example="pulumi config set network private",
    ),
    Setting(
        name="access granted twice",
        config={
            "access": "iam",
            "invokers": '["user:ada@example.com"]',
            "publicThrough": "invokerIamDisabled",
        },
        key="publicThrough",
        given="invokerIamDisabled",
        wanted="nothing: it says how access public is granted, and access is iam",
        example="pulumi config rm publicThrough",
    ),
    Setting(
        name="nobody let in",
        config={"access": "iap"},
        key="invokers",
        given="nothing",
        wanted="with access iap at least one who is let in",
        example="pulumi config set --path 'invokers[0]' user:ada@example.com",
    ),
    Setting(
        name="invokers of a public server",
        config={"invokers": '["user:ada@example.com"]'},
        key="invokers",
        given='["user:ada@example.com"]',
        wanted=(
            "none: they are let in by access iam or iap, and access public lets in everybody "
            "on the internet"
        ),
        example="pulumi config rm invokers",
    ),
    Setting(
        name="invokers of an internal server",
        config={"access": "internal", "invokers": '["user:ada@example.com"]'},
        key="invokers",
        given='["user:ada@example.com"]',
        wanted=(
            "none: they are let in by access iam or iap, and access internal lets in everybody "
            "in the VPC"
        ),
        example="pulumi config rm invokers",
    ),
    Setting(
        name="invokers as text",
        config={"access": "iam", "invokers": "ada@example.com"},
        key="invokers",
        given="ada@example.com",
        wanted=(
            "a list of user:, group: or serviceAccount: with an e-mail address, or domain: "
            "with a domain; not allUsers or allAuthenticatedUsers, which are everybody"
        ),
        example="pulumi config set --path 'invokers[0]' user:ada@example.com",
    ),
    Setting(
        name="instance's short name",
        config={"existingDatabaseInstance": "my-instance"},
        key="existingDatabaseInstance",
        given="my-instance",
        wanted=(
            "the connection name of a Cloud SQL instance, as `gcloud sql instances describe "
            "NAME --format 'value(connectionName)'` shows it, or none: then one is made"
        ),
        example="pulumi config set existingDatabaseInstance my-project:us-central1:my-instance",
    ),
    Setting(
        name="another project's instance",
        config={"existingDatabaseInstance": "their-project:us-central1:shared"},
        key="existingDatabaseInstance",
        given="their-project:us-central1:shared",
        wanted="an instance in the stack's project, which is my-project",
        example="pulumi config set existingDatabaseInstance my-project:us-central1:my-instance",
    ),
    Setting(
        name="what an instance has already",
        config={
            "existingDatabaseInstance": "my-project:us-central1:shared",
            "databaseVersion": "16",
        },
        key="databaseVersion",
        given="16",
        wanted="nothing beside existingDatabaseInstance, which is left as it is",
        example="pulumi config rm databaseVersion",
    ),
    Setting(
        name="tier",
        config={"databaseTier": "db-n1-standard-1"},
        key="databaseTier",
        given="db-n1-standard-1",
        wanted=(
            "db-f1-micro, db-g1-small, db-custom-<CPUs>-<MiB> (1 CPU or an even number up to "
            "96; memory a multiple of 256, at least 3840, 0.9 to 6.5 GiB for each CPU), or "
            "with ENTERPRISE_PLUS db-perf-optimized-N-<2|4|8|16|32|48|64|80|96|128>"
        ),
        example="pulumi config set databaseTier db-custom-1-3840",
    ),
    Setting(
        name="edition of another tier",
        config={"databaseTier": "db-perf-optimized-N-2"},
        key="databaseEdition",
        given="nothing",
        wanted="ENTERPRISE_PLUS, which databaseTier db-perf-optimized-N-2 belongs to",
        example="pulumi config set databaseEdition ENTERPRISE_PLUS",
    ),
    Setting(
        name="disk that may not grow",
        config={"databaseDiskGb": "200"},
        key="databaseDiskLimitGb",
        given="nothing",
        wanted="at least databaseDiskGb, which is 200",
        example="pulumi config set databaseDiskLimitGb 400",
    ),
    Setting(
        name="more connections than there are",
        config={"maxInstances": "3"},
        key="databaseConnections",
        given="maxInstances 3 x databaseConnections 8 = 24",
        wanted=(
            "at most 17: db-f1-micro accepts 25, less 8 (3 superuser_reserved_connections, 3 "
            "Cloud SQL's agents, 2 a new revision that boots); take maxInstances 2 or "
            "databaseConnections 5 or a larger databaseTier (db-g1-small)"
        ),
        example="pulumi config set databaseConnections 5",
    ),
    Setting(
        name="connections of each process",
        config={"cpu": "4", "memory": "4Gi"},
        key="databaseConnections",
        given="nothing",
        wanted=(
            "at least 16: 4, which one request may take, for each of the 4 processes that cpu "
            "asks for"
        ),
        example="pulumi config set databaseConnections 32",
    ),
    Setting(
        name="memory",
        config={"memory": "1 GB"},
        key="memory",
        given="1 GB",
        wanted="a whole number of Mi or Gi",
        example="pulumi config set memory 1Gi",
    ),
    Setting(
        name="memory that the CPU can't have",
        config={"memory": "8Gi"},
        key="memory",
        given="8Gi",
        wanted=(
            "512Mi to 4096Mi, which is what 1 CPU can have, or another cpu (1 CPU "
            "512Mi-4096Mi; 2 CPU 512Mi-8192Mi; 4 CPU 2048Mi-16384Mi; 6 CPU 4096Mi-24576Mi; 8 "
            "CPU 4096Mi-32768Mi)"
        ),
        example="pulumi config set memory 1Gi",
    ),
    Setting(
        name="cpu",
        config={"cpu": "3"},
        key="cpu",
        given="3",
        wanted="one of 1, 2, 4, 6, 8",
        example="pulumi config set cpu 1",
    ),
    Setting(
        name="more at least than at most",
        config={"minInstances": "3"},
        key="minInstances",
        given="3",
        wanted="at most maxInstances, which is 2",
        example="pulumi config set minInstances 2",
    ),
    Setting(
        name="number",
        config={"requestTimeout": "1h"},
        key="requestTimeout",
        given="1h",
        wanted="a whole number from 1 to 3600 seconds",
        example="pulumi config set requestTimeout 3600",
    ),
    Setting(
        name="domains with their scheme",
        config={"customDomains": '["https://mlflow.example.com"]'},
        key="customDomains",
        given='["https://mlflow.example.com"]',
        wanted="a list of host names, each without scheme, port, path or *",
        example="pulumi config set --path 'customDomains[0]' mlflow.example.com",
    ),
    Setting(
        name="this computer for a network",
        config={"internalNetworks": '["127.0.0.0/8"]'},
        key="internalNetworks",
        given='["127.0.0.0/8"]',
        wanted=(
            "a list of private address ranges, each with its length in bits; not this computer's "
            "own and not link-local ones, where the metadata server is"
        ),
        example="pulumi config set --path 'internalNetworks[0]' 10.8.0.0/24",
    ),
    Setting(
        name="limit that stops the page",
        config={
            "loadBalancer": "true",
            "customDomains": '["mlflow.example.com"]',
            "rateLimit": "10",
        },
        key="rateLimit",
        given="10",
        wanted=(
            "0, which is no limit, or at least 100: MLflow's page asks for dozens of files at "
            "a time"
        ),
        example="pulumi config set rateLimit 6000",
    ),
    Setting(
        name="limit that nobody counts",
        config={"rateLimit": "6000"},
        key="rateLimit",
        given="6000",
        wanted="with it loadBalancer, which counts the requests",
        example="pulumi config set loadBalancer true",
    ),
    Setting(
        name="load balancer for no name",
        config={"loadBalancer": "true"},
        key="customDomains",
        given="nothing",
        wanted=(
            "with loadBalancer at least one, the server's address, and at most 15, as each has "
            "a certificate"
        ),
        example="pulumi config set --path 'customDomains[0]' mlflow.example.com",
    ),
    Setting(
        name="load balancer for nobody",
        config={
            "loadBalancer": "true",
            "customDomains": '["mlflow.example.com"]',
            "access": "internal",
        },
        key="loadBalancer",
        given="true",
        wanted="false: it is for callers from the internet, whom access internal refuses",
        example="pulumi config set loadBalancer false",
    ),
    Setting(
        name="mail address",
        config={"alertEmail": "oncall"},
        key="alertEmail",
        given="oncall",
        wanted="one e-mail address, or none: then nothing watches",
        example="pulumi config set alertEmail oncall@example.com",
    ),
    Setting(
        name="billing account's name",
        config={
            "alertEmail": "oncall@example.com",
            "monthlyBudget": "50",
            "billingAccount": "My Billing",
        },
        key="billingAccount",
        given="My Billing",
        wanted=(
            "the id of a billing account, three times six hexadecimal digits in upper case; "
            "`gcloud billing accounts list` shows it"
        ),
        example="pulumi config set billingAccount 012345-6789AB-CDEF01",
    ),
    Setting(
        name="check that tells nobody",
        config={"uptimeCheck": "true"},
        key="uptimeCheck",
        given="true",
        wanted="with it alertEmail, which says who is told",
        example="pulumi config set alertEmail oncall@example.com",
    ),
    Setting(
        name="budget of no account",
        config={"alertEmail": "oncall@example.com", "monthlyBudget": "50"},
        key="billingAccount",
        given="nothing",
        wanted=(
            "with monthlyBudget the billing account that pays for the project; `gcloud billing "
            "accounts list` shows it"
        ),
        example="pulumi config set billingAccount 012345-6789AB-CDEF01",
    ),
    Setting(
        name="account without a budget",
        config={"billingAccount": "012345-6789AB-CDEF01"},
        key="monthlyBudget",
        given="nothing",
        wanted="with billingAccount, which only a budget needs, an amount of at least 1",
        example="pulumi config set monthlyBudget 50",
    ),
    Setting(
        name="check that is refused",
        config={
            "alertEmail": "oncall@example.com",
            "uptimeCheck": "true",
            "access": "iam",
            "invokers": '["user:ada@example.com"]',
        },
        key="uptimeCheck",
        given="true",
        wanted="false: Google asks from the internet without logging in, which access iam refuses",
        example="pulumi config set uptimeCheck false",
    ),
    Setting(
        name="key misspelt",
        config={"maxInstance": "3"},
        key="maxInstance",
        given="a key that nothing reads",
        wanted="a key that Pulumi.yaml lists; did you mean maxInstances?",
        example="pulumi config rm mlflow-gcp:maxInstance",
    ),
    Setting(
        name="key of nobody",
        config={"colour": "blue"},
        key="colour",
        given="a key that nothing reads",
        wanted="a key that Pulumi.yaml lists",
        example="pulumi config rm mlflow-gcp:colour",
    ),
    Setting(
        name="key of a former release",
        config={"readReplica": "true"},
        key="readReplica",
        given="a setting that was removed",
        wanted=(
            "nothing: viewers read from the database itself, and the next `pulumi up` deletes "
            "the read replica; docs/traps.md has more"
        ),
        example="pulumi config rm mlflow-gcp:readReplica",
    ),
)
