"""A secured MLflow server on Google Cloud: settings in, everything declared, outputs out.

What is declared is on one page, `infra/deployment.py`.
"""

import pulumi

from infra.config import load, stack_config
from infra.deployment import declare

for name, output in declare(load(stack_config())).items():
    pulumi.export(name, output)
