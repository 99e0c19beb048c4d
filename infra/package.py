"""`TrackingServer` for programs in YAML and other languages. The folder package/ serves it."""

# Pulumi reads the schema from these annotations at run time, so none are postponed.

from typing import cast

import pulumi

from . import tracking_server
from .arguments import Arguments
from .program_settings import PROPERTIES, checked


def _with_integers(args: Arguments) -> Arguments:
    """Returns the arguments with whole numbers as integers.

    Pulumi sends all numbers as floats: https://github.com/pulumi/pulumi/pull/16939
    """
    return cast(
        "Arguments",
        {
            key: int(value) if isinstance(value, float) and value.is_integer() else value
            for key, value in args.items()
        },
    )


class TrackingServer(pulumi.ComponentResource):
    """A secured MLflow tracking server in the program's project and region (`gcp:project`,
    `gcp:region`). The component's name is the prefix of all resource names."""

    tracking_uri: pulumi.Output[str]
    tracking_username: pulumi.Output[str]
    tracking_password: pulumi.Output[str] | None
    artifact_bucket: pulumi.Output[str]
    service_account_email: pulumi.Output[str]
    database_connection_name: pulumi.Output[str]
    image: pulumi.Output[str]
    version: pulumi.Output[str]

    def __init__(
        self, name: str, args: Arguments, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        arguments = _with_integers(args)
        # Before TrackingServer, which reports refused settings as Python's arguments.
        checked(name, arguments, PROPERTIES)
        super().__init__("mlflow-gcp:index:TrackingServer", name, None, opts)
        server = tracking_server.TrackingServer(
            name, opts=pulumi.ResourceOptions(parent=self), **arguments
        )
        outputs = {each: getattr(server, each) for each in type(self).__annotations__}
        for attribute, output in outputs.items():
            setattr(self, attribute, output)
        self.register_outputs(outputs)
