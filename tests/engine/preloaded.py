"""The imports that the processes of the program start with: `language.py` forks them.

The providers' packages load a submodule when it is first used, so it is used here. The program's
own modules are not here: each run imports those of its clone.
"""

import pulumi_command
import pulumi_docker
import pulumi_gcp as gcp
import pulumi_random

PARTS = (
    gcp.artifactregistry.Repository,
    gcp.cloudrunv2.Service,
    gcp.compute.Network,
    gcp.organizations.get_client_config_output,
    gcp.projects.Service,
    gcp.secretmanager.Secret,
    gcp.serviceaccount.Account,
    gcp.sql.DatabaseInstance,
    gcp.storage.Bucket,
    pulumi_command.local.Command,
    pulumi_docker.Image,
    pulumi_random.RandomPassword,
)
