"""Two teams, each with a separate server, database and bucket.

pulumi config set --secret forecastPassword 'a phrase that nobody guesses'
"""

import pulumi
from mlflow_gcp import TrackingServer

research = TrackingServer("research", deletion_protection=False, bucket_force_destroy=True)
forecast = TrackingServer(
    "forecast",
    database_tier="db-custom-1-3840",
    min_instances=1,
    viewer_username="viewer",
    tracking_password=pulumi.Config().require_secret("forecastPassword"),
)
for team, server in (("research", research), ("forecast", forecast)):
    pulumi.export(f"{team}_tracking_uri", server.tracking_uri)
    pulumi.export(f"{team}_tracking_password", server.tracking_password)
