"""A secured MLflow server on Google Cloud: settings in, everything declared, outputs out.

What is declared is on one page, `infra/deployment.py`.
"""

import pulumi

from infra.deployment import declare
from infra.settings.loader import load, stack_config

for name, output in declare(load(stack_config())).items():
    pulumi.export(name, output)
